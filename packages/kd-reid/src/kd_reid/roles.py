"""Roles of a network's taps (`@stages`, `@embedding`): of torchreid's networks."""

from collections.abc import Sequence

from torch import nn

from kd_reid.heads import named_heads

_STAGES = {
    "OSNet": ("conv2", "conv3", "conv4", "conv5"),
    "ResNet": ("layer1", "layer2", "layer3", "layer4"),
    "DenseNet": tuple(f"features.denseblock{number}" for number in (1, 2, 3, 4)),
}
"""Ends of the stages of torchreid's networks, by the name of their class."""

_MAP = {"DenseNet": "global_avgpool:in"}  # after its last BatchNorm and ReLU
"""The map that is pooled, where it is not the output of the last stage."""


def network_roles(
    network: nn.Module, heads: Sequence[str] | None = None
) -> dict[str, tuple[str, ...]]:
    """Return the tap paths of a network by role.

    `logits` and `embedding` are those of the first head; metric losses take this embedding, and
    `pooled` is another name of it. `stages` and `map` are known for OSNet, ResNet, DenseNet.

    Args:
        network: The network.
        heads: Paths of its classifiers; None takes those of torchreid's name.
    """
    heads = named_heads(network) if heads is None else heads
    roles: dict[str, tuple[str, ...]] = {}
    if heads:
        roles = {"logits": (heads[0],), "embedding": (f"{heads[0]}:in",)}
        roles["pooled"] = roles["embedding"]
    stages = _STAGES.get(type(network).__name__, ())
    if not stages:
        return roles
    pooled_map = _MAP.get(type(network).__name__, stages[-1])
    return {**roles, "stages": stages, "map": (pooled_map,)}
