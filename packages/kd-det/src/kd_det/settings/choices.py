"""Keys of Detectron2 with values that it fails at in the middle of its work: names, numbers."""

from typing import Any

from detectron2.config import CfgNode
from kd_core.errors import UserError, nearest

from kd_det.data.coco_file import is_number

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
    *("INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN"),
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
        zero = key in _NOT_NEGATIVE
        _check_numbers(cfg, key, zero=zero, empty=key == "SOLVER.STEPS")
    if cfg.SEED >= 2**32:  # NumPy's; below 0 one is drawn
        raise UserError(f"SEED is {cfg.SEED}; wanted a number below 2**32")
    check_pixels(cfg)


def check_pixels(cfg: CfgNode) -> None:
    """Reject a mean and deviation of pixels that do not go together; of a teacher's config too.

    Raises:
        UserError: Names the key.
    """
    _check_numbers(cfg, "MODEL.PIXEL_STD")
    mean, std = list(cfg.MODEL.PIXEL_MEAN), list(cfg.MODEL.PIXEL_STD)
    if len(mean) != len(std) or not all(map(is_number, mean)):
        raise UserError(
            f"MODEL.PIXEL_MEAN is {mean}, MODEL.PIXEL_STD {std}; wanted as many finite numbers"
        )


def _check_numbers(cfg: CfgNode, key: str, *, zero: bool = False, empty: bool = False) -> None:
    """Reject what is neither a number nor a list of them: Detectron2 looks at no item of a list."""
    value = _value(cfg, key)
    numbers = value if isinstance(value, list | tuple) else [value]
    fit = all(is_number(one) and (one > 0 or (zero and one == 0)) for one in numbers)
    if not fit or not (numbers or empty):
        wanted = "numbers of 0 or more" if zero else "numbers above 0"
        raise UserError(f"{key} is {value!r}; wanted {wanted}")


def _value(cfg: CfgNode, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg
