"""Evaluate classifiers: accuracy, cross-entropy, calibration, agreement with the teacher."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core.metrics import accuracy, agreement, expected_calibration_error
from kd_core.runtime import distributed
from torch import Tensor, nn

from kd_cls.data import SplitLoader


@torch.no_grad()
def predict(model: nn.Module, loader: SplitLoader) -> tuple[Tensor, Tensor]:
    """Return logits [N, C] and labels [N] of a whole set, from all processes."""
    model.eval()
    logits, labels = [], []
    for batch in loader.epoch(0):
        logits.append(model(batch).float())
        labels.append(batch["label"])
    return (
        distributed.gather_rows(torch.cat(logits)),
        distributed.gather_rows(torch.cat(labels)),
    )


def measure(logits: Tensor, label: Tensor) -> dict[str, float]:
    """Return top-1 and top-5 in percent, the cross-entropy, and ECE as a fraction.

    `ece` has 15 bins, as in most papers; `ece_10` has 10. The two cannot be compared.
    """
    top1, top5 = accuracy(logits, label, topk=(1, 5))
    values = {
        "top1": 100 * top1,
        "top5": 100 * top5,
        "cross_entropy": F.cross_entropy(logits, label),
        "ece": expected_calibration_error(logits, label),
        "ece_10": expected_calibration_error(logits, label, bins=10),
    }
    numbers = torch.stack([value.double() for value in values.values()]).tolist()
    return {name: round(number, 6) for name, number in zip(values, numbers, strict=True)}


def evaluator(loader: SplitLoader) -> Callable[[nn.Module], dict[str, float]]:
    """Return a function that measures a model on a set, for the trainer's hook."""
    return lambda model: measure(*predict(model, loader))


def evaluate(
    model: nn.Module, loader: SplitLoader, teachers: dict[str, nn.Module]
) -> dict[str, float]:
    """Measure a model and, for every teacher with the same classes, how often they agree."""
    logits, label = predict(model, loader)
    result = measure(logits, label)
    for name, teacher in teachers.items():
        shown = predict(teacher, loader)[0]
        if shown.shape == logits.shape:
            result[f"agreement_{name}"] = round(100 * agreement(logits, shown).item(), 4)
    return result
