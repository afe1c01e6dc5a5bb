"""A network that embeds images of people, as it is written to a file."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core.errors import UserError
from kd_core.experiment.deploy.exporting import Exportable
from kd_core.runtime.failures import explain, first_line
from kd_core.runtime.versions import versions
from torch import Tensor, nn

from kd_reid.embedder import Embedder
from kd_reid.heads import batch_of

PACKAGE = "kd-reid"
OUTPUT = "embedding"


class ExportedEmbedder(nn.Module):
    """From images to embeddings, as the search takes them; the classifier is not used.

    Args:
        embedder: In evaluation mode; shared, not copied.
        with_normalization: Take floats in [0, 1]; otherwise images that are normalised already.
        normalized_embeddings: Scale embeddings to length 1.
        flip: Give the mean embedding of every image and its mirror image.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        with_normalization: bool = False,
        normalized_embeddings: bool = False,
        flip: bool = False,
    ) -> None:
        super().__init__()
        self.embedder = embedder
        self.with_normalization = with_normalization
        self.normalized_embeddings = normalized_embeddings
        self.flip = flip

    def forward(self, image: Tensor) -> Tensor:
        """Return embeddings [N, D] of images [N, 3, H, W], or [N, 1, H, W] of a grey network."""
        if self.with_normalization:
            image = (image - self.embedder.mean) / self.embedder.std
        found = self.embedder.search(image).embedding.float()
        if self.flip:
            found = (found + self.embedder.search(image.flip(-1)).embedding.float()) / 2
        return F.normalize(found) if self.normalized_embeddings else found


def exportable(network: ExportedEmbedder, image_size: tuple[int, int]) -> Exportable:
    """Return what is written of a network.

    Args:
        network: In evaluation mode.
        image_size: Height and width.

    Raises:
        UserError: If it fails with images of this size, or gives no embedding [N, D].
    """
    embedder = network.embedder
    mean, std = embedder.mean.flatten().tolist(), embedder.std.flatten().tolist()
    title = type(embedder.network).__name__
    facts = {
        "network": title,
        "image_size": list(image_size),
        "resize": "to {} x {} pixels (height x width), bilinear, antialiased; no crop".format(
            *image_size
        ),
        "channels": "RGB" if len(mean) == 3 else "grey",
        "mean": mean,
        "std": std,
        "with_normalization": network.with_normalization,
        "embedding_size": _width(network, title, len(mean), image_size),
        "normalized_embeddings": network.normalized_embeddings,
        "flip": network.flip,
    }
    return Exportable(network, (len(mean), *image_size), [OUTPUT], facts, title, PACKAGE)


@torch.no_grad()
def _width(
    network: ExportedEmbedder, title: str, channels: int, image_size: tuple[int, int]
) -> int:
    images = batch_of(2, channels, image_size)
    try:
        return network(images).shape[1]
    except Exception as error:  # networks of users raise many types
        if explain(error) is not None:
            raise
        raise UserError(
            f"{title} failed in a first pass, fed {list(images.shape)}: {first_line(error)}; if it "
            "wants images of another size, add --size HEIGHT WIDTH"
        ) from error


def description_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the JSON beside a file says, from the facts in it."""
    height, width = facts["image_size"]
    inside = facts["with_normalization"]
    return {
        **facts,
        "input": {
            "name": "image",
            "type": "float32",
            "layout": f"[N, {len(facts['mean'])}, {height}, {width}]",
            "range": "0 to 1" if inside else "(pixels / 255 - mean) / std",
            "normalization": "inside the file" if inside else "before it",
        },
        "outputs": {
            OUTPUT: f"[N, {facts['embedding_size']}] float32"
            + (", each of length 1" if facts["normalized_embeddings"] else "")
        },
        "made_with": versions(),
    }
