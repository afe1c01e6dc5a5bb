"""Bring a student's maps and tokens to the teacher's channels, and to its grid of positions."""

from collections.abc import Sequence
from math import isqrt

import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

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


def resize_maps(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps [N, C, H, W] at another height and width: bilinear, both up and down.

    Half-pixel centres, no antialiasing, as in LightlyTrain. A linear projection of the channels
    and this may change places: resize whichever side has fewer channels.
    """
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def resize_tokens(tokens: Tensor, count: int) -> Tensor:
    """Return patch tokens [N, L, D] of a square grid as `count` tokens of one; see `resize_maps`.

    Raises:
        UserError: If the numbers differ, and one of them is not that of a square.
    """
    length = tokens.shape[1]
    if length == count:
        return tokens
    sides = isqrt(length), isqrt(count)
    if (sides[0] ** 2, sides[1] ** 2) != (length, count):
        raise UserError(
            f"{length} tokens of the student cannot be laid on the teacher's {count}: only square "
            "grids are resized; leave out class and register tokens (@tokens), or tap maps, whose "
            "height and width are known"
        )
    maps = tokens.transpose(1, 2).unflatten(2, (sides[0], sides[0]))
    return resize_maps(maps, (sides[1], sides[1])).flatten(2).transpose(1, 2)


def linear(inputs: int, outputs: int, *, zero_bias: bool = False) -> nn.Linear:
    """Return a linear layer whose weights are drawn as in LightlyTrain: truncated normal, 0.02."""
    layer = nn.Linear(inputs, outputs)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if zero_bias:
        nn.init.zeros_(layer.bias)
    return layer


def project_maps(layer: nn.Linear, maps: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps [N, C, H, W] through a linear layer at each position of a grid: [N, h, w, D].

    Whichever is narrower is resized, the maps or what the layer makes of them: the result is the
    same, since the weights of a bilinear resizing add up to 1.

    Args:
        layer: From C to D.
        maps: The student's.
        size: Height and width of the grid; see `resize_maps`.
    """
    if layer.in_features <= layer.out_features:
        projected: Tensor = layer(resize_maps(maps, size).movedim(1, -1))
        return projected
    return resize_maps(layer(maps.movedim(1, -1)).movedim(-1, 1), size).movedim(1, -1)
