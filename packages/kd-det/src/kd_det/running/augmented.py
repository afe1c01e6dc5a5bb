"""Test-time augmentation, `TEST.AUG`: every image is evaluated in several sizes, and mirrored."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase, hooks
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, GeneralizedRCNNWithTTA
from kd_core.errors import UserError
from torch import nn

from kd_det.resume.state import with_options

FOLDER = "augmented"
"""Folder of these predictions in that of the run, beside those of plain images."""
SUFFIX = "_TTA"
"""Ends the names of these results, as in Detectron2's own tool: `bbox_TTA/AP`."""


def check_augmentation(cfg: CfgNode) -> None:
    """Reject test-time augmentation of a detector for which Detectron2 does not have it.

    Raises:
        UserError: Names what cannot be augmented.
    """
    if not cfg.TEST.AUG.ENABLED:
        return
    architecture = META_ARCH_REGISTRY._obj_map.get(cfg.MODEL.META_ARCHITECTURE, GeneralizedRCNN)
    other = isinstance(architecture, type) and not issubclass(architecture, GeneralizedRCNN)
    problems = {
        f"a {cfg.MODEL.META_ARCHITECTURE}, only for R-CNNs": other,
        "keypoints (MODEL.KEYPOINT_ON)": cfg.MODEL.KEYPOINT_ON,
        "files of proposals (MODEL.LOAD_PROPOSALS)": cfg.MODEL.LOAD_PROPOSALS,
    }
    for what, wrong in problems.items():
        if wrong:
            raise UserError(
                f"TEST.AUG.ENABLED is True, but Detectron2 has no test-time augmentation for {what}"
                "; set TEST.AUG.ENABLED False"
            )
    sizes = cfg.TEST.AUG.MIN_SIZES
    if not sizes or min(sizes) < 1:
        raise UserError(f"TEST.AUG.MIN_SIZES is {sizes!r:.60}; wanted heights in pixels")


def evaluate_augmented(trainer: Any, cfg: CfgNode, model: nn.Module) -> OrderedDict[str, Any]:
    """Return the results with augmentation, under names with `SUFFIX`; nothing if it is off.

    Args:
        trainer: Class of the trainer, which has the data and the evaluators.
        cfg: The config.
        model: The plain student.
    """
    if not cfg.TEST.AUG.ENABLED:
        return OrderedDict()
    apart = with_options(cfg, "OUTPUT_DIR", str(Path(cfg.OUTPUT_DIR, FOLDER)))
    found = trainer.test(apart, GeneralizedRCNNWithTTA(cfg, model))
    return OrderedDict({f"{name}{SUFFIX}": values for name, values in found.items()})


def with_last_evaluation(made: list[HookBase], evaluate: Any) -> list[HookBase]:
    """Return a trainer's hooks with an evaluation after the last iteration, before it is written.

    Args:
        made: The hooks.
        evaluate: Returns the results.
    """
    writers = [n for n, hook in enumerate(made) if isinstance(hook, hooks.PeriodicWriter)]
    place = writers[0] if writers else len(made)
    return [*made[:place], hooks.EvalHook(0, evaluate), *made[place:]]
