"""Correlation of classes in the logits of student and teacher."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from kd_core.experiment.pictures.figure import FEW_CLASSES, MOST_COLUMNS, panels, set_title
from kd_core.experiment.tables.plots import save_png
from kd_core.functional import full_precision
from torch import Tensor

from kd_cls.analysis.choices import Matrix
from kd_cls.analysis.features import choose, collect
from kd_cls.analysis.subject import Subject


def analyse(
    subject: Subject, path: Path, *, limit: int | None = None, matrix: Matrix = "correlation"
) -> dict[str, Any]:
    """Draw by how much each student's class matrix differs from the teacher's.

    The picture of Tian et al., "Contrastive Representation Distillation", ICLR 2020,
    arXiv:1910.10699, and of mdistiller, on a common scale of colours.

    Args:
        subject: The students and their teacher.
        path: PNG file.
        limit: Number of images, see `choose`.
        matrix: `correlation`, as the papers say; `means`, as mdistiller's code does, which also
            divides by 3.

    Returns:
        By student, `mean` and `max` of the absolute difference over all pairs of classes.
    """
    name, teacher = subject.require_teacher()
    loader = choose(subject.test, limit)
    shown = _matrix(matrix, *collect(teacher, loader, title=name)[:2])
    differences = {
        label: (_matrix(matrix, *collect(model, loader, title=label)[:2]) - shown).abs().cpu()
        for label, model in subject.models.items()
    }
    draw(differences, subject.data.classes, path, matrix=matrix, teacher=name)
    return {
        label: {"mean": found.mean().item(), "max": found.max().item()}
        for label, found in differences.items()
    }


@full_precision
def class_correlation(logits: Tensor) -> Tensor:
    """Return Pearson's correlation, over samples, of the logits of each pair of classes.

    Args:
        logits: [N, C].

    Returns:
        [C, C]; 0 where a logit is constant.
    """
    centred = logits - logits.mean(0)
    unit = torch.nn.functional.normalize(centred, dim=0)
    return unit.T @ unit


@full_precision
def class_means(logits: Tensor, label: Tensor) -> Tensor:
    """Return the mean logits of the samples of each class.

    Args:
        logits: [N, C].
        label: int64 [N].

    Returns:
        [C, C], a row for each true class; the diagonal and classes without samples are 0.
    """
    classes = logits.shape[1]
    sums = logits.new_zeros(classes, classes).index_add(0, label, logits)
    counts = torch.bincount(label, minlength=classes).clamp(min=1)
    return (sums / counts[:, None]).fill_diagonal_(0)


def draw(
    differences: Mapping[str, Tensor],
    classes: Sequence[str],
    path: Path,
    *,
    matrix: Matrix,
    teacher: str,
) -> None:
    """Draw one heat map a student.

    Args:
        differences: By student, absolute differences [C, C].
        classes: Names of the classes.
        path: PNG file.
        matrix: Which matrix it is of.
        teacher: Label of the teacher.
    """
    figure, axes = panels(len(differences), height=4.1, layout="compressed")
    largest = max(float(found.max()) for found in differences.values())
    for panel, (label, found) in zip(axes, differences.items(), strict=True):
        image = panel.imshow(found.numpy(), vmin=0, vmax=largest or 1.0, cmap="PuBuGn")
        set_title(panel, f"{label}\nmean |difference| {found.mean():.4f}")
        panel.set(xlabel="logit of class")
        if len(classes) <= FEW_CLASSES:
            panel.set_xticks(range(len(classes)), classes, rotation=90)
            panel.set_yticks(range(len(classes)), classes)
    for panel in axes[::MOST_COLUMNS]:
        panel.set(ylabel="true class" if matrix == "means" else "logit of class")
    what = "correlation" if matrix == "correlation" else "mean logit"
    figure.colorbar(image, ax=list(axes), shrink=0.8, label=f"|{what} - that of {teacher}|")
    save_png(figure, path)


def _matrix(kind: Matrix, logits: Tensor, label: Tensor) -> Tensor:
    return class_correlation(logits) if kind == "correlation" else class_means(logits, label)
