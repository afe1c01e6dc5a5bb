"""Comparisons: a table whose rows are configs, trained over the same seeds."""

import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from kd_core import checkpoint, distributed
from kd_core.cli import comparison_parser, run_main
from kd_core.config import load_config, parse_options
from kd_core.console import err
from kd_core.errors import UserError, nearest
from kd_core.run_config import read_config, stage_configs
from kd_core.runner import Runner
from kd_core.seeds import DIGITS, read_results, repeat, seed_folder, spread, spread_of, text
from kd_core.stages import key_of
from kd_core.together import check_shareable, train_together
from kd_core.tool import TrainingTool
from kd_core.workdir import require_writable

Config = dict[str, Any]
Results = dict[str, list[dict[str, Any]]]
"""Of every row, the results of its seeds; see `kd_core.run.run`."""

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
        self.tool, self.kit = tool, tool.kit

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the tool; returns the exit status."""
        return run_main(self._main, argv)

    def _main(self, argv: list[str]) -> None:
        args = comparison_parser(f"Compare runs: {self.kit.title.lower()}.").parse_args(argv)
        with distributed.joined() as device:
            given = load_config(args.rows, known=_NAMES) if args.rows else {}
            configs = self.rows(args, given)
            if args.together:
                check_shareable(list(configs.values()))
            if args.dry_run:
                for label, config in configs.items():
                    err.rule(label)
                    self.tool.dry_run(config, device)
                return
            self._compare(configs, args, given, device)

    def rows(self, args: Namespace, given: Mapping[str, Any]) -> dict[str, Config]:
        """Return every row's checked config by label.

        Raises:
            UserError: If there are no rows, or a label that was asked for is not one of them.
        """
        files = args.configs or given.get("files", [])
        rows = {label: _row(node, label) for label, node in given.get("rows", {}).items()}
        if args.sweep:
            key, *values = args.sweep
            rows |= {f"{key} = {value}": ([], [f"{key}={value}"]) for value in values}
        if unknown := [label for label in args.only or [] if label not in rows]:
            raise UserError(f"--only: there is no row {unknown[0]!r}{nearest(unknown[0], rows)}")
        if not rows or not (files or all(own for own, _ in rows.values())):
            raise UserError("nothing to compare: name CONFIG files, and --rows FILE or --sweep")
        configs = {}
        for label, (own, options) in rows.items():  # all are checked, whichever will run
            changed = parse_options([*options, *args.cfg_options])
            config = read_config(self.kit, [*files, *own], changed)
            configs[label] = _without_idle_teacher(config)
        return {label: configs[label] for label in args.only or rows}

    def _compare(
        self,
        configs: dict[str, Config],
        args: Namespace,
        given: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        name = Path(args.rows or args.configs[-1]).stem
        work_dir = Path(args.work_dir or f"runs/{name}-table")
        require_writable(work_dir)
        results: Results = {}
        runner = Runner(self.kit, device, work_dir.parent)
        # Named by what it depends on: changed settings are never taken for finished ones.
        folders = {k: work_dir / f"{_slug(k)}-{key_of(config)}" for k, config in configs.items()}
        if args.together:
            runs = [
                (config, seed, seed_folder(folders[label], seed, args.seeds))
                for label, config in configs.items()
                for seed in args.seeds
            ]
            train_together(runner, runs, resume=True)
        for number, (label, config) in enumerate(configs.items(), start=1):
            err.rule(f"row {number} of {len(configs)}: {label}")
            folder = folders[label]
            repeat(partial(runner.train_seed, config, resume=True), args.seeds, folder, resume=True)
            results[label] = read_results(folder, args.seeds)
            if distributed.rank() == 0:
                headings, against = given.get("metrics", {}), given.get("against", {})
                table = markdown(results, self.kit.metric, headings, against)
                checkpoint.save_json(results, work_dir / "table.json")
                checkpoint.save_text(table + "\n", work_dir / "table.md")
        if distributed.rank() == 0:
            print(table)
            err.print(f"results in {work_dir}")


def markdown(
    results: Results,
    metric: str,
    others: Mapping[str, str],
    against: Mapping[str, str] | None = None,
) -> str:
    """Return a table in Markdown: last and best epoch, other metrics, difference from another row.

    Differences are between runs of one seed, so that what the seeds do to both rows cancels.

    Args:
        results: Of every row, as many results in the same order of seeds.
        metric: Of the first columns.
        others: Headings of further metrics, of the last epoch.
        against: By label, what a row is compared with: the first row, unless this says another.
    """
    first = next(iter(results))
    chosen = results[first][0]["best"]["chosen_on"]
    title = others.get(metric, metric)
    headings = ["", "seeds", f"{title}, last", f"{title}, best (chosen on {chosen})"]
    further = {name: heading for name, heading in others.items() if name != metric}
    headings += [*further.values(), f"{title}, last: difference"]
    lines = [headings, ["---"] * len(headings)]
    for label, runs in results.items():
        cells = [label, str(len(runs)), _cell(runs, "last", metric), _cell(runs, "best", metric)]
        cells += [_cell(runs, "last", name) for name in further]
        other = (against or {}).get(label, first)
        gaps = [
            run["last"][metric] - reference["last"][metric]
            for run, reference in zip(runs, results.get(other, []), strict=False)
        ]
        cells.append(f"{_signed(gaps)} from {other}" if gaps and other != label else "")
        lines.append(cells)
    rows = [f"| {' | '.join(cells)} |" for cells in lines]
    covers = spread_of([run.get("data_seed") for runs in results.values() for run in runs])
    return "\n".join([*rows, "", covers] if covers else rows)


def _cell(runs: Sequence[Mapping[str, Any]], which: str, metric: str) -> str:
    known = runs[0][which]
    if metric not in known:
        raise UserError(f"metrics: there is no {metric!r}{nearest(metric, known)}")
    return text(spread([run[which][metric] for run in runs]), DIGITS.get(metric, 2))


def _signed(gaps: Sequence[float]) -> str:
    return f"{mean(gaps):+.2f}" + (f" ± {stdev(gaps):.2f}" if len(gaps) > 1 else "")


def _row(node: Any, label: str) -> tuple[list[str], list[str]]:
    """Return the files and options of a row."""
    if not isinstance(node, Mapping):
        return list(node), []
    if unknown := set(node) - {"files", "options"}:
        name = unknown.pop()
        raise UserError(f"rows[{label!r}]: unknown {name!r}{nearest(name, ('files', 'options'))}")
    return list(node.get("files", [])), list(node.get("options", []))


def _without_idle_teacher(config: Config) -> Config:
    """Leave out teachers where nothing is learned from them: they would be trained for nothing."""
    if any(stage.get("distiller", {}).get("terms") for stage in stage_configs(config)):
        return config
    return {name: node for name, node in config.items() if name not in ("teacher", "teachers")}


def _slug(label: str) -> str:
    return re.sub(r"\W+", "_", label).strip("_").lower()
