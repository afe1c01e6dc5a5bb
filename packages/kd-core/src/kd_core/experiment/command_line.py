"""The training tool of a task: what runs after its arguments are read."""

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from kd_core.catalogue.compose import Note, concerns_teacher, run_name, sources_of
from kd_core.catalogue.names import Source
from kd_core.config.node import Node
from kd_core.distill.stored_outputs import knows_only_training_images
from kd_core.errors import UserError
from kd_core.experiment import curves, outputs, report
from kd_core.experiment.adapter import TaskAdapter
from kd_core.experiment.builder import build_distiller
from kd_core.experiment.cli import parse_options, training_main
from kd_core.experiment.parsing import Config, known_names, read_experiment
from kd_core.experiment.run import build_trainer
from kd_core.experiment.runner import Runner, print_tables
from kd_core.experiment.seeds import repeat, seed_folder, summary_table
from kd_core.experiment.shared_teacher import check_shareable, train_sharing_teachers
from kd_core.experiment.spec import RANDOM, Experiment
from kd_core.experiment.teachers import unfinished
from kd_core.files.new_files import require_writable
from kd_core.files.workdir import has_run, run_folder
from kd_core.runtime import distributed, json_lines
from kd_core.runtime.console import err, out
from kd_core.training.balance import estimate_balance
from kd_core.training.memory_format import use_channels_last
from kd_core.training.targets.choice import elsewhere

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
        has_demo, catalogue = self.demo is not None, self.adapter.catalogue
        main = training_main(
            self.adapter.title, lambda: self, has_demo=has_demo, catalogue=catalogue
        )
        return main(argv)

    def run(self, args: Namespace) -> None:
        """Do what the arguments say; see `kd_core.experiment.parsers.training_parser`."""
        with distributed.joined() as device:
            if not args.configs and self.demo and not (args.dry_run or args.list_taps):
                self.demo(args, device)
            else:
                self._run_experiment(self._read(args), args, device)

    def _read(self, args: Namespace) -> Experiment:
        """Return the experiment that the arguments name, or that of the demo."""
        needs_training = not (args.eval_only or args.list_taps or args.save_outputs)
        options = parse_options(args.cfg_options)
        named = self.sources(args.configs, distributed.print_note, options, training=needs_training)
        paths = named or self.adapter.demo_config
        if not paths:
            raise UserError("name a CONFIG: the python file of what to train")
        return read_experiment(
            self.adapter, paths, options, training=needs_training, note=distributed.print_note
        )

    def sources(
        self, configs: Sequence[str], note: Note, options: Config, *, training: bool = True
    ) -> list[Source]:
        """Return what files and short names of a command line stand for; see `sources_of`."""
        known, catalogue = known_names(self.adapter), self.adapter.catalogue
        # The others are not needed there: a value enters few files (tests/test_walk.py).
        of_pair = {name: value for name, value in options.items() if concerns_teacher(name)}
        return sources_of(
            configs, catalogue, known=known, note=note, options=of_pair, training=training
        )

    def _run_experiment(
        self, experiment: Experiment, args: Namespace, device: torch.device
    ) -> None:
        if args.list_taps:
            self.list_taps(experiment, device)
        elif args.dry_run:
            if args.share_teacher:
                check_shareable([experiment])
            self.dry_run(experiment, device)
        elif args.save_outputs:
            self.save_outputs(experiment, args, device)
        elif args.eval_only:
            self.evaluate_file(experiment, args, device)
        else:
            self.train(experiment, args, device)

    def train(
        self, experiment: Experiment, args: Namespace, device: torch.device
    ) -> dict[str, Any]:
        """Train every seed and print the summary."""
        names = [run_name(text) for text in args.configs]
        patient = args.auto_resume
        with run_folder(args.work_dir, names, resume=args.resume, patient=patient) as work_dir:
            if args.auto_resume and not has_run(work_dir):
                distributed.print_note(f"{work_dir} has no run to resume: this one starts")
            return self._train_in(work_dir, experiment, args, device)

    def _train_in(
        self, work_dir: Path, experiment: Experiment, args: Namespace, device: torch.device
    ) -> dict[str, Any]:
        seeds = args.seeds or [experiment.seed]
        runner = Runner(self.adapter, device, work_dir.parent)
        if args.share_teacher:
            train_sharing_teachers(
                runner,
                [(experiment, seed, seed_folder(work_dir, seed, seeds)) for seed in seeds],
                resume=args.resume,
            )
        one = partial(runner.train_seed, experiment, resume=args.resume)
        summary = repeat(one, seeds, work_dir, finished=partial(runner.finished, experiment))
        if distributed.rank() == 0:
            curves.draw(work_dir, summary)
            out.print(summary_table(summary))
            err.print(f"results in {work_dir}")
            json_lines.say("result", work_dir=str(work_dir), **summary)
        return summary

    def list_taps(self, experiment: Experiment, device: torch.device) -> None:
        """Print what can be tapped in the last phase's student and teachers, with shapes."""
        last = self._with_stand_ins(experiment.without_products()[-1])
        # Without terms, which may be in error.
        alone = replace(last, terms={}, peers={}, distiller=Node(build_distiller))
        built = Runner(self.adapter, device, Path()).build(alone, 0, untrained=True)
        for role, model in {"student": built.distiller.student, **built.teachers}.items():
            out.print(f"{role}:")
            out.print(report.taps_listing(model, built.sample))

    def dry_run(self, experiment: Experiment, device: torch.device) -> None:
        """Build every phase without downloads, print its tables and take one training step."""
        for phase in map(self._with_stand_ins, experiment.without_products()):
            built = Runner(self.adapter, device, Path()).build(phase, phase.seed, untrained=True)
            print_tables(built)
            with TemporaryDirectory() as folder:
                settings = {**phase.training(Path(folder)), "loggers": []}
                settings["teacher_cache"] = elsewhere(settings.get("teacher_cache", False))
                trainer = build_trainer(built.parts, Path(), **settings)
                precision = settings.get("precision", "fp32")
                estimate_balance(built.distiller, trainer.loader, precision=precision, images=2)
                built.distiller.train()
                trainer.meter.update(trainer.step([next(trainer.loader.epoch(0))]))
                trainer.check_finite()
            out.print(f"recipe: {report.recipe_line(phase)}")
            out.print("dry run: one training step done")

    def _with_stand_ins(self, phase: Experiment) -> Experiment:
        stand_in = self.adapter.model_stand_in
        return replace(
            phase,
            data=self.adapter.data_stand_in(phase.data),
            student=stand_in(phase.student),
            peers={name: stand_in(peer) for name, peer in phase.peers.items()},
        )

    def evaluate_file(self, experiment: Experiment, args: Namespace, device: torch.device) -> None:
        """Print the metrics of a checkpoint, and what the task says of it beside its teachers."""
        last, folder = self._with_teachers(experiment, args)
        # The file has every weight: none need be downloaded only to be overwritten.
        last = replace(last, student=last.student.changed(weights=RANDOM))
        built = Runner(self.adapter, device, folder).build(last, last.seed)
        predictor = built.distiller.predictor()
        self.adapter.load_checkpoint(predictor, Path(args.eval_only), built.data)
        flag = last.trainer.get("channels_last") if last.trainer else None
        built.distiller.eval()
        use_channels_last(built.distiller, flag, sample=built.sample)
        known = {
            name: teacher
            for name, teacher in built.teachers.items()
            if not knows_only_training_images(teacher)
        }
        scores = self.adapter.evaluate(predictor, last, built.data, known)
        if distributed.rank() == 0:
            for name, value in scores.items():
                out.print(f"{name:>20} {value:.4f}")
            json_lines.say("result", checkpoint=args.eval_only, scores=scores)

    def save_outputs(self, experiment: Experiment, args: Namespace, device: torch.device) -> None:
        """Write the logits of the only teacher for all training images; see `save_outputs`."""
        if distributed.is_distributed():
            raise UserError("--save-outputs runs in one process; run it without torchrun")
        require_writable(Path(args.save_outputs).expanduser(), "--save-outputs")
        last, folder = self._with_teachers(experiment, args)
        if len(last.teachers) != 1:
            names = ", ".join(last.teachers) or "none"
            raise UserError(f"--save-outputs wants a config with one teacher; here are {names}")
        alone = replace(last, terms={}, peers={}, distiller=Node(build_distiller))
        built = Runner(self.adapter, device, folder).build(alone, last.seed)
        ((name, teacher),) = built.teachers.items()
        outputs.save_outputs(teacher, built.data, Path(args.save_outputs))
        out.print(f"{args.save_outputs}: logits of {name} for {built.data.num_samples} images")

    def _with_teachers(self, experiment: Experiment, args: Namespace) -> tuple[Experiment, Path]:
        """Return the last phase, and the folder of the run, where its teachers are finished."""
        last = experiment.without_products()[-1]
        folder = Path(args.work_dir).parent if args.work_dir else Path("runs")
        if missing := unfinished(last.teachers, folder / "teachers"):
            raise UserError(
                f"the teacher that belongs into {missing[0]} is not trained; set teacher.weights, "
                "or --work-dir to the folder of the run"
            )
        return last, folder
