"""What is said of a tap whose value a criterion cannot take."""

from collections.abc import Mapping, Sequence
from typing import Any

from kd_core.errors import UserError


def is_shape(value: Any) -> bool:
    """Return whether it is the shape of one tensor, not those of several."""
    return isinstance(value, Sequence) and all(isinstance(size, int) for size in value)


def tap_hint(kind: str, shape: Any) -> str:
    """Return how to tap what a criterion of this kind takes, where a tap gives such a shape."""
    other = "tap another module, or use another criterion"
    if not is_shape(shape):
        one = "name one of them, as PATH[0], or PATH[*][0] of all calls, or use another criterion"
        return one if isinstance(shape, Sequence) else other
    if kind == "maps" and len(shape) == 2:
        return f"if these are tokens, write PATH:tokens for their tap, else {other}"
    if kind == "tokens" and len(shape) == 3:
        return f"write PATH:nchw:tokens or PATH:nhwc:tokens for a map's tap, else {other}"
    if kind in ("vectors", "logits") and sum(size > 1 for size in shape) == 1:
        return f"write PATH:vector for its tap, else {other}"
    if kind == "vectors" and len(shape) == 2:
        return (
            "if these are tokens, PATH:cls is the class token and PATH:mean the mean of the "
            f"image's, else {other}"
        )
    if kind == "vectors" and len(shape) == 3:
        return f"PATH:nchw:mean or PATH:nhwc:mean is a map's mean, else {other}"
    return other


def require_tensors(name: str, kind: str, shapes: Mapping[str, Any]) -> None:
    """Reject taps that give several tensors, for a criterion that is made from the shape of one.

    Args:
        name: Of the criterion.
        kind: What it takes.
        shapes: By tap.

    Raises:
        UserError: If there is such a tap.
    """
    for tap, shape in shapes.items():
        if not is_shape(shape):
            raise UserError(
                f"{name} takes one tensor of each tap, but {tap!r} gives {described(shape)}; "
                f"{tap_hint(kind, shape)}"
            )


def described(value: Any) -> str:
    """Return the shape of a tap's value for an image, as a user writes it."""
    if is_shape(value):
        return f"[{', '.join(['N', *map(str, value)])}]"
    return "several tensors" if isinstance(value, Sequence) else "no tensor"
