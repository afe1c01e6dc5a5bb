"""Networks of torchreid by name, as this package uses them: logits and embedding at once."""

import ast
import io
from contextlib import redirect_stdout
from typing import Any

from kd_core.errors import UserError, nearest
from torch import nn

from kd_reid import torchreid


def build_model(
    name: str,
    num_classes: int,
    *,
    pretrained: bool = False,
    last_stride: int | None = None,
    **options: Any,
) -> nn.Module:
    """Build a network of torchreid, such as `osnet_x0_25` or `resnet50`.

    While training, it returns logits [N, identities] and an embedding [N, D].

    Args:
        name: One of `model_names()`.
        num_classes: Identities of the training set.
        pretrained: Whether torchreid is to download weights trained on ImageNet, where it knows a
            place that has them; see `backbone_weights` of a config's node for a file of yours.
        last_stride: Of the last stage of a ResNet; 1 keeps maps larger, as the strong baseline does
            (torchreid's `resnet50` has 2).
        options: Further arguments of the network's own function, such as `dropout_p`.

    Raises:
        UserError: If torchreid has no network of this name, it knows no such option, or its weights
            cannot be had.
    """
    names = model_names()
    if name not in names:
        raise UserError(f"torchreid has no network {name!r}{nearest(name, names)}")
    arguments = {"loss": "triplet", "use_gpu": False, **options}
    try:
        network = torchreid.models.build_model(
            name, num_classes, pretrained=pretrained, **arguments
        )
    except Exception as error:
        if isinstance(error, TypeError) or not pretrained:
            raise UserError(f"torchreid's {name} cannot be built: {error}") from error
        raise UserError(  # whatever a download may raise
            f"torchreid could not download weights of {name} ({type(error).__name__}: {error}); "
            "set network.pretrained=False, and backbone_weights to a file if you have one"
        ) from error
    if last_stride is not None:
        _set_last_stride(network, last_stride)
    return network


def model_names() -> list[str]:
    """Return the names of torchreid's networks."""
    with redirect_stdout(io.StringIO()) as printed:  # it gives them in no other way
        torchreid.models.show_avai_models()
    return list(ast.literal_eval(printed.getvalue()))


def _set_last_stride(network: nn.Module, stride: int) -> None:
    first = getattr(network, "layer4", [None])[0]
    layers = [] if first is None else [m for m in first.modules() if isinstance(m, nn.Conv2d)]
    strided = [layer for layer in layers if layer.kernel_size == (3, 3)]
    shortcut = getattr(first, "downsample", None)
    if not strided or shortcut is None:
        raise UserError(f"last_stride is for ResNets; {type(network).__name__} is none")
    for layer in (strided[0], shortcut[0]):
        layer.stride = (stride, stride)
