"""Keys of a config that would have no effect: they are errors, not ignored."""

from collections.abc import Sequence

from detectron2.config import CfgNode, get_cfg
from kd_core.errors import UserError
from kd_core.runtime.console import err

from kd_det.config import add_kd_config

_OF_TEACHERS = ("INPUT.FORMAT", "DATASETS.TRAIN")
"""Keys outside of MODEL that a teacher is read for: its channels, and the names of its classes."""
_IDLE = ("MODEL.DEVICE", "MODEL.WEIGHTS")
"""Keys of MODEL that it is not."""


def check_keys(cfg: CfgNode) -> None:
    """Reject keys of the KD node that would have no effect.

    Raises:
        UserError: Names the key, and what has an effect.
    """
    _check_teacher(cfg.KD.TEACHER.OPTS)
    if cfg.KD.TERMS:
        return
    plain = CfgNode()
    add_kd_config(plain)
    places = [
        (f"KD.TEACHER.{key}", cfg.KD.TEACHER, plain.KD.TEACHER, key) for key in plain.KD.TEACHER
    ]
    places += [(f"KD.{key}", cfg.KD, plain.KD, key) for key in ("INHERIT", "TASK_WEIGHT")]
    for name, node, default, key in places:
        if node[key] != default[key]:
            raise UserError(
                f"{name} has no effect, since KD.TERMS is empty: the student would learn alone. "
                "Name a term, as configs/det/methods/*.yaml do, or leave the teacher out"
            )


def note_size(cfg: CfgNode, teacher: CfgNode | None) -> None:
    """Print that a teacher's own images are larger than those that it is shown, if they are.

    Args:
        cfg: The student's config.
        teacher: The teacher's; None for one that is not of Detectron2.
    """
    if teacher is None:
        return
    size, largest = teacher.INPUT.MIN_SIZE_TEST, max(cfg.INPUT.MIN_SIZE_TRAIN)
    if size > largest:
        err.print(
            f"the teacher gets the student's images, of {largest} pixels (INPUT.MIN_SIZE_TRAIN)"
            f", and not of {size}, its own INPUT.MIN_SIZE_TEST"
        )


def _check_teacher(options: Sequence[object]) -> None:
    """Reject KEY VALUE pairs of a teacher that are of training, evaluation or data alone."""
    roots = {*get_cfg(), "KD"}  # others are a user's own
    for key in map(str, options[::2]):
        root = key.partition(".")[0]
        if root not in roots or (root == "MODEL" and key not in _IDLE) or key in _OF_TEACHERS:
            continue
        why = "a teacher is not trained, and sees the student's images"
        if key == "MODEL.WEIGHTS":
            why = "its weights are KD.TEACHER.WEIGHTS"
        if key == "MODEL.DEVICE":
            why = "it runs on the student's MODEL.DEVICE"
        raise UserError(
            f"KD.TEACHER.OPTS: {key} has no effect: {why}; leave it out. MODEL.*, "
            f"{' and '.join(_OF_TEACHERS)} have one"
        )
