"""Keys of Detectron2 that take one of a few names, which it looks at in the middle of its work."""

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
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm", "full_model"),
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": _LOSSES,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": _LOSSES,
    "MODEL.RETINANET.BBOX_REG_LOSS_TYPE": _LOSSES,
}


def check_choices(cfg: CfgNode) -> None:
    """Reject names that Detectron2 would not know.

    Raises:
        UserError: Names the key and the nearest name.
    """
    for key, names in CHOICES.items():
        value = cfg
        for part in key.split("."):
            value = value[part]
        if value not in names:
            raise UserError(f"{key} is {value!r}{nearest(str(value), names)}")
