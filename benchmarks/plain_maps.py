"""Criteria on maps as one would write them at first; those that learn to adapt nothing."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.criterion import Criterion
from plain_logits import dkd_rows, nkd_rows
from torch import Tensor

Batch = Mapping[str, Any]
Maps = Sequence[Tensor]


def matched(student: Maps, teacher: Maps) -> list[tuple[Tensor, Tensor]]:
    """Pairs of maps, the larger of which is pooled."""
    pairs = []
    for one, other in zip(student, teacher, strict=True):
        if one.shape[2] > other.shape[2]:
            one = F.adaptive_avg_pool2d(one, other.shape[2:])
        elif one.shape[2] < other.shape[2]:
            other = F.adaptive_avg_pool2d(other, one.shape[2:])
        pairs.append((one, other))
    return pairs


def attention(maps: Tensor) -> Tensor:
    """Mean squares of the channels, as unit vectors."""
    return F.normalize(maps.pow(2).mean(1).flatten(1))


def at(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """Mean squared differences of attention."""
    pairs = matched(student, teacher)
    return torch.stack([F.mse_loss(attention(s), attention(t)) for s, t in pairs]).sum()


def nst(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """Multiply every channel of maps [N, C, H, W] with every other: C x C numbers a sample."""

    def kernel(one: Tensor, other: Tensor) -> Tensor:
        return (one @ other.mT).square().mean()

    total = torch.zeros((), device=student[0].device)
    for pair in matched(student, teacher):
        s, t = (F.normalize(maps.flatten(2), dim=2) for maps in pair)
        total = total + kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)
    return total


def sp(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """Products of samples, as unit rows."""

    def products(maps: Tensor) -> Tensor:
        rows = maps.flatten(1)
        return F.normalize(rows @ rows.T)

    pairs = zip(student, teacher, strict=True)
    return torch.stack([F.mse_loss(products(s), products(t)) for s, t in pairs]).sum()


def fsp(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """Products of the channels of consecutive levels."""

    def flows(side: Maps) -> list[Tensor]:
        pairs = [matched([before], [after])[0] for before, after in pairwise(side)]
        return [a.flatten(2) @ b.flatten(2).mT / a[0, 0].numel() for a, b in pairs]

    pairs = zip(flows(student), flows(teacher), strict=True)
    return torch.stack([F.mse_loss(s, t) for s, t in pairs]).sum()


def kdsvd(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
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
    """Take one channel after the other, [C], as OFD's reference does (with slower scipy)."""
    margins = []
    for scale, mean in zip(weight, bias, strict=True):
        deviation, ratio = abs(scale.item()), mean.item() / abs(scale.item())
        negative = math.erfc(ratio / math.sqrt(2)) / 2
        density = math.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)
        small = negative <= 0.001
        margins.append(-3 * deviation if small else mean.item() - deviation * density / negative)
    return torch.tensor(margins, device=weight.device)


def catkd(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """Classify every place, then pool."""
    pooled = []
    for (maps,), head in zip((student, teacher), criterion.heads, strict=True):
        cams = F.conv2d(maps, head.module.weight[..., None, None], head.module.bias)
        pooled.append(F.adaptive_avg_pool2d(cams, criterion.resolution))
    return F.mse_loss(*pooled)


def regions(criterion: Criterion, student: Maps, teacher: Maps) -> list[Tensor]:
    """Logits of the regions of both networks, sample by sample: [N * R, C]."""
    rows = []
    for (maps,), head in zip((student, teacher), criterion.heads, strict=True):
        cells = F.adaptive_avg_pool2d(maps, 4)
        pooled = [F.adaptive_avg_pool2d(cells, scale).flatten(2) for scale in criterion.scales]
        rows.append(head.module(torch.cat(pooled, 2).mT).flatten(0, 1))
    return rows


def counted(losses: Tensor, teacher: Tensor, label: Tensor, number: int) -> Tensor:
    """Mean of the losses of regions; those about which the teacher changes its mind count twice."""
    right = (teacher.argmax(1) == label).view(-1, number)
    return ((1 + (right != right[:, :1]).int()).flatten() * losses).mean()


def sd_kd(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """KD of every region."""
    own, shown = regions(criterion, student, teacher)
    label = batch["label"].repeat_interleave(len(own) // len(batch["label"]))
    losses = F.kl_div((own / 4).log_softmax(1), (shown / 4).softmax(1), reduction="none").sum(1)
    return counted(16 * losses, shown, label, len(own) // len(batch["label"]))


def sd_dkd(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """DKD of every region."""
    own, shown = regions(criterion, student, teacher)
    label = batch["label"].repeat_interleave(len(own) // len(batch["label"]))
    losses = dkd_rows(own, shown, label, 1, 8, 4)
    return counted(losses, shown, label, len(own) // len(batch["label"]))


def sd_nkd(criterion: Criterion, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
    """NKD of every region."""
    own, shown = regions(criterion, student, teacher)
    label = batch["label"].repeat_interleave(len(own) // len(batch["label"]))
    losses = nkd_rows(own, shown, label, 8, 4)
    return counted(losses, shown, label, len(own) // len(batch["label"]))
