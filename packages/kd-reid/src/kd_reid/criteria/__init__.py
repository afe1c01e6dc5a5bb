"""Methods that re-identification adds, on its embeddings and logits. Others: `kd_core.criteria`."""
