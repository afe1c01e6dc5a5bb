"""Distil image classifiers: CIFAR, ImageNet, folders of images."""

TITLE = "Train or distil an image classifier"
"""What its tools do, for their help."""
