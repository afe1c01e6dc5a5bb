"""Distil Detectron2 detectors; importing this prepares Detectron2 for today's libraries.

Nothing of Detectron2 is imported here: what it needs is put in place when it is. Where it is not
installed, importing it fails with a line that says how to get it; `kd_det.criteria` works without.
"""

from kd_det.release.preparation import has_extension, prepare, require_detectron2

prepare()

__all__ = ["has_extension", "require_detectron2"]
