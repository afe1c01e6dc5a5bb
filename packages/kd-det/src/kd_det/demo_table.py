"""What the demo prints at its end: a table of all seeds, and the gain by its teacher."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from kd_core.experiment.seeds import text
from rich.table import Table

METRICS = ("AP", "AP50", "AP75")

Result = Mapping[str, Any]


def table(
    teacher: Result, summaries: Mapping[str, Result], results: Mapping[str, Sequence[Result]]
) -> Table:
    """Return a row for the teacher and for each student.

    Args:
        teacher: Its result.
        summaries: Of the students, by name; see `kd_core.experiment.seeds.summarise`.
        results: Of every seed, by student.
    """
    count = len(next(iter(results.values())))
    title = f"shapes, last iteration, {count} seed{'s' * (count > 1)}"
    shown = Table("", *METRICS, "AP50 by seed", "parameters", "seconds a run", title=title)
    rows = {"teacher": ([f"{teacher['last'][name]:.2f}" for name in METRICS], [teacher])}
    for name, summary in summaries.items():
        rows[name] = [text(summary["last"][metric]) for metric in METRICS], [*results[name]]
    for name, (scores, runs) in rows.items():
        seeds = "  ".join(f"{run['last']['AP50']:.1f}" for run in runs)
        seconds = mean(run["train_seconds"] for run in runs)
        size = runs[0]["student_parameters"]
        shown.add_row(name, *scores, seeds, f"{size:,}", f"{seconds:.1f}")
    return shown


def gain(alone: Sequence[Result], distilled: Sequence[Result]) -> str:
    """Return by how much the second is better, seed by seed.

    Args:
        alone: Results of the student without a teacher, one a seed.
        distilled: With it, of the same seeds in the same order.
    """
    pairs = zip(alone, distilled, strict=True)
    gains = [with_it["last"]["AP50"] - without["last"]["AP50"] for without, with_it in pairs]
    if len(gains) == 1:
        return (
            f"the teacher adds {gains[0]:+.1f} AP50; one seed says little: --seeds 0 1 2 gives "
            "mean and standard deviation"
        )
    better = sum(one > 0 for one in gains)
    return (
        f"the teacher adds {mean(gains):+.1f} ± {stdev(gains):.1f} AP50, in {better} of "
        f"{len(gains)} seeds; last iteration, on the validation images"
    )
