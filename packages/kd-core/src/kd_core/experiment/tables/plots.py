"""Pictures of runs; matplotlib is imported only here, and only when one is drawn."""

import warnings
from collections.abc import Mapping, Sequence
from itertools import cycle, product
from pathlib import Path
from statistics import mean, stdev
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

from kd_core.errors import UserError
from kd_core.files.checkpoint import atomic_path
from kd_core.training.resuming.forms import is_number

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
_FEW_LINES = 4  # whose legend has room inside the axes
_NAME_WIDTH = 40  # characters of a line of the legend
_STYLES = ("-", "--", ":", "-.")

Histories = Mapping[str, Sequence[Sequence[dict[str, Any]]]]
"""By label, the epochs' records (`log.jsonl`) of every seed."""


def plot_curves(
    runs: Histories, metric: str, path: Path, *, ylabel: str = "", over: str = "epoch"
) -> list[str]:
    """Draw a metric over the epochs: a line for the mean of the seeds, a band of one sd (n - 1).

    Args:
        runs: The records.
        metric: A number of the records; epochs without it are left out.
        path: PNG file.
        ylabel: Label of the axis; the name of the metric by default.
        over: What the records count: epochs, or a detector's iterations.

    Returns:
        The labels that were drawn: those whose records have the metric.
    """
    curves = {label: _statistics(histories, metric, over) for label, histories in runs.items()}
    curves = {label: curve for label, curve in curves.items() if curve[0]}
    outside = len(curves) > _FEW_LINES
    rows = sum(1 + len(label) // _NAME_WIDTH for label in curves)  # of the legend
    figure = new_figure(9 if outside else 6, max(4, 0.25 * rows))
    axes = figure.subplots()
    styles = cycle(product(_STYLES, [f"C{number}" for number in range(10)]))
    lines: dict[str, Artist] = {}
    for (label, curve), (style, colour) in zip(curves.items(), styles, strict=False):
        lines[label] = _draw_curve(axes, curve, linestyle=style, color=colour)
    axes.set(xlabel=over, ylabel=ylabel or metric)
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    if outside:
        add_legend(figure, lines, "outside right upper")
    else:
        add_legend(axes, lines)
    save_png(figure, path)
    return list(lines)


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


def add_legend(
    place: "Axes | Figure", entries: Mapping[str, "Artist"], loc: Any = "best", **style: Any
) -> None:
    """Add a legend with any names; matplotlib would leave out those that begin with `_`."""
    if not entries:
        return
    legend = place.legend(list(entries.values()), ["x"] * len(entries), loc=loc, **style)
    for text, name in zip(legend.get_texts(), entries, strict=True):
        text.set_text(fill(name, _NAME_WIDTH))


def save_png(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG, whole or not at all, with all names as plain text.

    matplotlib would read some names as formulas, and fail at others.
    """
    from matplotlib.text import Text

    texts: list[Any] = figure.findobj(Text)
    for text in texts:
        text.set_parse_math(False)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # one for each letter: boxes show it
        figure.savefig(temporary, format="png", dpi=DPI)


Curve = tuple[list[int], list[float], list[float]]


def _draw_curve(axes: "Axes", curve: Curve, **style: Any) -> "Artist":
    epochs, centre, spread = curve
    marker = "o" if len(epochs) == 1 else ""  # one point makes no line
    line = axes.plot(epochs, centre, marker=marker, **style)[0]
    low, high = ([c + sign * s for c, s in zip(centre, spread, strict=True)] for sign in (-1, 1))
    axes.fill_between(epochs, low, high, color=style["color"], alpha=0.2, linewidth=0)
    return line


def _statistics(histories: Sequence[Sequence[dict[str, Any]]], metric: str, over: str) -> Curve:
    values: dict[int, list[float]] = {}
    for history in histories:
        for record in history:
            if is_number(record.get(metric)):
                values.setdefault(record[over], []).append(record[metric])
    epochs = sorted(values)
    spread = [stdev(values[e]) if len(values[e]) > 1 else 0.0 for e in epochs]
    return epochs, [mean(values[e]) for e in epochs], spread
