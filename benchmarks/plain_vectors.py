"""Criteria on vectors as one would write them at first, from their formulas."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.criterion import Criterion
from plain_logits import divergence
from torch import Tensor

Batch = Mapping[str, Any]
Pair = Sequence[Tensor]


def pkt(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """Cosines as probabilities, rows of which sum to one."""

    def shares(rows: Tensor) -> Tensor:
        unit = rows / (rows.norm(dim=1, keepdim=True) + criterion.eps)
        similarity = (unit @ unit.T + 1) / 2
        return similarity / similarity.sum(1, keepdim=True)

    own, shown = shares(student), shares(teacher)
    return (shown * ((shown + criterion.eps) / (own + criterion.eps)).log()).mean()


def rkd(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """Distances, and the products of difference vectors [N, N, D], as the reference does."""

    def distances(rows: Tensor) -> Tensor:
        lengths, eye = rows.square().sum(1), torch.eye(len(rows), device=rows.device)
        squared = lengths[:, None] + lengths - 2 * rows @ rows.T
        table = squared.clamp(min=1e-12).sqrt() * (1 - eye)
        return table / table[table > 0].mean()

    def angles(rows: Tensor) -> Tensor:
        unit = F.normalize(rows.unsqueeze(0) - rows.unsqueeze(1), dim=2)
        return unit @ unit.mT

    distance = F.smooth_l1_loss(distances(student), distances(teacher))
    angle = F.smooth_l1_loss(angles(student), angles(teacher))
    return criterion.distance_weight * distance + criterion.angle_weight * angle


def cc(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """The Taylor expansion of a Gaussian kernel."""

    def kernel(rows: Tensor) -> Tensor:
        unit, total = F.normalize(rows), torch.zeros((), device=rows.device)
        cosine = unit @ unit.T
        for power in range(criterion.order + 1):
            factor = (2 * criterion.gamma) ** power / math.factorial(power)
            total = total + math.exp(-2 * criterion.gamma) * factor * cosine**power
        return total

    return F.mse_loss(kernel(student), kernel(teacher))


def cc_neighbour(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """Errors of neighbours, multiplied."""
    error = (criterion.student_embedding(student) - criterion.teacher_embedding(teacher)).abs()
    return (error[:-1] * error[1:]).sum(1).mean()


def self_analysis(criterion: Criterion, student: Pair, teacher: Pair, batch: Batch) -> Tensor:
    """One code after the other: what it says of the logits and of the label."""
    (logits, vectors), total = teacher, torch.zeros((), device=teacher[0].device)
    parts = zip(
        criterion.teacher_encoders, criterion.teacher_decoders, criterion.temperatures, strict=True
    )
    for encode, decode, temperature in parts:
        decoded = decode(encode(vectors))
        total = total + divergence(decoded, logits, temperature)
        total = total + F.cross_entropy(decoded, batch["label"])
    return total


def multi_granularity(criterion: Criterion, student: Pair, teacher: Pair, batch: Batch) -> Tensor:
    """One code after the other, and the logits."""
    (logits, vectors), (shown, shown_vectors) = student, teacher
    total, decoded = torch.zeros((), device=logits.device), [shown]
    parts = zip(
        criterion.student_encoders,
        criterion.teacher_encoders,
        criterion.teacher_decoders,
        criterion.temperatures,
        strict=True,
    )
    for own, other, decode, temperature in parts:
        code = other(shown_vectors)
        total = total + divergence(own(vectors), code, temperature)
        if criterion.stable:
            decoded.append(decode(code))
    target = sum(decoded) / len(decoded)
    return total + criterion.kd_weight * divergence(logits, target, criterion.temperature)


def similarity(rows: Tensor) -> Tensor:
    """Cosines of rotations and images."""
    unit = F.normalize(rows, dim=1, eps=1e-8)
    return unit[len(rows) // 4 :] @ unit[: len(rows) // 4].T


def sskd_head(criterion: Criterion, student: Any, teacher: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy over the images of the batch."""
    found = similarity(criterion.teacher_head(teacher))
    return F.cross_entropy(found, torch.arange(found.shape[1], device=found.device).repeat(3))


def sskd(criterion: Criterion, student: Pair, teacher: Pair, batch: Batch) -> Tensor:
    """Three divergences; samples are selected by their index."""

    def selected(student: Tensor, teacher: Tensor, label: Tensor, share: float) -> Tensor:
        true = teacher.gather(1, label[:, None])
        rank = (teacher > true).sum(1)
        wrong = int((rank > 0).sum())
        order = (rank - teacher.softmax(1).gather(1, label[:, None])[:, 0]).argsort()
        return order[: len(teacher) - wrong + int(wrong * share)]

    (logits, vectors), (shown, shown_vectors) = student, teacher
    number = len(logits) // 4
    found = similarity(criterion.student_head(vectors))
    with torch.no_grad():
        wanted = similarity(criterion.teacher_head(shown_vectors))
    label = batch["label"][:number].repeat(3)
    rows = selected(logits[number:], shown[number:], label, 1.0)
    origin = torch.arange(number, device=found.device).repeat(3)
    places = selected(found, wanted, origin, 0.75)
    of_images, of_rotations, of_similarities = criterion.weights
    return (
        of_images * divergence(logits[:number], shown[:number], 4)
        + of_rotations * divergence(logits[number:][rows], shown[number:][rows], 4)
        + of_similarities * divergence(found[places], wanted[places], 0.5)
    )
