"""Repeat a run over seeds and report mean and standard deviation."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from kd_core.experiment import identity
from kd_core.experiment.results import read_history, read_result
from kd_core.files import checkpoint
from kd_core.runtime import distributed

Run = Callable[[int, Path], dict[str, Any]]
Finished = Callable[[int, Path], dict[str, Any] | None]

DIGITS = {"epoch": 0, "ece": 4, "ece_10": 4, "cross_entropy": 4}
DIGITS |= {"cosine": 4, "relative_error": 4, "cka": 4}
"""Decimal places of metrics in tables; two for all others."""


def repeat(run: Run, seeds: Sequence[int], work_dir: Path, *, finished: Finished) -> dict[str, Any]:
    """Run once for every seed, each in its own folder, and write `summary.json`.

    Args:
        run: Takes a seed and a folder; returns a result like `kd_core.experiment.run.run`.
        seeds: One run for each.
        work_dir: Folder of the folders; with one seed, of the run itself.
        finished: Takes a seed and a folder; returns the result that exists there, or None; raises
            for a result of another config. All folders are checked before any run starts.
    """
    there = look(finished, seeds, work_dir)
    results = [there[seed] or run(seed, seed_folder(work_dir, seed, seeds)) for seed in seeds]
    return keep_summary(results, seeds, work_dir)


def look(
    finished: Finished, seeds: Sequence[int], work_dir: Path
) -> dict[int, dict[str, Any] | None]:
    """Return the finished results by seed; raises for those of another config, see `repeat`."""
    return {seed: finished(seed, seed_folder(work_dir, seed, seeds)) for seed in seeds}


def read_results(work_dir: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return the results of every seed that `repeat` ran."""
    return [read_result(seed_folder(work_dir, seed, seeds)) for seed in seeds]


def read_histories(work_dir: Path, seeds: Sequence[int]) -> list[list[dict[str, Any]]]:
    """Return the epochs' records of every seed that `repeat` ran."""
    return [read_history(seed_folder(work_dir, seed, seeds)) for seed in seeds]


def keep_summary(
    results: Sequence[dict[str, Any]], seeds: Sequence[int], work_dir: Path
) -> dict[str, Any]:
    """Return the summary of all seeds' results; of several, also write `summary.json`."""
    summary = summarise(results, seeds)
    if distributed.rank() == 0 and len(seeds) > 1:
        checkpoint.save_json(summary, work_dir / "summary.json")
    return summary


def summarise(results: Sequence[dict[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    """Return mean and standard deviation (n - 1) of every metric of the last and best epochs."""
    summary: dict[str, Any] = {
        "seeds": list(seeds),
        "data_seeds": [result.get("data_seed") for result in results],
        "metric": results[0]["metric"],
        "chosen_on": results[0]["best"]["chosen_on"],
        "student_parameters": results[0]["student_parameters"],
        "train_seconds": mean(result["train_seconds"] for result in results),
        "stopped": stops_of(results),
    }
    for which in ("last", "best"):
        numeric = [name for name, v in results[0][which].items() if isinstance(v, int | float)]
        summary[which] = {name: spread([r[which][name] for r in results]) for name in numeric}
    return summary


def spread(values: Sequence[float]) -> dict[str, float | int | None]:
    """Return mean, standard deviation (None for one value) and number of values."""
    return {
        "mean": round(mean(values), 6),
        "sd": round(stdev(values), 6) if len(values) > 1 else None,
        "n": len(values),
    }


def text(value: dict[str, Any], digits: int = 2) -> str:
    """Return `mean ± sd`, or the value alone."""
    shown = f"{value['mean']:.{digits}f}"
    return shown if value["sd"] is None else f"{shown} ± {value['sd']:.{digits}f}"


def spread_of(data_seeds: Sequence[int | None]) -> str | None:
    """Return what a standard deviation covers, if not all effects of seeds."""
    if len(data_seeds) > 1 and len(set(data_seeds)) == 1:
        return f"data_seed {data_seeds[0]} in all runs: sd is that of initialisation"
    return None


def stops_of(results: Sequence[Mapping[str, Any]]) -> str | None:
    """Return in which epochs runs were stopped early, and how these were chosen; None if none."""
    stops = [str(run["stopped_in_epoch"]) for run in results if "stopped_in_epoch" in run]
    if not stops:
        return None
    epochs, chosen = results[0].get("epochs"), results[0]["best"]["chosen_on"]
    some = "" if len(stops) == len(results) else f"{len(stops)} of {len(results)} runs "
    return f"{some}stopped early, after epoch {', '.join(stops)} of {epochs}: chosen on {chosen}"


def summary_table(summary: dict[str, Any]) -> Table:
    """Return a table of the last and the best epoch, and how the best was chosen."""
    count = len(summary["seeds"])
    title = f"student, {count} seed{'s' * (count > 1)}"
    shown = [name for name in summary["last"] if "/" not in name]  # not those of single classes
    notes = filter(None, [spread_of(summary["data_seeds"]), summary["stopped"]])
    table = Table("", *shown, title=title, caption="\n".join(notes) or None)
    for which, label in (("last", "last epoch"), ("best", f"best on {summary['chosen_on']}")):
        values = {name: value for name, value in summary[which].items() if name in shown}
        table.add_row(label, *(text(value, DIGITS.get(name, 2)) for name, value in values.items()))
    return table


def seed_folder(work_dir: Path, seed: int, seeds: Sequence[int]) -> Path:
    """Return the folder of a seed in `repeat`: that of its run, or of a future one.

    A single seed is in `work_dir` itself, several have their own folders. Seeds may be added later.
    """
    own = work_dir / f"seed-{seed}"
    kept = identity.read(work_dir)
    if kept is not None and kept["config"].get("seed") == seed:
        return work_dir
    return own if len(seeds) > 1 or any(work_dir.glob("seed-*")) else work_dir
