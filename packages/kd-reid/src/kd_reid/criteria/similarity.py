"""Similarity distillation: the similarity of each image to the other images of the batch."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the name all of torch's users know)
from kd_core.config.values import Positive
from kd_core.criteria.criterion import Criterion
from kd_core.functional import full_precision, kl_divergence
from torch import Tensor


@full_precision
def similarity(student: Tensor, teacher: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Match the distribution of each image's similarity over all others, by KL(teacher || student).

    Not from one paper: PKT (arXiv:1803.10837) with a softmax over the cosines divided by a
    temperature, where PKT takes the plain cosines, and without the cosine of an image with itself.
    It is the mean over images, without a factor temperature². For one or two images the loss is 0,
    because no image has several others.

    Args:
        student: Embeddings, [N, D]; of any length, since only their directions count.
        teacher: Embeddings, [N, E]; E may differ from D. No gradient flows into it.
        temperature: Divides the cosines; the smaller, the more the nearest images count.

    Raises:
        UserError: If the numbers of images differ.
    """
    sides = (student, teacher.detach())
    shares = [(_cosines_of_others(side) / temperature).log_softmax(1) for side in sides]
    return kl_divergence(*shares)


def _cosines_of_others(vectors: Tensor) -> Tensor:
    """Return the cosines of every image with all but itself, [N, N - 1]; [0, 0] at N = 0."""
    unit = F.normalize(vectors, dim=1)
    image = torch.arange(len(vectors), device=vectors.device)
    others = image[:-1] + (image[:-1] >= image[:, None])
    return (unit @ unit.mT).gather(1, others)


class Similarity(Criterion):
    """See `similarity`.

    Args:
        temperature: Divides the cosines; the smaller, the more the nearest images count.
    """

    takes = "vectors"

    def __init__(self, *, temperature: Positive = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of embeddings [N, D]; `batch` is not used."""
        return similarity(student, teacher, temperature=self.temperature)
