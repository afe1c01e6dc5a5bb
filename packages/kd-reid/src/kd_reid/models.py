"""Networks of torchreid by name, which return logits and embedding."""

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
) -> nn.Module:
    """Build a network of torchreid, such as `osnet_x0_25` or `resnet50`.

    While training, it returns logits [N, identities] and an embedding [N, D].

    Args:
        name: One of `model_names()`.
        num_classes: Identities of the training set.
        pretrained: Whether torchreid downloads weights trained on ImageNet, where it knows an
            address; for your own file see `backbone_weights` of a config's node.
        last_stride: Of the last stage of a ResNet; 1 keeps maps larger, as in the strong baseline
            (torchreid's `resnet50` has 2).

    Raises:
        UserError: If torchreid has no network of this name, or its download fails.
    """
    names = model_names()
    if name not in names:
        raise UserError(f"torchreid has no network {name!r}{nearest(name, names)}")
    try:
        network: nn.Module = torchreid.models.build_model(
            name, num_classes, loss="triplet", pretrained=pretrained, use_gpu=False
        )
    except Exception as error:
        if not pretrained:
            raise
        raise UserError(  # a download may raise anything
            f"torchreid could not download weights of {name} ({type(error).__name__}: {error}); "
            "set network.pretrained=False, and backbone_weights to a file if you have one"
        ) from error
    if last_stride is not None:
        _set_last_stride(network, last_stride)
    if hasattr(network, "use_gpu"):
        network.register_forward_pre_hook(_use_gpu_as_images_do)
    return network


def model_names() -> list[str]:
    """Return the names of torchreid's networks."""
    with redirect_stdout(io.StringIO()) as printed:  # torchreid can only print them
        torchreid.models.show_avai_models()
    return list(ast.literal_eval(printed.getvalue()))


def _use_gpu_as_images_do(network: nn.Module, given: tuple[Any, ...]) -> None:
    # HACNN takes at construction whether its new tensors belong on the GPU.
    network.use_gpu = given[0].is_cuda


def _set_last_stride(network: nn.Module, stride: int) -> None:
    first = getattr(network, "layer4", [None])[0]
    shortcut = getattr(first, "downsample", None)
    if first is None or shortcut is None:
        raise UserError(
            f"last_stride is for ResNets, not for {type(network).__name__}: leave it out, or set "
            "it to None"
        )
    # The layer with the stride differs: conv1 in SENet's block, conv2 in ResNet's
    before = shortcut[0].stride
    inside = [m for name, m in first.named_children() if name.startswith("conv")]
    strided = [conv for conv in inside if conv.stride == before]
    if len(strided) > 1:  # all are 1
        strided = [conv for conv in strided if conv.kernel_size == (3, 3)]
    for layer in (strided[0], shortcut[0]):
        layer.stride = (stride, stride)
