"""Detectron2's evaluators by the kind of a data set."""

from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
    SemSegEvaluator,
)
from kd_core.runtime.console import err

from kd_det.release.preparation import has_extension


def evaluator_of(cfg: CfgNode, name: str, folder: Path) -> DatasetEvaluator:
    """Return the evaluator of a data set; COCO's where the set does not say otherwise.

    Args:
        cfg: Its sigmas of keypoints count.
        name: Of the registered data set, whose `evaluator_type` says what is evaluated.
        folder: Where predictions are written.
    """
    kind = MetadataCatalog.get(name).get("evaluator_type") or "coco"
    if kind == "lvis":
        return LVISEvaluator(name, output_dir=str(folder))
    if kind == "pascal_voc":
        return PascalVOCDetectionEvaluator(name)
    found: list[DatasetEvaluator] = []
    if kind in ("sem_seg", "coco_panoptic_seg"):
        found.append(SemSegEvaluator(name, output_dir=str(folder)))
    if kind == "coco_panoptic_seg":
        found += _panoptic(name, folder)
    if kind != "sem_seg":
        sigmas = list(cfg.TEST.KEYPOINT_OKS_SIGMAS)
        fast = has_extension()
        found.append(
            COCOEvaluator(name, output_dir=str(folder), use_fast_impl=fast, kpt_oks_sigmas=sigmas)
        )
    return found[0] if len(found) == 1 else DatasetEvaluators(found)


def _panoptic(name: str, folder: Path) -> list[DatasetEvaluator]:
    try:
        import panopticapi  # noqa: F401  what Detectron2 needs at the end
    except ImportError:
        err.print(f"note: {name}: PQ is not computed, since panopticapi is not installed")
        return []
    return [COCOPanopticEvaluator(name, str(folder))]
