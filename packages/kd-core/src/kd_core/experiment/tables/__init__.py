"""Tables whose rows are configs: what is in them, their files and pictures."""
