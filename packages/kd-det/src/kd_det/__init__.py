"""Distil Detectron2 detectors. So far: Detectron2 on today's libraries."""

from kd_det.compat import has_extension, require_detectron2

require_detectron2()

__all__ = ["has_extension", "require_detectron2"]
