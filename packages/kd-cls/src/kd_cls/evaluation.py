"""Evaluate classifiers: accuracy, cross-entropy, calibration, agreement with the teacher."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core.errors import UserError
from kd_core.metrics import (
    accuracy,
    agreement,
    average_precision,
    expected_calibration_error,
    label_f1,
)
from kd_core.networks.batch_names import by_our_names
from kd_core.runtime import distributed
from torch import Tensor, nn

from kd_cls.data import SplitLoader

_UNKNOWN = "accuracy, cross-entropy and calibration cannot be measured"


@torch.no_grad()
def predict(model: nn.Module, loader: SplitLoader) -> tuple[Tensor, Tensor | None]:
    """Return logits [N, C] and labels, [N] or [N, C], of a whole set, from all processes.

    There are no labels if the batches have none.
    """
    model.eval()
    logits, labels = [], []
    for batch in map(by_our_names, loader.epoch(0)):
        logits.append(model(batch).float())
        if "label" in batch:
            labels.append(batch["label"])
    given = distributed.gather_rows(torch.cat(logits))
    return given, distributed.gather_rows(torch.cat(labels)) if labels else None


def measure(logits: Tensor, label: Tensor, classes: Sequence[str] = ()) -> dict[str, float]:
    """Return what is measured of one set, by name.

    Of one class an image: top-1 and top-5 in percent, the cross-entropy, and ECE as a fraction:
    `ece` has 15 bins, as in most papers; `ece_10` has 10. The two cannot be compared. Of several
    (labels [N, C]), see `measure_labels`.

    Args:
        logits: [N, C].
        label: int64 [N], or floats [N, C].
        classes: Their names.
    """
    if label.dim() == 2:
        return measure_labels(logits, label, classes)
    top1, top5 = accuracy(logits, label, topk=(1, 5))
    values = {
        "top1": 100 * top1,
        "top5": 100 * top5,
        "cross_entropy": F.cross_entropy(logits, label),
        "ece": expected_calibration_error(logits, label),
        "ece_10": expected_calibration_error(logits, label, bins=10),
    }
    return _rounded(values)


def measure_labels(logits: Tensor, label: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Return what is measured where an image has any number of classes.

    In percent: `mAP`, the mean of the average precisions of the classes that occur; `CF1` and
    `OF1`, see `kd_core.metrics.label_f1`; `AP/NAME` of every class that occurs. And the binary
    cross-entropy, mean over all known labels. Unknown labels (-1, NaN) do not count.
    """
    known, precisions = label >= 0, average_precision(logits, label)
    if not (occurs := precisions.isfinite()).any():
        raise UserError("no image of the set has a class, so mAP cannot be measured; check labels")
    by_class, overall = label_f1(logits, label)
    entropy = F.binary_cross_entropy_with_logits(logits[known], label[known].to(logits.dtype))
    names = classes or [str(number) for number in range(len(precisions))]
    each = {
        f"AP/{name}": 100 * precision
        for name, precision, there in zip(names, precisions, occurs.tolist(), strict=True)
        if there
    }
    mean = precisions[occurs].mean()
    totals = {"mAP": 100 * mean, "CF1": 100 * by_class, "OF1": 100 * overall}
    return _rounded({**totals, "binary_cross_entropy": entropy, **each})


def evaluator(
    loader: SplitLoader, classes: Sequence[str] = ()
) -> Callable[[nn.Module], dict[str, float]]:
    """Return a function that measures a model on a set, for the trainer's hook."""

    def run(model: nn.Module) -> dict[str, float]:
        logits, label = predict(model, loader)
        if label is None:
            raise UserError(f"the batches of this set have no 'label': {_UNKNOWN}; add labels")
        return measure(logits, label, classes)

    return run


def evaluate(
    model: nn.Module,
    loader: SplitLoader,
    teachers: dict[str, nn.Module],
    classes: Sequence[str] = (),
) -> dict[str, float]:
    """Measure a model and, for every teacher with the same classes, how often they agree.

    Of several labels an image, that is the share of all yes and no that are the same. Without
    labels, there is only agreement, and a line says what is missing.
    """
    logits, label = predict(model, loader)
    result = {} if label is None else measure(logits, label, classes)
    if label is None:
        distributed.print_note(f"the batches have no 'label': {_UNKNOWN}")
    for name, teacher in teachers.items():
        shown = predict(teacher, loader)[0]
        if shown.shape == logits.shape:
            several = label is not None and label.dim() == 2
            share = (
                ((logits > 0) == (shown > 0)).float().mean()
                if several
                else agreement(logits, shown)
            )
            result[f"agreement_{name}"] = round(100 * share.item(), 4)
    return result


def _rounded(values: dict[str, Tensor]) -> dict[str, float]:
    """Read all values from the device at once."""
    numbers = torch.stack([value.double() for value in values.values()]).tolist()
    return {name: round(number, 6) for name, number in zip(values, numbers, strict=True)}
