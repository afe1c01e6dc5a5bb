"""Roles of a network's taps (`@stages`, `@pooled`): of the zoo, and of known families elsewhere."""

from collections.abc import Sequence

from kd_core.criteria.kept_heads import EmbeddingNetwork
from torch import nn

from kd_cls.families.of_timm import is_of_timm, timm_roles
from kd_cls.families.of_torchvision import is_of_torchvision, torchvision_roles
from kd_cls.families.of_zoo import of_mobilenet, of_resnet, of_zoo
from kd_cls.families.recording import record
from kd_cls.families.search import Roles, pooled_of_logits
from kd_cls.models.paths import Taps
from kd_cls.models.with_head import WithHead

_EXITS = 4  # of OFA-KD: as many as most networks have stages


def network_roles(network: nn.Module, sizes: Sequence[tuple[int, int]] = ()) -> Roles:
    """Return the tap paths of a network by role, shallow to deep; unknown roles are left out.

    `stem`, `stages` (the end of each, without the stem), `preact` (the same before the last
    activation; the stages themselves where they are linear), `blocks` (every residual block, after
    its activation: of a WideResNet, whose blocks end in a raw sum, after the next one),
    `preact_blocks` (these before their last activation), `map` (what is pooled), `avgpool`
    ([N, D, 1, 1]) and `pooled` (what the classifier gets). All of them for torchvision's and timm's
    ResNets, all but `preact_blocks` for the zoo. Others of timm and torchvision have `stages`,
    `map`, `pooled`, transformers `tokens` ([N, L, D] of the image alone), `cls` (the class token)
    and, if they have one resolution, `blocks` (all of them); see `timm_roles` and
    `torchvision_roles`. A student that kept its head has `embedding` too. Of another network only
    `pooled` is known. What has stages has `exits`: the last four of stem and stages, of a
    transformer of one resolution see `of_blocks`.

    Args:
        network: It is run on one image where roles must be looked for; nothing in it changes.
        sizes: Height and width of images that it might take.
    """
    roles = _roles(network, sizes)
    if "stages" in roles and "exits" not in roles:
        roles["exits"] = (*roles.get("stem", ()), *roles["stages"])[-_EXITS:]
    return roles


def _roles(network: nn.Module, sizes: Sequence[tuple[int, int]]) -> Roles:
    if own := getattr(network, "own_roles", None):  # such as those of `LabelWise`
        return dict(own)
    if isinstance(network, WithHead):
        inside = network_roles(network.backbone, sizes).items()
        behind = {role: tuple(f"backbone.{path}" for path in paths) for role, paths in inside}
        return behind | {"pooled": ("head:in",)}
    if isinstance(network, EmbeddingNetwork):
        inside = network_roles(network.network, sizes).items()
        behind = {role: tuple(f"network.{path}" for path in paths) for role, paths in inside}
        return behind | {"embedding": ("head",)}
    taps = getattr(network, "taps", None)
    if isinstance(taps, Taps):
        return of_zoo(network, taps)
    if all(hasattr(network, name) for name in ("layer1", "layer4", "fc")):
        return of_resnet(network)
    if is_of_timm(network):
        return timm_roles(network, sizes)
    if is_of_torchvision(network):
        roles = torchvision_roles(network, sizes)
        features = getattr(network, "features", None)
        if type(network).__name__ == "MobileNetV2" and isinstance(features, nn.Sequential):
            roles |= of_mobilenet(features)
        return roles
    return _of_any(network, sizes)


def _of_any(network: nn.Module, sizes: Sequence[tuple[int, int]]) -> Roles:
    seen = record(network, network, sizes)
    pooled = None if seen is None else pooled_of_logits(network, seen)
    return {} if pooled is None else {"pooled": (pooled,)}
