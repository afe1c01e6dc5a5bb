"""Rules for rare cases in training: small batches, equal samples, large values."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from kd_core.criteria.criterion import Criterion
from kd_core.testing.checks import is_finite, make_seeded, require, require_finite, value_of
from kd_core.testing.samples import Inputs, map_tensors, sample

Class = type[Criterion]

_ENLARGE: tuple[Callable[[Tensor], Tensor], ...] = (lambda x: 50 * x.sign(), lambda x: 1000 * x)


def empty_batch_is_finite(cls: Class, **overrides: Any) -> None:
    """An empty batch gives a finite loss with its graph, and leaves finite buffers."""
    inputs = sample(cls, size=0, **overrides)
    loss = value_of(make_seeded(cls, overrides), inputs)
    remedy = "take kd_core.functional.batch_mean: a plain .mean() is NaN there"
    require(is_finite(loss), f"a loss of {loss.item()} of an empty batch; {remedy}")
    _require_finite_step(cls, inputs, overrides)


def single_sample_is_finite(cls: Class, **overrides: Any) -> None:
    """One sample gives a finite loss with its graph, and leaves finite buffers."""
    _require_finite_step(cls, sample(cls, size=1, **overrides), overrides)


def one_class_is_finite(cls: Class, **overrides: Any) -> None:
    """A batch of one class, of different images or one repeated, gives a finite loss."""
    inputs = student, teacher, batch = sample(cls, **overrides)
    repeated = map_tensors(lambda tensor: _repeat_first(tensor, cls.views), inputs)
    one_label = {**batch, "label": repeated[2]["label"]}
    for given in ((student, teacher, one_label), repeated):
        _require_finite_step(cls, given, overrides)


def survives_extreme_logits(cls: Class, **overrides: Any) -> None:
    """Logits (vectors, maps) of +-50 and 1000 give a finite loss: equal, opposed, on one side."""
    student, teacher, batch = sample(cls, **overrides)
    alike = _as_student(student, teacher)
    for enlarge in _ENLARGE:
        own, shown, like = (map_tensors(enlarge, side) for side in (student, teacher, alike))
        opposed = map_tensors(Tensor.neg, like)
        for pair in ((own, teacher), (student, shown), (own, like), (own, opposed)):
            _require_finite_step(cls, (*pair, batch), overrides)


def _require_finite_step(cls: Class, inputs: Inputs, overrides: dict[str, Any]) -> None:
    criterion = make_seeded(cls, overrides)
    student = map_tensors(lambda tensor: tensor.detach().requires_grad_(), inputs[0])
    loss = criterion(student, *inputs[1:])
    require(loss.requires_grad, "a loss without its graph")
    require_finite(loss, (student, tuple(criterion.parameters())))
    for name, state in criterion.state_dict().items():
        require(is_finite(state), f"{name} is not finite any more")


def _as_student(student: Any, teacher: Any) -> Any:
    """Return the student's tensors in place of those teacher tensors that have the same shape."""
    if isinstance(teacher, Tensor):
        return student if student.shape == teacher.shape else teacher
    alike = tuple(map(_as_student, student, teacher))
    return alike + teacher[len(alike) :]


def _repeat_first(tensor: Tensor, views: int) -> Tensor:
    """Put the first sample in the place of all others, in every view."""
    if not tensor.dim():
        return tensor
    samples = tensor.unflatten(0, (views, -1))
    return samples[:, :1].expand_as(samples).flatten(0, 1)
