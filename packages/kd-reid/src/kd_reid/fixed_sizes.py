"""Sizes of images that networks cannot do without."""

from typing import Any


def fixed_size(network: Any) -> tuple[int, int] | None:
    """Return the only size of images that a vision transformer takes; None if it takes others."""
    embedding = getattr(network, "patch_embed", None)
    size = getattr(embedding, "img_size", None)  # timm
    if getattr(network, "dynamic_img_size", False):
        return None
    if size is None and hasattr(network, "embeddings"):
        size = getattr(getattr(network, "config", None), "image_size", None)  # Hugging Face
    if size is None and hasattr(network, "class_token"):
        size = getattr(network, "image_size", None)  # torchvision
    if isinstance(size, int):
        return size, size
    return tuple(size) if isinstance(size, tuple | list) and len(size) == 2 else None
