"""What a transformer says of its tokens: how many are not of the image, and which patches are."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

Size = tuple[int, int]
"""Height and width."""


class Tokens(NamedTuple):
    """Facts on the tokens [N, prefix + h * w, D] of a network.

    Attributes:
        prefix: Class, distillation and register tokens together, before those of the image.
        class_token: Whether the first of them is a class token.
        patches: Path of the convolution that cuts the image into patches; its output is
            [N, D, h, w], so the grid is measured in every pass.
    """

    prefix: int
    class_token: bool
    patches: str


def known_tokens(network: nn.Module, path: str) -> Tokens | None:
    """Return the facts of the transformer around a module, or None if none is known.

    Known are timm's, torchvision's and Hugging Face's plain vision transformers, by the attributes
    that they share; a transformer may be a part of the network.

    Args:
        network: The whole network.
        path: Of a module in it.
    """
    for owner in _around(path):
        module = network.get_submodule(owner)
        for read in (_of_timm, _of_torchvision, _of_hugging_face):
            facts = read(module)
            if facts is not None and _is_convolution(module, facts.patches):
                prefix = f"{owner}." if owner else ""
                return facts._replace(patches=prefix + facts.patches)
    return None


def _around(path: str) -> Iterator[str]:
    """Yield the paths of the modules around one, from the nearest on; the network is ""."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""


def _is_convolution(module: nn.Module, path: str) -> bool:
    try:
        return isinstance(module.get_submodule(path), nn.Conv2d)
    except AttributeError:
        return False


def _of_timm(module: Any) -> Tokens | None:
    """Read a network of timm; not those whose tokens change in number or order on the way."""
    prefix = getattr(module, "num_prefix_tokens", None)
    strides = {info.get("reduction") for info in _infos(module)}
    if not isinstance(prefix, int) or len(strides) != 1 or hasattr(module, "reroll"):
        return None
    return Tokens(prefix, getattr(module, "cls_token", None) is not None, "patch_embed.proj")


def _infos(module: Any) -> list[dict[str, Any]]:
    """Return timm's `feature_info` as a list of dicts: of every stage module, channels, stride."""
    infos = getattr(module, "feature_info", None) or []
    infos = getattr(infos, "info", infos)
    return [info for info in infos if isinstance(info, dict)] if isinstance(infos, list) else []


def _of_torchvision(module: Any) -> Tokens | None:
    if not isinstance(getattr(module, "class_token", None), nn.Parameter):
        return None
    return Tokens(1, True, "conv_proj")


def _of_hugging_face(module: Any) -> Tokens | None:
    """Read a model of transformers: ViT, DeiT, DINOv2 and those that are made like them."""
    embeddings = getattr(module, "embeddings", None)
    if not isinstance(embeddings, nn.Module) or not hasattr(module, "config"):
        return None
    names = ("cls_token", "distillation_token", "register_tokens")
    counts = [_length(getattr(embeddings, name, None)) for name in names]
    return Tokens(sum(counts), bool(counts[0]), "embeddings.patch_embeddings.projection")


def _length(parameter: Any) -> int:
    """Return the number of tokens of a parameter [1, tokens, D]; 0 without it."""
    return int(parameter.shape[1]) if isinstance(parameter, nn.Parameter) else 0
