"""Networks as files for a tracker: what `tools/reid_export.py` writes."""
