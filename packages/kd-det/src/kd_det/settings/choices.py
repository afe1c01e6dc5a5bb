"""Keys of Detectron2 with values that it fails at in the middle of its work: names, numbers."""

import math
from typing import Any

from detectron2.config import CfgNode
from kd_core.errors import UserError, nearest

_LOSSES = ("smooth_l1", "giou", "diou", "ciou")
CHOICES = {
    "INPUT.FORMAT": ("BGR", "RGB", "L", "YUV-BT.601"),
    "INPUT.MASK_FORMAT": ("polygon", "bitmask"),
    "INPUT.RANDOM_FLIP": ("horizontal", "vertical", "none"),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "INPUT.CROP.TYPE": ("relative_range", "relative", "absolute", "absolute_range"),
    "DATALOADER.SAMPLER_TRAIN": (
        "TrainingSampler",
        "RepeatFactorTrainingSampler",
        "RandomSubsetTrainingSampler",
    ),
    "SOLVER.LR_SCHEDULER_NAME": (
        "WarmupMultiStepLR",
        "WarmupCosineLR",
        "WarmupStepWithFixedGammaLR",
    ),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm", "full_model"),
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": _LOSSES,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": _LOSSES,
    "MODEL.RETINANET.BBOX_REG_LOSS_TYPE": _LOSSES,
}
_ABOVE_0 = (
    *("SOLVER.MAX_ITER", "SOLVER.CHECKPOINT_PERIOD", "SOLVER.IMS_PER_BATCH"),
    *("INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN", "MODEL.PIXEL_STD"),
    *("SOLVER.GAMMA", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE"),
)
_NOT_NEGATIVE = (
    *("SOLVER.BASE_LR", "SOLVER.WARMUP_ITERS", "TEST.EVAL_PERIOD", "DATALOADER.NUM_WORKERS"),
    *("INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST", "SOLVER.WARMUP_FACTOR", "SOLVER.MOMENTUM"),
    *("SOLVER.STEPS", "SOLVER.WEIGHT_DECAY"),
)
"""Numbers, or lists of numbers, that Detectron2 does not check."""


def check_choices(cfg: CfgNode) -> None:
    """Reject names that Detectron2 would not know, and numbers that it fails at in its work.

    Raises:
        UserError: Names the key and the nearest name, or the range.
    """
    for key, names in CHOICES.items():
        value = _value(cfg, key)
        if value not in names:
            raise UserError(f"{key} is {value!r}{nearest(str(value), names)}")
    for key in (*_ABOVE_0, *_NOT_NEGATIVE):
        value = _value(cfg, key)
        numbers = value if isinstance(value, list | tuple) else [value]
        lacks = not numbers and key != "SOLVER.STEPS"
        if lacks or not all(_is_within(number, zero=key in _NOT_NEGATIVE) for number in numbers):
            wanted = "numbers of 0 or more" if key in _NOT_NEGATIVE else "numbers above 0"
            raise UserError(f"{key} is {value!r}; wanted {wanted}")


def _is_within(number: Any, *, zero: bool) -> bool:
    """Return whether it is a finite number above 0, or 0; Detectron2 looks at no item of a list."""
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return is_number and math.isfinite(number) and (number > 0 or (zero and number == 0))


def _value(cfg: CfgNode, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg
