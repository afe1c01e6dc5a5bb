"""The training tool of a task: what runs after its arguments are read."""

from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from kd_core.config.options import parse_options
from kd_core.errors import UserError
from kd_core.experiment import report
from kd_core.experiment.adapter import RANDOM, TaskAdapter
from kd_core.experiment.cli import training_main
from kd_core.experiment.run import build_trainer
from kd_core.experiment.runner import Runner, print_tables, with_cache
from kd_core.experiment.seeds import repeat, seed_folder, summary_table
from kd_core.experiment.shared_teacher import check_shareable, train_sharing_teachers
from kd_core.experiment.spec import phase_configs, read_config
from kd_core.experiment.teachers import unfinished
from kd_core.files.workdir import run_folder
from kd_core.runtime import distributed
from kd_core.runtime.console import err, out
from kd_core.training.memory_format import use_channels_last

Config = dict[str, Any]
Demo = Callable[[Namespace, torch.device], None]


class TrainingTool:
    """Trains models of one task, alone or with teachers.

    Args:
        adapter: Of the task.
        demo: Runs without CONFIG; takes the arguments and the device. None asks for a CONFIG.
    """

    def __init__(self, adapter: TaskAdapter, demo: Demo | None = None) -> None:
        self.adapter, self.demo = adapter, demo

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Read the arguments and run the tool; returns the exit status."""
        has_demo = self.demo is not None
        return training_main(self.adapter.title, lambda: self, has_demo=has_demo)(argv)

    def run(self, args: Namespace) -> None:
        """Do what the arguments say; see `kd_core.experiment.parsers.training_parser`."""
        with distributed.joined() as device:
            if not args.configs and self.demo and not (args.dry_run or args.list_taps):
                self.demo(args, device)
            else:
                self._run_config(self._read(args), args, device)

    def _read(self, args: Namespace) -> Config:
        """Return the checked config that the arguments name, or that of the demo."""
        paths = args.configs or self.adapter.demo_config
        if not paths:
            raise UserError("name a CONFIG: the python file of what to train")
        needs_training = not (args.eval_only or args.list_taps)
        options = parse_options(args.cfg_options)
        return read_config(self.adapter, paths, options, training=needs_training, note=print_note)

    def _run_config(self, config: Config, args: Namespace, device: torch.device) -> None:
        if args.list_taps:
            self.list_taps(config, device)
        elif args.dry_run:
            if args.share_teacher:
                check_shareable([config])
            self.dry_run(config, device)
        elif args.eval_only:
            self.evaluate_file(config, args, device)
        else:
            self.train(config, args, device)

    def train(self, config: Config, args: Namespace, device: torch.device) -> dict[str, Any]:
        """Train every seed and print the summary."""
        names = [Path(path).stem for path in args.configs]
        with run_folder(args.work_dir, names, resume=args.resume) as work_dir:
            return self._train_in(work_dir, config, args, device)

    def _train_in(
        self, work_dir: Path, config: Config, args: Namespace, device: torch.device
    ) -> dict[str, Any]:
        seeds = args.seeds or [config.get("seed", 0)]
        runner = Runner(self.adapter, device, work_dir.parent)
        if args.share_teacher:
            train_sharing_teachers(
                runner,
                [(config, seed, seed_folder(work_dir, seed, seeds)) for seed in seeds],
                resume=args.resume,
            )
        one = partial(runner.train_seed, config, resume=args.resume)
        summary = repeat(one, seeds, work_dir, finished=partial(runner.finished, config))
        if distributed.rank() == 0:
            out.print(summary_table(summary))
            err.print(f"results in {work_dir}")
        return summary

    def list_taps(self, config: Config, device: torch.device) -> None:
        """Print what can be tapped in the last phase's student and teachers, with shapes."""
        # Without terms, which may be in error.
        config = {**self.adapter.stand_ins(phase_configs(config)[-1]), "distiller": {}}
        built = Runner(self.adapter, device, Path()).build(config, 0, untrained=True)
        for role, model in {"student": built.distiller.student, **built.teachers}.items():
            out.print(f"{role}:")
            out.print(report.taps_listing(model, built.sample))

    def dry_run(self, config: Config, device: torch.device) -> None:
        """Build every phase without downloads, print its tables and take one training step."""
        for phase in phase_configs(config):
            config = self.adapter.stand_ins(phase)
            built = Runner(self.adapter, device, Path()).build(
                config, config.get("seed", 0), untrained=True
            )
            print_tables(built)
            with TemporaryDirectory() as folder:
                trainer = build_trainer(
                    built.parts,
                    Path(),
                    optimizer=config["optimizer"],
                    schedule=config["schedule"],
                    **{**with_cache(config["trainer"], Path(folder)), "loggers": []},
                )
                built.distiller.train()
                trainer.meter.update(trainer.step([next(trainer.loader.epoch(0))]))
                trainer.check_finite()
            out.print("dry run: one training step done")

    def evaluate_file(self, config: Config, args: Namespace, device: torch.device) -> None:
        """Print the metrics of a checkpoint, and what the task says of it beside its teachers."""
        config = phase_configs(config)[-1]
        folder = Path(args.work_dir).parent if args.work_dir else Path("runs")
        if missing := unfinished(self.adapter, config, folder / "teachers"):
            raise UserError(
                f"the teacher that belongs into {missing[0]} is not trained; set teacher.weights, "
                "or --work-dir to the folder of the run"
            )
        # The file has every weight: none need be downloaded only to be overwritten.
        config = {**config, "student": {**config["student"], "weights": RANDOM}}
        built = Runner(self.adapter, device, folder).build(config, config.get("seed", 0))
        predictor = built.distiller.predictor()
        self.adapter.load_checkpoint(predictor, Path(args.eval_only))
        flag = config.get("trainer", {}).get("channels_last")
        built.distiller.eval()
        use_channels_last(built.distiller, flag, sample=built.sample)
        scores = self.adapter.evaluate(predictor, config, built.data, built.teachers)
        if distributed.rank() == 0:
            for name, value in scores.items():
                out.print(f"{name:>20} {value:.4f}")


def print_note(line: str, *, row: str = "") -> None:
    """Print, once for all processes, which values a config has for its pair.

    Args:
        line: See `kd_core.config.reading.load_config`.
        row: Of a table, the label.
    """
    if distributed.rank() == 0:
        err.print(f"{row}: {line}" if row else line)
