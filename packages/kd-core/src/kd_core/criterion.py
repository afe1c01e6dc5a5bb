"""Criterion: what a distillation method is to the rest of the house."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from kd_core.errors import UserError
from kd_core.functional import full_precision

Shapes = Sequence[Sequence[int]]
"""One shape per tap, without the batch dimension: `((64, 8, 8),)`."""

KINDS: dict[str, tuple[str, int]] = {
    "logits": ("[N, C]", 1),
    "vectors": ("[N, D]", 1),
    "tokens": ("[N, L, D]", 2),
    "maps": ("[N, C, H, W]", 3),
}
"""What a criterion can take: how it is written and its rank without the batch dimension."""


class Criterion(nn.Module):
    """Compares what a student and a teacher computed; tensors in, a scalar out.

    A subclass states what it `takes` and writes `forward(student, teacher, batch)`: the first two
    as `takes` says, `batch` a dict with `image`, `label`, `index` and whatever else the task gives.
    The result is the mean over the batch before any outer weight, and 0 for an empty batch. No
    gradient may flow into the teacher. Adapters are ordinary submodules, memories are buffers.

    Calling it switches autocast off and promotes every floating tensor to at least float32, so
    that adapters too run in full precision.

    Constructor arguments named `student_shapes`, `teacher_shapes` (see `Shapes`), `num_classes`,
    `num_samples` and `labels` are filled in by the builder; all others need a default.
    """

    takes: ClassVar[str]
    """`logits`, `vectors`, `tokens` (one tensor each) or `maps` (a tuple, shallow to deep)."""

    exempt: ClassVar[Mapping[str, str]] = {}
    """Rules of `kd_core.testing.contract` that cannot hold here, each with the reason."""

    @full_precision
    def __call__(self, student: Any, teacher: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss, computed in full precision whatever is given."""
        return super().__call__(student, teacher, batch)

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Refuse, before training, shapes that this criterion cannot compare.

        Called once at construction of a distiller; criteria that need more extend it.

        Raises:
            UserError: If a tensor is not what `takes` says, the numbers of taps differ, or logits
                have different numbers of classes.
        """
        for side, shapes in (("student", student), ("teacher", teacher)):
            self._check_kind(side, shapes)
        name = type(self).__name__
        if len(student) != len(teacher):
            raise UserError(
                f"{name}: {len(student)} taps of the student, {len(teacher)} of the teacher; "
                "tap as many levels of the one as of the other"
            )
        if self.takes == "logits" and student[0][-1] != teacher[0][-1]:
            raise UserError(
                f"{name}: student has {student[0][-1]} classes, teacher {teacher[0][-1]}: logit "
                "terms need the same classes; use such a teacher, or a criterion on features"
            )

    def bind(self, student: nn.Module, teacher: nn.Module) -> None:
        """Read what is needed of the networks' weights; called once, before training.

        A network that is kept must be hidden from `nn.Module`, or it would be trained and saved.
        """

    def deploy(self, student: nn.Module) -> nn.Module:
        """Return the network to evaluate and export: the student, unless the method changes it."""
        return student

    def _check_kind(self, side: str, shapes: Shapes) -> None:
        form, rank = KINDS[self.takes]
        name = type(self).__name__
        if not shapes or (len(shapes) > 1 and self.takes != "maps"):
            raise UserError(
                f"{name} takes one tensor {form} of each network, but the {side} has "
                f"{len(shapes)} taps; name one"
            )
        for shape in shapes:
            if not _is_shape(shape) or len(shape) != rank:
                raise UserError(
                    f"{name} takes {self.takes} {form}, but a tap of the {side} gives "
                    f"{_described(shape)}; tap another module, or use another criterion"
                )


def _is_shape(value: Any) -> bool:
    return isinstance(value, Sequence) and all(isinstance(size, int) for size in value)


def _described(value: Any) -> str:
    if _is_shape(value):
        return f"[{', '.join(['N', *map(str, value)])}]"
    return "several tensors" if isinstance(value, Sequence) else "no tensor"
