"""The curves of a run's seeds: `curves.png` in its folder, where matplotlib is installed."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kd_core.errors import UserError
from kd_core.experiment.seeds import read_histories
from kd_core.experiment.tables.plots import plot_curves
from kd_core.runtime.console import err
from kd_core.training.loggers import is_installed

FILE = "curves.png"


def draw(work_dir: Path, summary: Mapping[str, Any]) -> None:
    """Draw the metric over the epochs: the mean of all seeds, and a band of one sd.

    Args:
        work_dir: Of `kd_core.experiment.seeds.repeat`.
        summary: What that returned.
    """
    metric = summary["metric"]
    read = partial(read_histories, work_dir, summary["seeds"])
    draw_histories(work_dir, read, (metric, f"val_{metric}"))


def draw_histories(
    work_dir: Path,
    read: Callable[[], Sequence[Sequence[dict[str, Any]]]],
    names: Sequence[str],
    *,
    over: str = "epoch",
) -> None:
    """Draw a metric of the records of all seeds.

    What is wrong with a picture is a line, since the run itself is finished.

    Args:
        work_dir: Of the run.
        read: Returns the records.
        names: Of metrics; the first that the records have is drawn.
        over: What the records count.
    """
    if not is_installed("matplotlib"):
        return
    try:
        histories = read()
        shown = next((n for n in names if any(n in record for record in histories[0])), None)
        if shown:
            plot_curves({work_dir.name: histories}, shown, work_dir / FILE, over=over)
    except (UserError, OSError) as error:
        err.print(f"{work_dir / FILE} is not drawn: {error}")
