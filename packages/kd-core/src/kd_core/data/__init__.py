"""Batches on the device: loaders, augmentations, image files."""
