"""Pictures of runs; matplotlib is imported only here, and only when one is drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from kd_core.checkpoint import atomic_path
from kd_core.errors import UserError


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
        ylabel: What stands beside the axis; the name of the metric by default.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("plots need the package matplotlib") from error
    figure = Figure(figsize=(6, 4), layout="constrained")
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
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


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
