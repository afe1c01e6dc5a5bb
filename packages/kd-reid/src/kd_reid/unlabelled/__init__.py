"""Distillation on crops of people whose identities nobody knows."""

from kd_reid.unlabelled.folder import CropSplits, crops

__all__ = ["CropSplits", "crops"]
