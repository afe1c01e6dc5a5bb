"""Classifiers of networks, for criteria that read their weights."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from kd_core.criteria.criterion import Borrowed, Shapes
from kd_core.errors import UserError, located
from kd_core.functional import full_precision


def find_head(
    network: nn.Module, channels: int, num_classes: int, name: str | None = None
) -> nn.Linear:
    """Return the classifier of a network: the last linear layer from a map's channels to classes.

    This assumes that the network averages the map before that layer and does nothing else to it;
    the modules alone cannot confirm it.

    Args:
        network: The network.
        channels: Those of the map that is pooled.
        num_classes: Outputs of the classifier.
        name: Path of the layer, where another than the last is wanted.

    Raises:
        UserError: If the network has no such layer.
    """
    layers = {path: m for path, m in network.named_modules() if isinstance(m, nn.Linear)}
    for path, layer in reversed(layers.items()):
        fits = (layer.in_features, layer.out_features) == (channels, num_classes)
        if fits and name in (None, path):
            return layer
    listed = [f"{path} ({m.in_features} to {m.out_features})" for path, m in layers.items()]
    raise UserError(
        f"{type(network).__name__} has no linear layer{f' {name!r}' if name else ''} from the "
        f"map's {channels} channels to {num_classes} classes, only: {', '.join(listed) or 'none'}; "
        "tap the map that is average-pooled before the classifier, or use a criterion that needs "
        "no classifier (a convolution as classifier is not supported)"
    )


def borrow_heads(
    shapes: tuple[Shapes, Shapes],
    num_classes: int,
    names: tuple[str | None, str | None],
    student: nn.Module,
    teacher: nn.Module,
) -> tuple[Borrowed[nn.Linear], Borrowed[nn.Linear]]:
    """Return the classifiers behind one map of each network; see `find_head`."""
    with located("student"):
        own = find_head(student, shapes[0][0][0], num_classes, names[0])
    with located("teacher"):
        shown = find_head(teacher, shapes[1][0][0], num_classes, names[1])
    return Borrowed(own), Borrowed(shown)


def parameters_of(head: Borrowed[nn.Linear], maps: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return weight [classes, channels] and bias [classes] in the precision of the maps.

    The network's precision may be another one: criteria compute in float32 at least.
    """
    weight, bias = head.module.weight, head.module.bias
    return weight.to(maps.dtype), None if bias is None else bias.to(maps.dtype)


def require_one_map(name: str, shapes: Shapes) -> None:
    """Reject several maps, for a method that needs only the one before the classifier."""
    if len(shapes) != 1:
        raise UserError(
            f"{name} takes one map of each network, the one that is pooled before the classifier, "
            f"but gets {len(shapes)}; tap that one alone (@map)"
        )


@full_precision
def region_logits(
    maps: Tensor, weight: Tensor, bias: Tensor | None, *, scales: Sequence[int] = (1, 2, 4)
) -> Tensor:
    """Return the logits [N, C, R] that a classifier gives to the regions of an image.

    The map is average-pooled to 4x4 cells (a smaller one is repeated), and these to scale x scale
    regions for every scale, row by row. If height and width of the map are multiples of 4, or 1 or
    2, the region of scale 1 has the logits of the network; for other sizes (7x7) nearly those.

    Args:
        maps: What is pooled before the classifier, [N, D, H, W].
        weight: Of the classifier, [C, D].
        bias: Of the classifier, [C], or None.
        scales: Regions in a row.
    """
    cells = F.adaptive_avg_pool2d(maps, 4)
    regions = [F.adaptive_avg_pool2d(cells, scale).flatten(2) for scale in scales]
    return F.linear(torch.cat(regions, 2).mT, weight, bias).mT
