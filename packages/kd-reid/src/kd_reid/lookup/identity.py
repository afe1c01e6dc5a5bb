"""What made embeddings: a network without its classifier, and how it gets its images."""

import re
from dataclasses import dataclass
from typing import Any

from kd_core.errors import UserError
from kd_core.files.fingerprint import fingerprint
from torch import nn

from kd_reid.embedder import Embedder
from kd_reid.heads import is_of_torchreid
from kd_reid.measuring.models import Measured
from kd_reid.neck import CLASSIFIER


@dataclass(frozen=True)
class Maker:
    """What made embeddings. Those of equal makers can be compared.

    Args:
        network: Fingerprint of the network without its classifier; see `network_fingerprint`.
        image_size: Height and width that images are resized to.
        mean: Of each channel.
        std: Of each channel.
        flip: Whether they are means of every image and its mirror image.
        normalised: Whether they have length 1.
    """

    network: str
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    normalised: bool

    def require(self, other: "Maker", where: str) -> None:
        """Reject embeddings of another maker.

        Args:
            other: What made them.
            where: Their file.

        Raises:
            UserError: If they cannot be compared with those of this one.
        """
        if other.network != self.network:
            raise UserError(
                f"{where}: was made by another network ({other.network}) than MODEL "
                f"({self.network}); name the model that made it, or embed its folder again"
            )
        for name in ("image_size", "mean", "std"):
            made, here = (getattr(maker, name) for maker in (other, self))
            if not _close(made, here):
                option = {"image_size": "size"}.get(name, name)
                raise UserError(
                    f"{where}: was made with --{option} {_words(made)}, and here it is "
                    f"{_words(here)}; add --{option} {_words(made)}, or embed its folder again"
                )


def maker(measured: Measured, *, flip: bool, normalised: bool) -> Maker:
    """Return what a network makes embeddings by, before it is moved to a device."""
    embedder = measured.embedder
    mean, std = (tuple(map(float, part.flatten())) for part in (embedder.mean, embedder.std))
    made_by = network_fingerprint(embedder)
    return Maker(made_by, measured.image_size, mean, std, flip, normalised)


def network_fingerprint(embedder: Embedder) -> str:
    """Return a hash of a network's layers and weights, without a classifier of people.

    A run, its weights with a prefix, and a file without a classifier are one network. What is
    left out is what `measuring.foreign` leaves out: a neck counts.
    """
    network = embedder.network
    counts = _counts if is_of_torchreid(network) else _is_used
    layers = [
        part
        for name, module in network.named_modules()
        if counts(name) and not any(True for _ in module.children())
        for part in (name, _settings(module))
    ]
    state = [
        part
        for name, tensor in network.state_dict().items()
        if counts(name)
        for part in (name, tensor)
    ]
    return fingerprint(type(network).__qualname__, *layers, *state)


def _counts(name: str) -> bool:
    """Return whether a layer or tensor of a network of torchreid makes the embedding."""
    return _is_used(name) and (
        not name.startswith(CLASSIFIER) or name.startswith(f"{CLASSIFIER}.bn")
    )


def _is_used(name: str) -> bool:
    """Return whether a layer or tensor matters in evaluation."""
    return not name.endswith("num_batches_tracked")


def _settings(module: nn.Module) -> str:
    return re.sub(r" at 0x\w+", "", repr(module))  # addresses differ from run to run


def _close(made: tuple[Any, ...], here: tuple[Any, ...]) -> bool:
    return len(made) == len(here) and all(
        abs(a - b) < 1e-6 for a, b in zip(made, here, strict=True)
    )


def _words(values: tuple[Any, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
