"""WKD as one would write it at first, from its formulas."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from kd_core.criteria.criterion import Criterion
from torch import Tensor

Batch = Mapping[str, Any]


def wkd_logits(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """The true class by itself; the others with a cost for each sample, [N, C - 1, C - 1]."""
    size, label = student.shape[1], batch["label"]
    others = torch.arange(size, device=label.device) != label[:, None]
    target = -(teacher.softmax(1) * student.log_softmax(1))[~others].mean()
    cut = (logits[others].view(len(logits), -1) for logits in (student, teacher))
    a, b = ((logits / criterion.temperature).softmax(1)[:, :, None] for logits in cut)
    pairs = others[:, :, None] & others[:, None]
    cost = criterion.cost.expand(len(label), -1, -1)[pairs].view(len(label), size - 1, size - 1)
    cost = cost.clamp(min=0) + 1e-8
    kernel = (-cost / criterion.regularization).exp()
    u = torch.full_like(a, 1 / (size - 1))
    for _ in range(criterion.iterations):
        v = b / (kernel.mT @ u + 1e-8)
        u = a / (kernel @ v + 1e-8)
    moved = (u * kernel * v.mT * cost).sum((1, 2)).mean()
    return criterion.target_weight * target + criterion.gamma * moved


def wkd_features(
    criterion: Criterion, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Batch
) -> Tensor:
    """Means and deviations of the whole map."""
    means, deviations = [], []
    for maps in (criterion.regressor(student[0]), teacher[0]):
        means.append(maps.mean((2, 3)))
        deviations.append((maps.var((2, 3)) + criterion.eps).sqrt())
    total = criterion.mean_ratio * (means[0] - means[1]).square()
    return (total + (deviations[0] - deviations[1]).square()).sum(1).mean()


def class_distances(criterion: Criterion, student: Any, teacher: Tensor, batch: Batch) -> Tensor:
    """Nothing to lower; rows are written one by one."""
    for index, logits in zip(batch["index"].tolist(), teacher, strict=True):
        criterion.logits[criterion.places[index]] = logits
    return 0 * criterion.nothing
