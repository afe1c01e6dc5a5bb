"""Reading and merging config files, and import paths to objects."""
