"""Any network or saved features, measured on any set: what `tools/reid_evaluate.py` runs."""
