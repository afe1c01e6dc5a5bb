"""The curves of a run's seeds: `curves.png` in its folder, where matplotlib is installed."""

from collections.abc import Mapping
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

    What is wrong with a picture is a line, since the run itself is finished.

    Args:
        work_dir: Of `kd_core.experiment.seeds.repeat`.
        summary: What that returned.
    """
    if not is_installed("matplotlib"):
        return
    metric = summary["metric"]
    try:
        histories = read_histories(work_dir, summary["seeds"])
        names = (metric, f"val_{metric}")
        shown = next((n for n in names if any(n in record for record in histories[0])), None)
        if shown:
            plot_curves({work_dir.name: histories}, shown, work_dir / FILE)
    except (UserError, OSError) as error:
        err.print(f"{work_dir / FILE} is not drawn: {error}")
