"""Copy networks, whatever computes their weights."""

import copy
from typing import Any, TypeVar

from torch import Tensor, nn

Copied = TypeVar("Copied", bound=nn.Module)


def copied(module: Copied, memo: dict[int, Any] | None = None) -> Copied:
    """Return a deep copy of a module, also where layers are pruned or weight-normalised.

    Such a layer keeps the weight that it has computed last, with its graph, which cannot be copied.
    It computes it again in every pass, so here it loses the graph.

    Args:
        module: Any.
        memo: What the copy shares; see `copy.deepcopy`.
    """
    for layer in module.modules():
        for name, value in vars(layer).items():
            if isinstance(value, Tensor) and not value.is_leaf:
                vars(layer)[name] = value.detach()
    return copy.deepcopy(module, memo)
