"""Tables of models: accuracy, calibration, agreement, noise."""

from collections.abc import Mapping

from kd_core.metrics import agreement, noise_unevenness
from rich.table import Table
from rich.text import Text

from kd_cls.analysis.features import choose, collect
from kd_cls.analysis.subject import Subject
from kd_cls.evaluation import measure

Numbers = dict[str, float]

HEADINGS = {
    "top1": ("top-1 %", 2),
    "top5": ("top-5 %", 2),
    "cross_entropy": ("cross-entropy", 4),
    "ece": ("ECE, 15 bins", 4),
    "ece_10": ("ECE, 10 bins", 4),
    "agreement": ("agreement %", 2),
    "noise": ("unevenness of the rest", 4),
}
"""Title of a column, and its decimal places."""


def evaluate(subject: Subject, limit: int | None = None) -> dict[str, Numbers]:
    """Measure every model, and how often it agrees with the teacher, if there is one.

    Args:
        subject: The models.
        limit: Number of images, see `choose`.

    Returns:
        By label: what `measure` returns, and `agreement` in percent.
    """
    loader = choose(subject.test, limit)
    given = {
        label: collect(model, loader, title=label) for label, model in subject.all_models.items()
    }
    numbers = {label: measure(found.logits, found.label) for label, found in given.items()}
    if subject.teacher:
        shown = given[subject.teacher[0]].logits
        for label in subject.models:
            share = agreement(given[label].logits, shown).item()
            numbers[label]["agreement"] = round(100 * share, 4)
    return numbers


def noise(subject: Subject, limit: int | None = None) -> dict[str, Numbers]:
    """Measure how uneven every model's probabilities are besides the largest.

    Args:
        subject: The models.
        limit: Number of images, see `choose`.

    Returns:
        By label: `noise`, see `noise_unevenness`.
    """
    loader = choose(subject.test, limit)
    return {
        label: {"noise": noise_unevenness(collect(model, loader, title=label).logits).item()}
        for label, model in subject.all_models.items()
    }


def as_table(numbers: Mapping[str, Mapping[str, float]], title: str) -> Table:
    """Return a table of numbers, a row per model; missing values are blank."""
    names = list(dict.fromkeys(name for row in numbers.values() for name in row))
    table = Table("model", title=title)
    for name in names:
        table.add_column(HEADINGS[name][0], justify="right")
    for label, row in numbers.items():
        cells = [f"{row[name]:.{HEADINGS[name][1]}f}" if name in row else "" for name in names]
        table.add_row(Text(label, overflow="fold"), *cells)  # Text: brackets are not markup
    return table
