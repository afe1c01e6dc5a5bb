"""Pictures of runs; matplotlib is imported only here, and only when one is drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, Literal

from kd_core.errors import UserError
from kd_core.files.checkpoint import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150


def plot_curves(
    runs: Mapping[str, Sequence[Sequence[dict[str, Any]]]],
    metric: str,
    path: Path,
    *,
    ylabel: str = "",
) -> None:
    """Draw a metric over the epochs: a line for the mean of the seeds, a band of one sd (n - 1).

    Args:
        runs: For every label, the histories (`log.jsonl`) of its seeds.
        metric: A number of the records; epochs without it are left out.
        path: PNG file.
        ylabel: Label of the axis; the name of the metric by default.
    """
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for label, histories in runs.items():
        epochs, centre, spread = _statistics(histories, metric)
        line = axes.plot(epochs, centre, label=label)[0]
        low, high = (
            [c + sign * s for c, s in zip(centre, spread, strict=True)] for sign in (-1, 1)
        )
        axes.fill_between(epochs, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel="epoch", ylabel=ylabel or metric)
    axes.grid(alpha=0.3)
    axes.legend()
    save_png(figure, path)


def new_figure(
    width: float, height: float, *, layout: Literal["constrained", "compressed"] = "constrained"
) -> "Figure":
    """Return an empty figure, in inches, that needs no screen.

    Raises:
        UserError: If matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("plots need the package matplotlib") from error
    return Figure(figsize=(width, height), dpi=DPI, layout=layout)


def save_png(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def _statistics(
    histories: Sequence[Sequence[dict[str, Any]]], metric: str
) -> tuple[list[int], list[float], list[float]]:
    values: dict[int, list[float]] = {}
    for history in histories:
        for record in history:
            if metric in record:
                values.setdefault(record["epoch"], []).append(record[metric])
    epochs = sorted(values)
    spread = [stdev(values[e]) if len(values[e]) > 1 else 0.0 for e in epochs]
    return epochs, [mean(values[e]) for e in epochs], spread
