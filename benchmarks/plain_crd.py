"""CRD as the references compute it."""

from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.crd import CRD
from torch import Tensor


class PlainCRD:
    """Lists of the other classes' samples, a draw for every sample, a copy of every row.

    As the references do, none is drawn twice from a set of CIFAR's size, and a list a class is
    kept, in the host's memory. Unlike there and in ours, the memories do not move.

    Args:
        criterion: Whose embeddings, memories and numbers are used.
    """

    def __init__(self, criterion: CRD) -> None:
        self.criterion = criterion

    @cached_property
    def others(self) -> list[Tensor]:
        """For every class the samples of all others."""
        labels = self.criterion.labels.cpu()
        order, ends = labels.argsort().int(), labels.bincount().cumsum(0).tolist()
        return [torch.cat([order[:start], order[end:]]) for start, end in pairwise([0, *ends])]

    def __call__(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of vectors [N, D] of the samples `batch["index"]` [N]."""
        index = batch["index"]
        contrast = torch.stack([self.draw(sample) for sample in index.tolist()]).to(index.device)
        one = F.normalize(self.criterion.student_embedding(student))
        other = F.normalize(self.criterion.teacher_embedding(teacher))
        of_student, of_teacher = self.criterion.memories
        return self.loss(of_teacher, one, contrast) + self.loss(of_student, other, contrast)

    def draw(self, sample: int) -> Tensor:
        """Return a sample and its negatives, [1 + K]."""
        others = self.others[int(self.criterion.labels[sample])]
        count, large = self.criterion.num_negatives, len(self.criterion.labels) > 2**16
        places = torch.randint(len(others), (count,)) if large else torch.randperm(len(others))
        return torch.cat([torch.tensor([sample]), others[places[:count]]])

    def loss(self, memory: Tensor, vectors: Tensor, contrast: Tensor) -> Tensor:
        """Return the loss of one side."""
        rows = memory.index_select(0, contrast.flatten()).view(*contrast.shape, -1)
        power = (rows @ vectors.unsqueeze(2) / self.criterion.temperature).squeeze(2).exp()
        power = power / (power.mean() * len(memory)).detach()
        share = (contrast.shape[1] - 1) / len(memory)
        positive = (power[:, 0] / (power[:, 0] + share + 1e-7)).log()
        negative = (share / (power[:, 1:] + share + 1e-7)).log()
        return -(positive.sum() + negative.sum()) / len(vectors)
