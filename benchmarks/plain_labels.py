"""Criteria for several labels an image as one would write them at first, from their formulas."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.criterion import Criterion
from torch import Tensor

Batch = Mapping[str, Any]
Pair = Sequence[Tensor]


def mld(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """The divergence of every label's two probabilities."""

    def both(logits: Tensor) -> Tensor:
        return torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)], 2)

    own, shown = both(student), both(teacher)
    return (shown.exp() * (shown - own)).sum() / len(student)


def l2d(criterion: Criterion, student: Pair, teacher: Pair, batch: Batch) -> Tensor:
    """Distances among the embeddings of each class, and of each image, one after another."""

    def distances(rows: Tensor) -> Tensor:
        products = rows @ rows.T
        lengths = products.diagonal()
        squares = (lengths[:, None] + lengths - 2 * products).clamp(min=1e-12)
        table = squares.sqrt() * (1 - torch.eye(len(rows), device=rows.device))
        return table / (table.sum() / (len(rows) * (len(rows) - 1)))

    def structure(own: Tensor, shown: Tensor, label: Tensor) -> Tensor:
        total = own.sum() * 0
        for rows, targets, there in zip(own, shown, label > 0.5, strict=True):
            if there.sum() > 1:
                gaps = F.smooth_l1_loss(
                    distances(rows[there]), distances(targets[there]), reduction="sum"
                )
                total = total + gaps / there.sum()
        return total

    label = batch["label"]
    turned = [side[1].transpose(0, 1) for side in (student, teacher)]
    return (
        criterion.logit_weight * mld(criterion, student[0], teacher[0], batch)
        + criterion.class_weight * structure(*turned, label.T)
        + criterion.instance_weight * structure(student[1], teacher[1], label)
    )
