"""Keys of a config: read, merged, remembered, and refused where they have no effect."""
