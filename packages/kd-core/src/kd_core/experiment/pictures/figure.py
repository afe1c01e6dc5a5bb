"""Figures of several panels."""

import warnings
from collections.abc import Sequence
from functools import lru_cache
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal

from kd_core.experiment.tables.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Layout = Literal["constrained", "compressed"]
FEW_CLASSES = 20  # that a legend or the ticks of an axis can name
MOST_COLUMNS = 4
_MOST_LINES = 4  # of a wrapped name; the rest of it is left out
_WIDEST = 80  # characters of a line
_CUT = "…"
_LINE = 1.4  # height of a line, in sizes of the font


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


def set_title(axes: "Axes", text: str, *, inches: float = 3.4, **style: Any) -> None:
    """Write a title, wrapped to a width in inches."""
    title = axes.set_title("", **style)
    title.set_text(fitted(text, inches, title.get_fontproperties()))


def add_height_of_titles(figure: "Figure", axes: Any) -> None:
    """Make a figure as much higher as the titles of its rows need, so that panels do not shrink.

    Args:
        figure: With all its titles.
        axes: Of its panels, an array [rows, columns].
    """
    height = 0.0
    for row in axes:
        titles = [panel.title for panel in row]
        lines = max(1 + title.get_text().count("\n") for title in titles)
        height += _LINE * lines * max(title.get_fontsize() for title in titles) / 72
    figure.set_figheight(figure.get_figheight() + height)


def fitted(text: str, inches: float, font: Any) -> str:
    """Return a text in lines of at most this width in a font, measured by its letters.

    Args:
        text: A line of it begins a line; each may become a few.
        inches: Width.
        font: matplotlib's `FontProperties`.
    """
    return "\n".join(_fitted(line, inches, font) for line in text.splitlines())


def _fitted(line: str, inches: float, font: Any) -> str:
    points = {letter: _points(letter, font) for letter in set(line) | {_CUT}}
    for width in range(min(len(line), _WIDEST), 1, -1):
        lines = wrap(line, width, max_lines=_MOST_LINES, placeholder=_CUT)
        if all(sum(points[letter] for letter in part) <= 72 * inches for part in lines):
            return "\n".join(lines)
    return line


@lru_cache(maxsize=1000)
def _points(letter: str, font: Any) -> float:
    """Return the width of a letter inside a word: spaces at an end would have none."""
    from matplotlib.textpath import text_to_path

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # its box is measured
        between, nothing = (
            text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
            for text in (f"x{letter}x", "xx")
        )
    return float(between - nothing)
