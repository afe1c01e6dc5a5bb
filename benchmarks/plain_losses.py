"""What some criteria compute, the plain way: as the references do, or as one would at first."""

import math
from functools import cached_property
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.crd import CRD
from torch import Tensor


def nst(student: Tensor, teacher: Tensor) -> Tensor:
    """Multiply every channel of maps [N, C, H, W] with every other: C x C numbers a sample."""

    def kernel(one: Tensor, other: Tensor) -> Tensor:
        return (one @ other.mT).square().mean()

    student, teacher = (F.normalize(maps.flatten(2), dim=2) for maps in (student, teacher))
    return kernel(teacher, teacher) + kernel(student, student) - 2 * kernel(student, teacher)


def rkd(student: Tensor, teacher: Tensor) -> Tensor:
    """Multiply the difference vectors [N, N, D] of embeddings [N, D], as the reference does."""

    def distances(rows: Tensor) -> Tensor:
        lengths, eye = rows.square().sum(1), torch.eye(len(rows), device=rows.device)
        squared = lengths[:, None] + lengths - 2 * rows @ rows.T
        table = squared.clamp(min=1e-12).sqrt() * (1 - eye)
        return table / table[table > 0].mean()

    def angles(rows: Tensor) -> Tensor:
        unit = F.normalize(rows.unsqueeze(0) - rows.unsqueeze(1), dim=2)
        return unit @ unit.mT

    distance = F.smooth_l1_loss(distances(student), distances(teacher))
    return 25 * distance + 50 * F.smooth_l1_loss(angles(student), angles(teacher))


def kdsvd(student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
    """Decompose whole maps [N, C, H, W], as the reference does; signs are chosen as ours are."""

    def vectors(maps: Tensor, count: int) -> Tensor:
        rows = torch.linalg.svd(maps.flatten(1, 2), full_matrices=False)[2]
        return rows[:, :count].mT

    def aligned(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        candidates, wanted = vectors(student, 4), vectors(teacher, 1)
        wanted = wanted * wanted.gather(1, wanted.abs().argmax(1, keepdim=True)).sign()
        cosine = (candidates.mT @ wanted).detach()
        best = cosine.abs() == cosine.abs().amax(1, keepdim=True)
        return candidates @ (cosine.sign() * best), wanted

    def relation(before: Tensor, after: Tensor) -> Tensor:
        return (-(after.unsqueeze(2) - before.unsqueeze(1)).square() / 8).exp()

    levels = [aligned(s, t) for s, t in zip(student, teacher, strict=True)]
    total = torch.zeros((), device=student[0].device)
    for before, after in pairwise(levels):
        one, other = map(relation, before, after)
        total = total + (one - other).square().sum() / len(one)
    return total


def margin(weight: Tensor, bias: Tensor) -> Tensor:
    """Take one channel after the other, [C], as the reference does (with slower scipy)."""
    margins = []
    for scale, mean in zip(weight, bias, strict=True):
        deviation, ratio = abs(scale.item()), mean.item() / abs(scale.item())
        negative = math.erfc(ratio / math.sqrt(2)) / 2
        density = math.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)
        small = negative <= 0.001
        margins.append(-3 * deviation if small else mean.item() - deviation * density / negative)
    return torch.tensor(margins, device=weight.device)


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

    def __call__(self, student: Tensor, teacher: Tensor, index: Tensor) -> Tensor:
        """Return the loss of vectors [N, D] of samples [N]."""
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
