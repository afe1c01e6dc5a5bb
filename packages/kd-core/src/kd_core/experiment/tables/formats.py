"""A table as Markdown, CSV and LaTeX; names are escaped, so that they cannot break it."""

import csv
import io
import re

from kd_core.experiment.tables.table import Cell, Table, Value
from kd_core.runtime.console import in_one_line

_LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
        **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
        **{"±": r"$\pm$", "†": r"$\dagger$"},
        **{"[": "{[}", "*": "{*}"},  # behind `\\` they would belong to it
    }
)
_LATEX_HEAD = (
    "% Plain LaTeX, no package is needed. Letters that pdfLaTeX lacks need XeLaTeX or LuaLaTeX.\n"
)


def markdown(table: Table) -> str:
    """Return a table in Markdown, with its notes."""
    lines = [
        [_markdown(column.heading) for column in table.columns],
        ["---"] * len(table.columns),
        *([_markdown(cell.text) for cell in cells] for cells in table.rows),
    ]
    rows = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([*rows, *("\n" + _markdown(note) for note in table.notes)])


def latex(table: Table) -> str:
    """Return a table in LaTeX: a `tabular` of the same cells, with its notes as comments."""
    first, *others = (_latex(column.heading) for column in table.columns)
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(others)}}}",
        r"\hline",
        rf"{' & '.join([first, *others])} \\",
        r"\hline",
        *(rf"{' & '.join(_latex(cell.text) for cell in cells)} \\" for cells in table.rows),
        r"\hline",
        r"\end{tabular}",
    ]
    notes = [f"% {in_one_line(note)}" for note in table.notes]
    return _LATEX_HEAD + "\n".join([*lines, *notes]) + "\n"


def spreadsheet(table: Table) -> str:
    """Return a table as CSV: commas, decimal points, numbers in full precision.

    Where a name is not ASCII, the text begins with a byte-order mark, which spreadsheets need. A
    name that a spreadsheet would compute (`=1+1`, `+ KD`) has a space before it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_plain(name) for column in table.columns for name in column.names])
    for cells in table.rows:
        writer.writerow([_plain(value) for cell in cells for value in _values(cell)])
    written = text.getvalue()
    return written if written.isascii() else "\ufeff" + written


def _values(cell: Cell) -> tuple[Value, ...]:
    return tuple("" if value is None else value for value in cell.values)


def _plain(value: Value) -> Value:
    computed = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f" {value}" if computed else value


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*|<])", r"\\\1", in_one_line(text))


def _latex(text: str) -> str:
    escaped = in_one_line(text).translate(_LATEX)
    return re.sub(r"(?<!\S)-(?=\d)", "$-$", escaped)
