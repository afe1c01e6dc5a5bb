"""Figures of several panels."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

from kd_core.errors import UserError
from kd_core.experiment.tables.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Layout = Literal["constrained", "compressed"]
FEW_CLASSES = 20  # that a legend or the ticks of an axis can name
MOST_COLUMNS = 4


def require_png(path: Path) -> None:
    """Reject a name that is not that of a PNG file, before any work.

    Raises:
        UserError: If it is not, or is a folder.
    """
    if path.suffix.lower() != ".png" or path.is_dir():
        raise UserError(f"--out {path}: wanted the name of a PNG file, such as picture.png")


def panels(
    count: int, *, width: float = 3.6, height: float = 3.4, layout: Layout = "constrained"
) -> tuple["Figure", Sequence["Axes"]]:
    """Return a figure with panels side by side, at most four in a row; sizes in inches."""
    columns = min(count, MOST_COLUMNS)
    rows = -(-count // columns)
    figure = new_figure(width * columns + 0.8, height * rows, layout=layout)
    axes: list[Axes] = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def set_title(axes: "Axes", text: str, *, width: int = 36, **style: Any) -> None:
    """Write a wrapped title as plain text: matplotlib would read some names as formulas."""
    wrapped = "\n".join(fill(line, width) for line in text.splitlines())
    axes.set_title(wrapped, parse_math=False, **style)
