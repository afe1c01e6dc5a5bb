"""Reliability diagrams: accuracy by confidence."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_core.errors import UserError
from kd_core.experiment.pictures.figure import set_title
from kd_core.experiment.tables.plots import new_figure, save_png
from kd_core.metrics import CalibrationBins, calibration_bins

from kd_cls.analysis.features import choose, collect
from kd_cls.analysis.subject import Subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def analyse(
    subject: Subject, path: Path, *, limit: int | None = None, bins: int = 15
) -> dict[str, Any]:
    """Draw accuracy by confidence, and how often each confidence occurs.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599.

    Args:
        subject: The models; the teacher's panel is the first.
        path: PNG file.
        limit: Number of images, see `choose`.
        bins: Number of bins, of equal width.

    Returns:
        By model, see `diagram`.

    Raises:
        UserError: If there is no bin.
    """
    if bins < 1:
        raise UserError(f"--bins {bins}: wanted a number of bins, at least 1")
    loader = choose(subject.test, limit)
    diagrams = {}
    for label, model in subject.all_models.items():
        found = collect(model, loader, title=label)
        diagrams[label] = diagram(calibration_bins(found.logits, found.label, bins))
    draw(diagrams, path)
    return diagrams


def diagram(bins: CalibrationBins) -> dict[str, Any]:
    """Return the lists `share`, `confidence` and `accuracy`, a value per bin, and the number `ece`.

    `share` is the part of all samples, the others are means over the bin's samples, None where
    there are none.
    """
    count, confidence, correct = (sums.double().tolist() for sums in bins)
    total = max(sum(count), 1)
    gaps = [abs(one - other) for one, other in zip(confidence, correct, strict=True)]
    return {
        "share": [number / total for number in count],
        "confidence": _means(confidence, count),
        "accuracy": _means(correct, count),
        "ece": sum(gaps) / total,
    }


def draw(diagrams: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw one column per model: the diagram, and the histogram of confidence below it.

    Args:
        diagrams: By model, see `diagram`.
        path: PNG file.
    """
    figure = new_figure(3.4 * len(diagrams) + 0.3, 4.8)
    axes = figure.subplots(
        2, len(diagrams), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 1)
    )
    for (upper, lower), (label, values) in zip(axes.T, diagrams.items(), strict=True):
        _draw_diagram(upper, values)
        set_title(upper, f"{label}\nECE {100 * values['ece']:.2f} %, {len(values['share'])} bins")
        width = 1 / len(values["share"])
        lower.bar(_left(values), values["share"], width, align="edge", color="0.5", edgecolor="w")
        lower.set(xlabel="confidence")
    axes[0, 0].set(ylabel="accuracy")
    axes[1, 0].set(ylabel="share")
    axes[0, 0].legend(loc="upper left", fontsize="small")
    save_png(figure, path)


def _draw_diagram(axes: "Axes", values: Mapping[str, Any]) -> None:
    left, width = _left(values), 1 / len(values["share"])
    accuracy = [value or 0 for value in values["accuracy"]]
    gap = [(value or 0) - hit for value, hit in zip(values["confidence"], accuracy, strict=True)]
    axes.bar(left, accuracy, width, align="edge", color="tab:blue", edgecolor="w", label="accuracy")
    axes.bar(
        left,
        gap,
        width,
        bottom=accuracy,
        align="edge",
        color="tab:red",
        edgecolor="tab:red",
        alpha=0.35,
        hatch="//",
        label="gap to the mean confidence",
    )
    axes.plot([0, 1], [0, 1], "--", color="0.3", linewidth=1, label="calibrated")
    axes.set(xlim=(0, 1), ylim=(0, 1))


def _left(values: Mapping[str, Any]) -> list[float]:
    count = len(values["share"])
    return [number / count for number in range(count)]


def _means(sums: Sequence[float], count: Sequence[float]) -> list[float | None]:
    return [value / n if n else None for value, n in zip(sums, count, strict=True)]
