"""Finished detectors outside of training: exported files, predictions and their time."""
