"""Similarity of the stages of student and teacher, by linear CKA."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from kd_core.data.split_loader import SplitLoader
from kd_core.experiment.pictures.figure import MOST_COLUMNS, panels, set_title
from kd_core.experiment.tables.plots import save_png
from kd_core.metrics import minibatch_cka
from kd_core.networks.roles import tap_list
from torch import Tensor

from kd_cls.analysis.choices import LAYERS, Pool
from kd_cls.analysis.features import choose, progress, run_batch, watch
from kd_cls.analysis.subject import Subject
from kd_cls.classifier import Classifier


def analyse(
    subject: Subject,
    path: Path,
    *,
    limit: int | None = None,
    pool: Pool = "mean",
    layers: Sequence[str] = LAYERS,
    teacher_layers: Sequence[str] = LAYERS,
) -> dict[str, Any]:
    """Draw the CKA of every layer of each student with every one of the teacher.

    Args:
        subject: The students and their teacher.
        path: PNG file.
        limit: Number of images, see `choose`.
        pool: `mean` averages maps over their positions; `none` compares them flattened, so that
            positions count.
        layers: Taps of the students.
        teacher_layers: Taps of the teacher.

    Returns:
        By student, its `layers`, the `teacher_layers`, and `cka`, a row for each of its layers.
    """
    name, teacher = subject.require_teacher()
    loader = choose(subject.test, limit, mixed=True)
    shown = tap_list(teacher_layers, teacher)
    found: dict[str, dict[str, Any]] = {}
    for label, student in subject.models.items():
        own = tap_list(layers, student)
        batches = layer_batches((student, own), (teacher, shown), loader, pool, title=label)
        values = minibatch_cka(batches).tolist()
        found[label] = {
            "layers": _names(student, own),
            "teacher_layers": _names(teacher, shown),
            "cka": values,
        }
    draw(found, name, path)
    return found


@torch.inference_mode()
def layer_batches(
    student: tuple[Classifier, Sequence[str]],
    teacher: tuple[Classifier, Sequence[str]],
    loader: SplitLoader,
    pool: Pool = "mean",
    *,
    title: str = "",
) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Yield for each batch the features of the student's and of the teacher's layers, [n, D] each.

    Args:
        student: The model and its taps.
        teacher: The same.
        loader: The images; batches that are not random parts of the set would bias CKA.
        pool: See `analyse`.
        title: Text of the progress line.
    """
    sample = loader.sample(1)
    taps = [watch(model, paths, sample) for model, paths in (student, teacher)]
    for batch in progress(loader, title):
        own, shown = (
            [pooled(value.float(), pool) for value in run_batch(model, tap, batch)[1]]
            for (model, _), tap in zip((student, teacher), taps, strict=True)
        )
        yield own, shown


def pooled(features: Tensor, pool: Pool) -> Tensor:
    """Return features [N, C, ...] as vectors: averaged over what follows C, or flattened."""
    return features.flatten(2).mean(2) if pool == "mean" and features.dim() > 2 else features


def draw(found: Mapping[str, Mapping[str, Any]], teacher: str, path: Path) -> None:
    """Draw one heat map a student.

    Args:
        found: See `analyse`.
        teacher: Label of the teacher.
        path: PNG file.
    """
    figure, axes = panels(len(found), height=3.7, layout="compressed")
    for panel, (label, values) in zip(axes, found.items(), strict=True):
        image = panel.imshow(values["cka"], vmin=0, vmax=1, cmap="magma", origin="lower")
        set_title(panel, label)
        shown, own = values["teacher_layers"], values["layers"]
        panel.set_xticks(range(len(shown)), shown, rotation=45, ha="right")
        panel.set_yticks(range(len(own)), own)
        panel.set(xlabel=f"layer of {teacher}")
        _write(panel, values["cka"])
    for panel in axes[::MOST_COLUMNS]:
        panel.set(ylabel="layer of student")
    figure.colorbar(image, ax=list(axes), shrink=0.8, label="linear CKA")
    save_png(figure, path)


def _write(panel: Any, values: Sequence[Sequence[float]]) -> None:
    """Write the numbers into the cells, if they fit."""
    if max(len(values), len(values[0])) > 8:
        return
    for row, cells in enumerate(values):
        for column, value in enumerate(cells):
            colour = "black" if value > 0.6 else "white"
            panel.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)


def _names(model: Classifier, paths: Sequence[str]) -> list[str]:
    """Return the names of layers: their paths, but `pooled` for the classifier's input."""
    vectors = tap_list("@pooled", model) if model.roles.get("pooled") else []
    return ["pooled" if path in vectors else path for path in paths]
