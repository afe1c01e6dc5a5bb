"""Criteria on maps as one would write them at first, behind the same adapters as ours."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.criterion import Criterion
from plain_maps import attention, matched
from torch import Tensor

Batch = Mapping[str, Any]
Maps = Sequence[Tensor]


def adapted(modules: Any, student: Maps) -> list[Tensor]:
    """What the adapters make of the student's maps."""
    return [adapt(maps) for adapt, maps in zip(modules, student, strict=True)]


def fitnet(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """Mean squared errors."""
    pairs = zip(adapted(criterion.regressors, student), teacher, strict=True)
    return torch.stack([F.mse_loss(s, t) for s, t in pairs]).sum()


def ab(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """Two hinges, each with its mask."""
    total, margin = torch.zeros((), device=student[0].device), criterion.margin
    pairs = zip(adapted(criterion.connectors, student), teacher, strict=True)
    for depth, (s, t) in enumerate(pairs):
        low = (s + margin).square() * ((s > -margin) & (t <= 0))
        high = (s - margin).square() * ((s <= margin) & (t > 0))
        total = total + (low + high).sum() / len(s) / 2 ** (len(student) - 1 - depth)
    return total * 3 / 1000


def ofd(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """Three cases, each with its mask."""
    total = torch.zeros((), device=student[0].device)
    margins = criterion.margins.split(criterion.channels)
    maps = zip(adapted(criterion.connectors, student), teacher, margins, strict=True)
    for depth, (s, t, margin) in enumerate(maps):
        t, margin = F.adaptive_avg_pool2d(t, s.shape[2:]), margin.view(1, -1, 1, 1)
        loss = (s - margin) ** 2 * ((s > margin) & (t <= margin))
        loss = loss + (s - t) ** 2 * ((s > t) & (t > margin) & (t <= 0))
        loss = loss + (s - t) ** 2 * (t > 0)
        total = total + loss.mean(0).sum() / 2 ** (len(student) - 1 - depth)
    return total


def vid(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """The likelihood of the teacher's maps."""
    total, parts = torch.zeros((), device=student[0].device), matched(student, teacher)
    for regress, scale, (s, t) in zip(
        criterion.regressors, criterion.log_scales, parts, strict=True
    ):
        variance = ((1 + scale.exp()).log() + criterion.eps).view(1, -1, 1, 1)
        total = total + 0.5 * ((regress(s) - t) ** 2 / variance + variance.log()).mean()
    return total


def reviewkd(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """From the deepest level on, then a pyramid of mean squared errors a level."""
    total, fused = torch.zeros((), device=student[0].device), None
    for fuse, s, t in zip(criterion.abfs, reversed(student), reversed(teacher), strict=True):
        output, fused = fuse(s, fused, t.shape[2:])
        loss, weight, weights = F.mse_loss(output, t), 1.0, 1.0
        for size in (4, 2, 1):
            if size < output.shape[2]:
                weight /= 2
                weights += weight
                pooled = (F.adaptive_avg_pool2d(maps, size) for maps in (output, t))
                loss = loss + weight * F.mse_loss(*pooled)
        total = total + loss / weights
    return total


def ft(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """Mean absolute differences of where the factors are large."""
    with torch.no_grad():
        factor = criterion.paraphraser.encoder(teacher[0])
    ((one, other),) = matched([criterion.translator(student[0])], [factor])
    return (attention(one) - attention(other)).abs().mean()


def paraphraser(criterion: Criterion, student: Any, teacher: Maps, batch: Batch) -> Tensor:
    """The mean squared error of the restored map."""
    coder = criterion.paraphraser
    return F.mse_loss(coder.decoder(coder.encoder(teacher[0])), teacher[0])


def afd(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """The energies of every pair of maps, weighted by the criterion's own attention."""
    weights, total = criterion.attention(student, teacher), []
    for shown in teacher:
        for maps in student:
            energy = F.adaptive_avg_pool2d(maps.pow(2).mean(1, keepdim=True), shown.shape[2:])
            row = F.normalize(energy.flatten(1))
            total.append((row - attention(shown)).square().mean(1))
    distances = torch.stack(total, 1).view_as(weights)
    return (weights * distances).sum((1, 2)).mean()


def afds(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """Errors of channels of unit length, weighted by the blocks on the teacher's maps."""
    total, pairs = torch.zeros((), device=student[0].device), matched(student, teacher)
    for attend, shown, pair in zip(criterion.attention, teacher, pairs, strict=True):
        weight = attend(shown)[:, :, 0, 0]
        weight = weight / weight.sum(1, keepdim=True)
        s, t = (m / (m.flatten(2).norm(dim=2)[..., None, None] + 1e-6) for m in pair)
        total = total + (weight * (s - t).square().mean((2, 3))).sum(1).mean()
    return total


def mgd(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """Squared errors of what is generated from masked maps."""
    total = torch.zeros((), device=student[0].device)
    aligned = adapted(criterion.aligners, student)
    for generate, s, t, mask in zip(
        criterion.generators, aligned, teacher, batch["mask"], strict=True
    ):
        total = total + F.mse_loss(generate(s * mask), t, reduction="sum") / len(t)
    return total


def simkd(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """The mean squared error of the projected map."""
    ((own, shown),) = matched(student, teacher)
    return F.mse_loss(criterion.projector(own), shown)


def cwd(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """KL of the softmax over places of every channel."""
    total, tau = torch.zeros((), device=student[0].device), criterion.temperature
    for s, t in zip(adapted(criterion.aligners, student), teacher, strict=True):
        own, shown = (s / tau).flatten(2).log_softmax(2), (t / tau).flatten(2).softmax(2)
        total = total + F.kl_div(own, shown, reduction="sum") / (s.shape[0] * s.shape[1])
    return total * tau**2


def pkd(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """Mean squared errors of channels that are standardised over the batch."""

    def standard(maps: Tensor) -> Tensor:
        rows = maps.transpose(0, 1).flatten(1)
        return (rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + 1e-6)

    total = torch.zeros((), device=student[0].device)
    for s, t in zip(adapted(criterion.aligners, student), teacher, strict=True):
        if s.shape != t.shape:
            s = F.interpolate(s, t.shape[2:], mode="bilinear")
        total = total + F.mse_loss(standard(s), standard(t)) / 2
    return total
