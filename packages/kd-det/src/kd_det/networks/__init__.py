"""Detectors, their backbones, and the weights that fit them."""
