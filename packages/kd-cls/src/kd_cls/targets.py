"""What a classifier's logits are trained to: one class an image, or any number of classes."""

from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core.errors import UserError
from kd_core.networks.task import Batch
from torch import Tensor

from kd_cls.class_weights import weighted_mean

REGRESSION = "for numbers to predict see docs/own_task.md"


def one_class(
    logits: Tensor, batch: Batch, smoothing: float, class_weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy, and the class of every image.

    Args:
        logits: [N, C] of the images that count, the first of the batch.
        batch: With `label` int [N], or `mixed_labels`.
        smoothing: Share of the target that is spread over all classes.
        class_weights: Weight of each class, [C]; None: all are equal.

    Raises:
        UserError: If the labels are not one class number an image.
    """
    label = batch["label"]
    if label.dim() != 1 or label.is_floating_point():
        raise UserError(
            f"the labels are {_form(label)}; wanted class numbers, int64 [N] (for labels [N, C] of "
            f"0 and 1, multi_label=True; {REGRESSION})"
        )
    if "mixed_labels" in batch:
        labels, weights = batch["mixed_labels"], batch["mixed_weights"]
        largest = labels.gather(1, weights.argmax(1, keepdim=True)).squeeze(1)
        loss = mixed_cross_entropy(logits, labels, weights, smoothing, class_weights)
        return loss, largest
    label = label[: len(logits)].long()
    loss = F.cross_entropy(logits.float(), label, class_weights, label_smoothing=smoothing)
    return loss, label


def mixed_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    smoothing: float,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Return the weighted sum of smoothed cross-entropies, mean over the batch, in float32.

    Args:
        logits: [N, C].
        labels: Classes of every image, int64 [N, K].
        weights: How much each counts, [N, K].
        smoothing: Of the labels.
        class_weights: Weight of each class, [C]; None: all are equal.
    """
    one = partial(
        F.cross_entropy, weight=class_weights, reduction="none", label_smoothing=smoothing
    )
    losses = torch.stack([one(logits.float(), label) for label in labels.unbind(1)], 1)
    if class_weights is not None:
        return weighted_mean(losses, labels, weights, class_weights)
    return (losses * weights).sum(1).mean()


def any_classes(logits: Tensor, batch: Batch, smoothing: float) -> tuple[Tensor, Tensor]:
    """Return the binary cross-entropy, mean over all known labels, and the labels.

    A label is a number in [0, 1], or -1 or NaN where it is not known; those do not count. In a
    mixed image, a class is not known if it is not in one of the parts.

    Args:
        logits: [N, C] of the images that count, the first of the batch.
        batch: With `label` [N, C], and `mixed_labels` [N, K, C] where images are mixed.
        smoothing: How far 0 and 1 are moved towards one half: by half of it.

    Raises:
        UserError: If the labels are not as the logits.
    """
    label = batch["label"]
    if label.dim() != 2 or label.shape[1] != logits.shape[1]:
        raise UserError(
            f"the labels are {_form(label)}; wanted floats [N, C], 0 or 1 for each of the "
            f"{logits.shape[1]} classes (for one class an image, multi_label=False)"
        )
    if "mixed_labels" in batch:
        parts = batch["mixed_labels"].float()
        parts = torch.where(parts >= 0, parts, torch.nan)
        label = (parts * batch["mixed_weights"].unsqueeze(2)).sum(1)
    label = label[: len(logits)].float()
    known = label >= 0
    target = torch.where(known, label * (1 - smoothing) + smoothing / 2, 0)
    losses = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    # Not times `known`: a logit that is not finite must be seen.
    total = torch.where(known, losses, logits.float() * 0).sum()
    return total / known.sum().clamp(min=1), label


def overlap(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return twice the labels that are predicted rightly, and predicted and true ones together.

    Their ratio is the overall F1. A class is predicted where its probability is above one half;
    unknown labels do not count.
    """
    predicted, present = (logits > 0) & (label >= 0), label > 0.5
    return 2 * (predicted & present).sum(), predicted.sum() + present.sum()


def _form(label: Tensor) -> str:
    return f"{str(label.dtype).removeprefix('torch.')} {list(label.shape)}"
