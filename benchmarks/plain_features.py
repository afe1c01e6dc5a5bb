"""Losses of features of large teachers as one would write them at first, from their formulas."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core.criteria.criterion import Criterion
from torch import Tensor

Batch = Mapping[str, Any]
Several = Sequence[Tensor]


def dense_mse(criterion: Criterion, student: Several, teacher: Several, batch: Batch) -> Tensor:
    """One level: project every position, resize, take the mean square."""
    return F.mse_loss(_projected(criterion.heads[0], student[0], teacher[0]), teacher[0])


def theia(criterion: Criterion, student: Several, teacher: Several, batch: Batch) -> Tensor:
    """Cosine of whole images, smooth L1 of elements."""
    own = _projected(criterion.projection, criterion.convolutions(student[0]), teacher[0])
    cosine = F.cosine_similarity(own.flatten(1), teacher[0].flatten(1)).mean()
    return 0.9 * (1 - cosine) + 0.1 * F.smooth_l1_loss(own, teacher[0])


class PlainQueueKL:
    """Keeps a queue of its own, as long as the criterion's."""

    def __init__(self, criterion: Criterion) -> None:
        self.criterion, self.queue = criterion, criterion.queue.clone()

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Put the batch in front, then compare."""
        own, shown = F.normalize(self.criterion.head(student)), F.normalize(teacher)
        self.queue = torch.cat([shown, self.queue])[: len(self.queue)]
        temperature = self.criterion.temperature
        target = (shown @ self.queue.T / temperature).softmax(1)
        found = (own @ self.queue.T / temperature).log_softmax(1)
        return F.kl_div(found, target, reduction="batchmean")


class PlainQueueTokenKL(PlainQueueKL):
    """Adds the positions of every image beside one another."""

    def __call__(self, student: Any, teacher: Any, batch: Batch) -> Tensor:
        """Return both losses."""
        loss = super().__call__(student[0], teacher[0], batch)
        own = _projected(self.criterion.local_head, student[1], teacher[1])
        sides = [F.normalize(maps).flatten(2).mT for maps in (own, teacher[1])]
        found, wanted = (side @ side.mT / self.criterion.local_temperature for side in sides)
        target, found = wanted.softmax(2).flatten(0, 1), found.log_softmax(2).flatten(0, 1)
        return loss + F.kl_div(found, target, reduction="batchmean")


def seed(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """The own teacher vector, then the ring as it is before this batch."""
    own, shown = F.normalize(criterion.head(student)), F.normalize(teacher)
    queue = criterion.queue.clone()
    sides = [
        torch.cat([(side * shown).sum(1)[:, None], side @ queue.T], 1) for side in (own, shown)
    ]
    target = (sides[1] / criterion.teacher_temperature).softmax(1)
    return F.cross_entropy(sides[0] / criterion.student_temperature, target)


def unic_vectors(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """One head."""
    return _unic(criterion.heads[0](student), teacher)


def unic_tokens(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """One head, every token."""
    return _unic(criterion.heads[0](student), teacher)


def unic(criterion: Criterion, student: Several, teacher: Several, batch: Batch) -> Tensor:
    """Both, each a half."""
    pairs = zip(criterion.heads, student, teacher, strict=True)
    return sum(_unic(head(own), shown) for head, own, shown in pairs) / 2


def vkd(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """The projector's weight as it is; the teacher's channels standardised."""
    return F.smooth_l1_loss(criterion.projector(student), F.layer_norm(teacher, teacher.shape[1:]))


def vitkd(criterion: Criterion, student: Several, teacher: Several, batch: Batch) -> Tensor:
    """Image by image, hidden token by hidden token."""
    own = [align(tokens) for align, tokens in zip(criterion.aligners, student, strict=True)]
    length = own[2].shape[1]
    kept, side = int(length * (1 - criterion.mask_ratio)), round(length**0.5)
    shown = criterion.mask_token.expand_as(own[2]).clone()
    order = batch["noise"].argsort(stable=True)
    for image, places in enumerate(order[:, :kept]):
        shown[image, places] = own[2][image, places]
    made = criterion.generator(shown.mT.unflatten(2, (side, side))).flatten(2).mT
    total = 0 * made.sum()
    for image, places in enumerate(order[:, kept:]):
        total = total + (made[image, places] - teacher[2][image, places]).square().sum()
    shallow = sum((own[level] - teacher[level]).square().sum() for level in range(2))
    parts = criterion.alpha * shallow + criterion.beta / criterion.mask_ratio * total
    return parts / len(made)


def ofa(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """With eps 1: the cross-entropy with the teacher's probabilities."""
    return F.cross_entropy(student, teacher.softmax(1))


def ofa_stage(criterion: Criterion, student: Several, teacher: Several, batch: Batch) -> Tensor:
    """The same behind the stage's head."""
    return ofa(criterion, criterion.head(student[0]), teacher[0], batch)


def _unic(student: Tensor, teacher: Tensor) -> Tensor:
    cosine = F.cosine_similarity(student, teacher, dim=-1).mean()
    return (1 - cosine + F.smooth_l1_loss(student, teacher)) / 2


def _projected(linear: Any, student: Tensor, teacher: Tensor) -> Tensor:
    own = linear(student.movedim(1, -1)).movedim(-1, 1)
    return F.interpolate(own, teacher.shape[2:], mode="bilinear")
