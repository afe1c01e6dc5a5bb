"""Distil Detectron2 detectors; importing this prepares Detectron2 for today's libraries.

Nothing of Detectron2 is imported here: what it needs is put in place when it is.
"""

import warnings

from kd_det.release.preparation import has_extension, require_detectron2

try:
    require_detectron2()
except ImportError as missing:
    warnings.warn(f"{missing} Until then, only kd_det.criteria can be used.", stacklevel=2)

__all__ = ["has_extension", "require_detectron2"]
