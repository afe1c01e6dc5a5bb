"""Distil Detectron2 detectors; importing this makes Detectron2 work with current libraries."""

import warnings

from kd_det.compat import has_extension, require_detectron2

try:
    require_detectron2()
except ImportError as missing:
    warnings.warn(f"{missing} Until then, only kd_det.criteria can be used.", stacklevel=2)

__all__ = ["has_extension", "require_detectron2"]
