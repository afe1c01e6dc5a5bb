"""Backbones that can be converted; a module of its own, since help must not import torch."""

ARCHITECTURES = ("resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2")
"""Names of torchvision's classifiers."""
