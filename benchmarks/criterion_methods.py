"""What `criterion_cases.py` says of a criterion: its plain way, and the sizes it is measured at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kd_core import criteria
from kd_core.criteria.criterion import Criterion
from kd_core.testing import discover


@dataclass(frozen=True)
class Size:
    """How many images, and what `make` and `sample` of `kd_core.testing` take besides."""

    batch: int = 4
    shapes: Mapping[str, Any] = field(default_factory=dict)
    plain_bytes: int = 0
    """What the plain way needs at least, where that may be too much."""


@dataclass(frozen=True)
class Method:
    """A criterion, its plain way, and the sizes to measure both at."""

    criterion: str
    plain: Callable[..., Any]
    real: tuple[Size, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    small: Size = Size()
    before_activation: bool = False

    @property
    def type(self) -> type[Criterion]:
        """The class of the criterion."""
        return {cls.__name__: cls for cls in discover(criteria.__name__)}[self.criterion]


def both(batch: int, *shapes: tuple[int, ...], **more: Any) -> Size:
    """Return a size of equal shapes on both sides, as those of resnet32x4 and resnet8x4 are."""
    return Size(batch, {"student_shapes": shapes, "teacher_shapes": shapes, **more})
