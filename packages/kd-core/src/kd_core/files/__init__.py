"""Whole, checked files: atomic writing, safe reading of anybody's weights, fingerprints."""
