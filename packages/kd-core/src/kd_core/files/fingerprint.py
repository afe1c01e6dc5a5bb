"""Hashes of what results depend on, such as files, tensors and models."""

import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor, nn


def fingerprint(*parts: str | Tensor) -> str:
    """Return the first 16 digits of `hash_of`, enough for a name."""
    return hash_of(*parts)[:16]


def hash_of(*parts: str | Tensor) -> str:
    """Return a hash of texts, and of tensors' types, shapes and values; 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype}{list(part.shape)}".encode())
            digest.update(part.detach().cpu().flatten().view(torch.uint8).numpy().data)
        else:
            digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def hash_of_file(file: Path) -> str:
    """Return a hash of a file's bytes; 64 hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def model_fingerprint(model: nn.Module) -> str:
    """Return a hash of a model: its modules, their settings and all tensors.

    Of the code of its modules only their names count.
    """
    settings = re.sub(r" at 0x\w+", "", repr(model))  # addresses differ from run to run
    state = [*model.named_parameters(), *model.named_buffers()]
    tensors = [part for name, tensor in state for part in (name, tensor)]
    size = repr(getattr(model, "size", None))  # of the images; see `ImageTask`
    return fingerprint(type(model).__qualname__, settings, size, *tensors)
