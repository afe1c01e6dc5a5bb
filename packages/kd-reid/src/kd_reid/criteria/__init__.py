"""Criteria of re-identification, on embeddings and logits. Others: `kd_core.criteria`."""
