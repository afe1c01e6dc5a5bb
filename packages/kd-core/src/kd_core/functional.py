"""Primitives that two or more methods share: precision, reductions, divergences."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812 (the name all of torch's users know)
from torch import Tensor
from torch.utils._pytree import tree_map

from kd_core.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")
Maps = Tensor | Sequence[Tensor]


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function compute in float32 or float64 for every input, under autocast too.

    Tensors of fewer bits are promoted to float32 (see `promote`), so gradients flow back in the
    callers' own precision.
    """

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with _no_autocast((args, kwargs)):
            return function(*promote(args), **promote(kwargs))

    return wrapper


def promote(value: Any) -> Any:
    """Cast floating tensors below float32 to float32, inside tuples, lists and dicts too."""
    if isinstance(value, Tensor):
        small = value.is_floating_point() and value.dtype.itemsize < 4
        return value.float() if small else value
    if isinstance(value, dict):
        return {key: promote(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(promote(item) for item in value)
    if isinstance(value, list):
        return [promote(item) for item in value]
    return value


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield every tensor inside tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | tuple | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from tensors(item)


def with_own_containers(value: Any) -> Any:
    """Return the same tensors in lists and dicts that nobody else changes."""
    return value if isinstance(value, Tensor) else tree_map(lambda x: x, value, is_leaf=_is_fixed)


def _is_fixed(value: Any) -> bool:
    """Return whether a value is a tuple, of any kind, without lists and dicts inside."""
    return isinstance(value, tuple) and all(
        _is_fixed(x) if isinstance(x, tuple) else not isinstance(x, list | dict) for x in value
    )


def levels(student: Maps, teacher: Maps) -> list[tuple[Tensor, Tensor]]:
    """Pair the maps of two networks level by level; a single tensor is one level.

    Raises:
        UserError: If the two have different numbers of levels.
    """
    pair = [(side,) if isinstance(side, Tensor) else tuple(side) for side in (student, teacher)]
    if len(pair[0]) != len(pair[1]):
        raise UserError(
            f"student has {len(pair[0])} maps, teacher {len(pair[1])}; "
            "tap as many levels of the one as of the other"
        )
    return list(zip(*pair, strict=True))


def pool_to_match(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool the larger of two maps [N, C, H, W] to the height and width of the smaller.

    The pooling is adaptive, so sides need not be multiples of one another.
    """
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))

    def pool(maps: Tensor) -> Tensor:
        return maps if maps.shape[2:] == size else F.adaptive_avg_pool2d(maps, size)

    return pool(student), pool(teacher)


def spatial_attention(maps: Tensor, *, power: float = 2) -> Tensor:
    """Return where maps [N, C, H, W] are large: the mean power of their channels.

    Returns:
        Rows [N, H * W] of unit length.
    """
    # An even power needs no absolute value, which the backward would keep.
    powers = maps.square() if power == 2 else maps.abs().pow(power)
    return F.normalize(powers.mean(1).flatten(1))


def batch_mean(values: Tensor) -> Tensor:
    """Sum over everything but average over the batch: values [N, ...]; 0, with graph, at N = 0."""
    return values.sum() / max(len(values), 1)


def centred(x: Tensor) -> Tensor:
    """Return x, [N, D], without its mean; what is left of constant columns is rounding, so 0."""
    found = x - x.mean(0)
    rounding = 8 * torch.finfo(x.dtype).eps * x.abs().amax(0)
    return torch.where(found.abs().amax(0) <= rounding, 0, found)  # NaN stays


def halving_sum(losses: Sequence[Tensor]) -> Tensor:
    """Sum the losses of levels, shallow to deep; each counts half of the next deeper one."""
    halved = [loss / 2**height for height, loss in enumerate(reversed(losses))]
    return torch.stack(halved).sum()


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Average the squared error over all elements; 0, with graph, when there are none.

    Raises:
        UserError: If the shapes differ: nothing is broadcast.
    """
    require_same_shape(student, teacher)
    return F.mse_loss(student, teacher, reduction="sum") / max(student.numel(), 1)


def kl_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(teacher || student), summed over classes, mean over the batch; 0 at N = 0.

    Args:
        student: Log-probabilities, [N, C].
        teacher: Log-probabilities, [N, C].

    Raises:
        UserError: If the shapes differ: nothing is broadcast.
    """
    require_same_shape(student, teacher)
    total = F.kl_div(student, teacher, reduction="sum", log_target=True)
    return total / max(len(student), 1)


def soft_cross_entropy(student: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of softened probabilities, mean over the batch, times temperature².

    Args:
        student: Logits, [N, C].
        target: Logits of the probabilities to predict, [N, C]. Gradients flow into them too.
        temperature: Divides both.

    Raises:
        UserError: If the shapes differ: nothing is broadcast.
    """
    require_same_shape(student, target)
    label = (target / temperature).softmax(1)
    losses = label * (student / temperature).log_softmax(1)
    return -(temperature**2) * batch_mean(losses)


def kl_rows(student: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(teacher || student) of every row, [N], of log-probabilities [N, C].

    Raises:
        UserError: If the shapes differ: nothing is broadcast.
    """
    require_same_shape(student, teacher)
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)


def require_same_shape(student: Tensor, teacher: Tensor) -> None:
    """Reject tensors of different shapes, which would be broadcast."""
    if student.shape != teacher.shape:
        raise UserError(
            f"student is {list(student.shape)}, teacher {list(teacher.shape)}; "
            "this comparison is element by element and needs the same shape"
        )


def kept_shares(teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return the shares of samples and of classes that MLKD's masks of the batch keep.

    A sample is kept if its largest probability is at most the median of all samples; a class if
    its probability, summed over the batch, is at most the median of all classes. That is one half,
    and more where values are equal or their number is odd; 0 for an empty batch.

    Args:
        teacher: Logits, [N, C].
    """
    probabilities = teacher.detach().softmax(1)
    return _share_to_median(probabilities.amax(1)), _share_to_median(probabilities.sum(0))


def require_same_channels(
    name: str, student: Sequence[Sequence[int]], teacher: Sequence[Sequence[int]]
) -> None:
    """Reject levels [C, H, W] of different channels, for a method that compares single channels."""
    channels = [[shape[0] for shape in side] for side in (student, teacher)]
    if channels[0] != channels[1]:
        raise UserError(
            f"{name} compares channels one by one, but the student's levels have {channels[0]}, "
            f"the teacher's {channels[1]}; take networks of one family and width (resnet56 and "
            "resnet20), tap levels of equal channels, or use a method that adapts them, such as AB"
        )


def z_score(logits: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Standardise each row of logits [N, C] over its classes, with the unbiased deviation.

    Section 4 of Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024,
    arXiv:2403.01427. The result has no scale, so a temperature is its only one.

    Raises:
        UserError: If there are fewer than three classes (see `require_three_classes`).
    """
    require_three_classes(logits.shape[1])
    deviation, mean = torch.std_mean(logits, dim=1, keepdim=True)
    return (logits - mean) / (eps + deviation)


def require_three_classes(num_classes: int) -> None:
    """Reject fewer than three classes: of two standardised logits only the order would be left."""
    if num_classes < 3:
        raise UserError(
            f"standardize=True needs at least 3 classes, there are {num_classes}: "
            "two standardised logits are always +-0.71; use standardize=False"
        )


def _share_to_median(values: Tensor) -> Tensor:
    """Return the share of values [K] that do not exceed their median; 0 at K = 0."""
    # Torch's is the lower of two middle values; as many reach up to it as up to their mean.
    return batch_mean((values <= values.median()).to(values.dtype))


def _no_autocast(values: Any) -> AbstractContextManager[object]:
    """Switch autocast off where it is on, for the device of the first tensor."""
    device = next((tensor.device.type for tensor in tensors(values)), "cpu")
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
