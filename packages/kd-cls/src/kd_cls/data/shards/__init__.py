"""WebDataset shards: which they are, their index, an epoch's order over them, and their loader."""
