"""Comparisons: a table whose rows are configs, trained over the same seeds."""

import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kd_core.catalogue.compose import run_name
from kd_core.errors import UserError, nearest
from kd_core.experiment.cli import NOTHING, comparison_main, parse_options
from kd_core.experiment.command_line import TrainingTool
from kd_core.experiment.parsing import read_experiment
from kd_core.experiment.phases import key_of
from kd_core.experiment.runner import Runner
from kd_core.experiment.seeds import repeat, seed_folder
from kd_core.experiment.shared_teacher import check_shareable, train_sharing_teachers
from kd_core.experiment.spec import Experiment
from kd_core.experiment.tables.products import CURVES, TABLE, Products
from kd_core.experiment.tables.rows import known_rows, read_table
from kd_core.experiment.tables.rows_file import read_rows_file, refuse_overlap, row_files
from kd_core.experiment.tables.students import FILE as LATENCIES
from kd_core.experiment.tables.students import measure_students, read_latencies, require_latency
from kd_core.files.claim import claimed
from kd_core.files.leftovers import remove_leftovers
from kd_core.files.workdir import named_folder
from kd_core.networks.latency import Plan
from kd_core.runtime import distributed
from kd_core.runtime.console import err

_NAMED = 4  # rows of a line
_LONGEST = 100  # characters of a label in a folder's name


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
        catalogue = self.adapter.catalogue
        return comparison_main(self.adapter.title, lambda: self, catalogue=catalogue)(argv)

    def run(self, args: Namespace) -> None:
        """Do what the arguments say; see `kd_core.experiment.parsers.comparison_parser`."""
        with distributed.joined() as device:
            given = read_rows_file(args.rows)
            if args.latency:
                require_latency(self.adapter)
            configs = self.rows(args, given)
            chosen = {label: configs[label] for label in args.only or configs}
            if args.share_teacher:
                check_shareable(list(chosen.values()))
            if line := task_weights_line(chosen):
                distributed.print_note(line)
            if args.dry_run:
                for label, config in chosen.items():
                    err.rule(label)
                    self.tool.dry_run(config, device)
                return
            name = run_name(args.rows or args.configs[-1])
            given_dir = f"runs/{name}-table" if args.work_dir is None else args.work_dir
            work_dir = named_folder(given_dir, "--work-dir")
            with claimed(work_dir):
                remove_leftovers(work_dir.parent / "teachers")
                self._compare(configs, args, self._products(given, work_dir), device)

    def _products(self, given: Mapping[str, Any], work_dir: Path) -> Products:
        titles = given.get("metrics", {})
        headings = {**self.adapter.headings, **titles}
        against = given.get("against", {})
        return Products(work_dir, self.adapter.metric, headings, tuple(titles), against)

    def rows(self, args: Namespace, given: Mapping[str, Any]) -> dict[str, Experiment]:
        """Return every row's experiment by label, also of those that will not run.

        Raises:
            UserError: If there are no rows, or a label that was asked for is not one of them.
        """
        of_line = parse_options(args.cfg_options)
        files = self.tool.sources(args.configs, distributed.print_note, of_line)
        files = files or given.get("files", [])
        rows = row_files(args, given)
        if unknown := [label for label in args.only or [] if label not in rows]:
            raise UserError(f"--only: there is no row {unknown[0]!r}{nearest(unknown[0], rows)}")
        if not rows or not (files or all(own for own, _ in rows.values())):
            raise UserError(NOTHING)
        configs = {}
        for label, (own, options) in rows.items():
            changed, runs = parse_options(options), label in (args.only or rows)
            if runs:
                refuse_overlap(label, changed, of_line)
            note = partial(_note_row, label) if runs else _say_nothing
            changed |= of_line
            experiment = read_experiment(self.adapter, [*files, *own], changed, note=note)
            configs[label] = _without_idle_teacher(experiment)
        return configs

    def _compare(
        self,
        configs: dict[str, Experiment],
        args: Namespace,
        products: Products,
        device: torch.device,
    ) -> None:
        work_dir = products.work_dir
        runner = Runner(self.adapter, device, work_dir.parent)
        earlier, measured = read_table(work_dir / TABLE), read_latencies(work_dir / LATENCIES)
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
                table = products.write(rows, measured)
        if distributed.rank() == 0:
            if args.latency:
                measured = measure_students(self.adapter, rows.results, work_dir, Plan())
                table = products.write(rows, measured)
            print(table)
            err.print(f"results in {work_dir}: table.md, table.csv, table.tex, {CURVES}")


def _without_idle_teacher(experiment: Experiment) -> Experiment:
    """Leave out teachers where nothing is learned from them: they would be trained for nothing."""
    idle = not any(phase.terms for phase in experiment.each_phase)
    return experiment.without_teachers() if idle else experiment


def task_weights_line(configs: Mapping[str, Experiment]) -> str:
    """Return how rows with terms weigh the task's own loss; "" if all do it alike."""
    rows: dict[str, list[str]] = {}
    for label, config in configs.items():
        if config.terms:
            weight = config.distiller.plain().get("task_weight", 1.0)
            shown = f"{weight:g}" if isinstance(weight, int | float) else str(weight)
            rows.setdefault(shown, []).append(label)
    texts = [
        f"{weight} in {', '.join(labels[:_NAMED])}" + " and others" * (len(labels) > _NAMED)
        for weight, labels in rows.items()
    ]
    return f"task_weight differs: {'; '.join(texts)}" if len(rows) > 1 else ""


def _note_row(label: str, line: str) -> None:
    """Print a note on a row, such as the values that its config has for the pair."""
    distributed.print_note(f"{label}: {line}")


def _say_nothing(line: str) -> None:
    """Take a note on a row that does not run."""


def _slug(label: str) -> str:
    return re.sub(r"\W+", "_", label).strip("_").lower()[:_LONGEST]
