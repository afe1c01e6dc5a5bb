"""Comparisons: a table whose rows are configs, trained over the same seeds."""

import re
from argparse import Namespace
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from kd_core.config.reading import load_config
from kd_core.errors import UserError, nearest
from kd_core.experiment.cli import comparison_main, parse_options
from kd_core.experiment.command_line import TrainingTool, print_note
from kd_core.experiment.parsing import read_experiment
from kd_core.experiment.phases import key_of
from kd_core.experiment.runner import Runner
from kd_core.experiment.seeds import DIGITS, repeat, seed_folder, spread, spread_of, stops_of, text
from kd_core.experiment.shared_teacher import check_shareable, train_sharing_teachers
from kd_core.experiment.spec import Experiment
from kd_core.experiment.table_rows import Results, known_rows, read_table
from kd_core.files import checkpoint
from kd_core.files.claim import claimed
from kd_core.files.leftovers import remove_leftovers
from kd_core.files.workdir import named_folder
from kd_core.runtime import distributed
from kd_core.runtime.console import err

_TABLE = "table.json"
_EARLIER = "† finished before, with other settings or seeds than asked for now: not compared"
_NAMES = ("files", "rows", "metrics", "against")


class ComparisonTool:
    """Trains the rows of a table and prints it.

    A table's file has `rows`: by label the config files that a row adds to those of the command
    line, or a dict of such `files` and of `options`. It may have `files` for a command line without
    any; `metrics`, the headings of columns by metric; and `against`, by label the row that a row is
    compared with, where that is not the first.

    Args:
        tool: Trains one config.
    """

    def __init__(self, tool: TrainingTool) -> None:
        self.tool, self.adapter = tool, tool.adapter

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Read the arguments and run the tool; returns the exit status."""
        return comparison_main(self.adapter.title, lambda: self)(argv)

    def run(self, args: Namespace) -> None:
        """Do what the arguments say; see `kd_core.experiment.parsers.comparison_parser`."""
        with distributed.joined() as device:
            given = load_config(args.rows, known=_NAMES) if args.rows else {}
            configs = self.rows(args, given)
            chosen = {label: configs[label] for label in args.only or configs}
            if args.share_teacher:
                check_shareable(list(chosen.values()))
            if args.dry_run:
                for label, config in chosen.items():
                    err.rule(label)
                    self.tool.dry_run(config, device)
                return
            name = Path(args.rows or args.configs[-1]).stem
            given_dir = f"runs/{name}-table" if args.work_dir is None else args.work_dir
            work_dir = named_folder(given_dir, "--work-dir")
            with claimed(work_dir):
                remove_leftovers(work_dir.parent / "teachers")
                self._compare(configs, args, given, device, work_dir)

    def rows(self, args: Namespace, given: Mapping[str, Any]) -> dict[str, Experiment]:
        """Return every row's experiment by label, whichever will run.

        Raises:
            UserError: If there are no rows, or a label that was asked for is not one of them.
        """
        files = args.configs or given.get("files", [])
        rows = _rows_asked_for(args, given)
        if unknown := [label for label in args.only or [] if label not in rows]:
            raise UserError(f"--only: there is no row {unknown[0]!r}{nearest(unknown[0], rows)}")
        if not rows or not (files or all(own for own, _ in rows.values())):
            raise UserError("nothing to compare: name CONFIG files, and --rows FILE or --sweep")
        configs = {}
        for label, (own, options) in rows.items():
            changed = parse_options([*options, *args.cfg_options])
            note = partial(print_note, row=label) if label in (args.only or rows) else _say_nothing
            experiment = read_experiment(self.adapter, [*files, *own], changed, note=note)
            configs[label] = _without_idle_teacher(experiment)
        return configs

    def _compare(
        self,
        configs: dict[str, Experiment],
        args: Namespace,
        given: Mapping[str, Any],
        device: torch.device,
        work_dir: Path,
    ) -> None:
        runner = Runner(self.adapter, device, work_dir.parent)
        earlier = read_table(work_dir / _TABLE)
        # Named by what it depends on: changed settings are never taken for finished ones.
        keys = {label: key_of(config.plain()) for label, config in configs.items()}
        folders = {label: work_dir / f"{_slug(label)}-{key}" for label, key in keys.items()}
        chosen = list(dict.fromkeys(args.only or configs))
        if args.share_teacher:
            runs = {  # by folder: rows may be the same under two labels
                folder: (configs[label], seed, folder)
                for label in chosen
                for seed in args.seeds
                for folder in [seed_folder(folders[label], seed, args.seeds)]
            }
            train_sharing_teachers(runner, list(runs.values()), resume=True)
        for number, label in enumerate(chosen, start=1):
            err.rule(f"row {number} of {len(chosen)}: {label}")
            train = partial(runner.train_seed, configs[label], resume=True)
            finished = partial(runner.finished, configs[label])
            repeat(train, args.seeds, folders[label], finished=finished)
            if distributed.rank() == 0:
                rows = known_rows(folders, args.seeds, earlier)
                headings, against = given.get("metrics", {}), given.get("against", {})
                table = markdown(rows.results, self.adapter.metric, headings, against, rows.earlier)
                checkpoint.save_json(rows.results, work_dir / _TABLE)
                checkpoint.save_text(table + "\n", work_dir / "table.md")
        if distributed.rank() == 0:
            print(table)
            err.print(f"results in {work_dir}")


def markdown(
    results: Results,
    metric: str,
    others: Mapping[str, str],
    against: Mapping[str, str] | None = None,
    earlier: Collection[str] = (),
) -> str:
    """Return a table in Markdown: last and best epoch, other metrics, difference from another row.

    Differences are between runs of one seed, so that what the seeds do to both rows cancels.

    Args:
        results: Of every row, as many results in the same order of seeds.
        metric: Of the first columns.
        others: Headings of further metrics, of the last epoch.
        against: By label, what a row is compared with: the first row, unless this says another.
        earlier: Rows that are marked and not compared, since other settings or seeds made them.
    """
    first = next((label for label in results if label not in earlier), next(iter(results)))
    chosen = results[first][0]["best"]["chosen_on"]
    title = others.get(metric, metric)
    headings = ["", "seeds", f"{title}, last", f"{title}, best (chosen on {chosen})"]
    further = {name: heading for name, heading in others.items() if name != metric}
    headings += [*further.values(), f"{title}, last: difference"]
    lines = [headings, ["---"] * len(headings)]
    for label, runs in results.items():
        old = label in earlier
        columns = [("last", metric), ("best", metric), *(("last", name) for name in further)]
        cells = [f"{label} †" if old else label, str(len(runs))]
        cells += [_cell(runs, which, name, lenient=old) for which, name in columns]
        other = (against or {}).get(label, first)
        comparable = other in results and not {label, other} & set(earlier)
        gaps = [
            run["last"][metric] - reference["last"][metric]
            for run, reference in zip(runs, results[other] if comparable else [], strict=False)
        ]
        cells.append(f"{_signed(gaps)} from {other}" if gaps and other != label else "")
        lines.append(cells)
    rows = [f"| {' | '.join(cells)} |" for cells in lines]
    compared = [runs for label, runs in results.items() if label not in earlier]
    notes = [spread_of([run.get("data_seed") for runs in compared for run in runs])]
    stops = {label: stops_of(runs) for label, runs in results.items()}
    notes += [f"{label}: {stop}" for label, stop in stops.items() if stop]
    notes += [_EARLIER] if earlier else []
    return "\n".join([*rows, *("\n" + note for note in notes if note)])


def _cell(
    runs: Sequence[Mapping[str, Any]], which: str, metric: str, *, lenient: bool = False
) -> str:
    """Return mean and deviation of a metric; with `lenient`, nothing where it was not measured."""
    values = [run[which].get(metric) for run in runs]
    if not all(isinstance(value, int | float) for value in values):
        if lenient:
            return ""
        raise UserError(f"metrics: there is no {metric!r}{nearest(metric, runs[0][which])}")
    return text(spread(values), DIGITS.get(metric, 2))


def _signed(gaps: Sequence[float]) -> str:
    return f"{mean(gaps):+.2f}" + (f" ± {stdev(gaps):.2f}" if len(gaps) > 1 else "")


def _rows_asked_for(
    args: Namespace, given: Mapping[str, Any]
) -> dict[str, tuple[list[str], list[str]]]:
    """Return the files and options of every row, of the table's file and of `--sweep`."""
    rows = {label: _row(node, label) for label, node in given.get("rows", {}).items()}
    if args.sweep:
        key, *values = args.sweep
        rows |= {f"{key} = {value}": ([], [f"{key}={value}"]) for value in values}
    return rows


def _row(node: Any, label: str) -> tuple[list[str], list[str]]:
    """Return the files and options of a row."""
    if not isinstance(node, Mapping):
        return list(node), []
    if unknown := set(node) - {"files", "options"}:
        name = unknown.pop()
        raise UserError(f"rows[{label!r}]: unknown {name!r}{nearest(name, ('files', 'options'))}")
    return list(node.get("files", [])), list(node.get("options", []))


def _without_idle_teacher(experiment: Experiment) -> Experiment:
    """Leave out teachers where nothing is learned from them: they would be trained for nothing."""
    idle = not any(phase.terms for phase in experiment.each_phase)
    return experiment.without_teachers() if idle else experiment


def _say_nothing(line: str) -> None:
    """Take a note on a row that does not run."""


def _slug(label: str) -> str:
    return re.sub(r"\W+", "_", label).strip("_").lower()
