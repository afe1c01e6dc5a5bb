"""Bring a student's maps to the channels of the teacher's, level by level."""

from torch import nn

from kd_core.criteria.criterion import Shapes
from kd_core.errors import UserError


def aligners(student: Shapes, teacher: Shapes, *, bias: bool = True) -> nn.ModuleList:
    """Return one module a level that adapts the channels: a 1x1 convolution where they differ.

    Args:
        student: [C, H, W] of each level.
        teacher: [C, H, W] of each level.
        bias: Let the convolutions add a constant.
    """
    pairs = [(s[0], t[0]) for s, t in zip(student, teacher, strict=True)]
    return nn.ModuleList(
        nn.Identity() if s == t else nn.Conv2d(s, t, 1, bias=bias) for s, t in pairs
    )


def require_same_sizes(name: str, student: Shapes, teacher: Shapes) -> None:
    """Reject levels [C, H, W] of different sizes, for a method that compares single positions."""
    for s, t in zip(student, teacher, strict=True):
        if list(s[1:]) != list(t[1:]):
            raise UserError(
                f"{name} compares maps position by position, but those of student and teacher are "
                f"{s[1]}x{s[2]} and {t[1]}x{t[2]}; tap levels of equal size (another of @stages), "
                "or use a method that adapts it, such as ReviewKD"
            )
