"""The model zoo as a table: networks by name, and their tap paths."""

import inspect
from collections.abc import Callable
from typing import Any, cast

import torch
from kd_core.errors import UserError, nearest
from torch import nn

from kd_cls.models import (
    mobilenetv1,
    mobilenetv2,
    mobilenetv2_tiny,
    resnet,
    resnet_a,
    resnet_cifar_stem,
    resnet_imagenet,
    shufflenetv1,
    shufflenetv2,
    vgg,
    wideresnet,
)
from kd_cls.models.paths import Taps

MODELS: dict[str, Callable[..., nn.Module]] = {
    **resnet.MODELS,
    **resnet_a.MODELS,
    **resnet_cifar_stem.MODELS,
    **wideresnet.MODELS,
    **vgg.MODELS,
    **mobilenetv2.MODELS,
    **shufflenetv1.MODELS,
    **shufflenetv2.MODELS,
    **mobilenetv2_tiny.MODELS,
    **mobilenetv1.MODELS,
    **resnet_imagenet.MODELS,
}


def build_model(name: str, num_classes: int = 100, **kwargs: Any) -> nn.Module:
    """Build a network of the zoo, freshly initialised.

    Args:
        name: A key of `MODELS`.
        num_classes: Number of logits; 1000 for published ImageNet weights.
        kwargs: Further arguments of the network's constructor, such as `dropout` of wrn.

    Raises:
        UserError: If the zoo has no such network, or the network no such argument.
    """
    factory = _factory(name)
    accepted = inspect.signature(factory).parameters
    for argument in kwargs:
        if argument not in accepted:
            hint = nearest(argument, accepted)
            raise UserError(f"network {name!r} has no argument {argument!r}{hint}")
    return factory(num_classes=num_classes, **kwargs)


def taps(name: str) -> Taps:
    """Return the tap paths of a network of the zoo; a built network has them as `network.taps`.

    Raises:
        UserError: If the zoo has no such network.
    """
    with torch.device("meta"):
        return cast(Taps, _factory(name)().taps)


def _factory(name: str) -> Callable[..., nn.Module]:
    if name not in MODELS:
        # resnet18 is nearer to resnet8 than to ResNet18 and resnet18_imagenet, which are meant.
        prefixed = [known for known in MODELS if known.lower().startswith(name.lower())]
        hint = nearest(name, prefixed or MODELS)
        raise UserError(f"the zoo has no network {name!r}{hint}")
    return MODELS[name]
