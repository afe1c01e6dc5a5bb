"""The training tool of a task: `tools/cls_train.py`, `tools/reid_train.py`."""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from kd_core import checkpoint, distributed, report
from kd_core.assembly import Assembly, assemble, build_data
from kd_core.cli import run_main, training_parser
from kd_core.config import parse_options, save_config
from kd_core.console import err, out
from kd_core.errors import UserError
from kd_core.kit import RANDOM, Kit
from kd_core.recipes import build_teachers, is_of_teachers, stage_folder, unfinished
from kd_core.run import build_trainer, prefers_channels_last, run, use_channels_last
from kd_core.run_config import read_config, stage_configs
from kd_core.seeds import repeat, summary_table
from kd_core.stages import run_stages
from kd_core.task import network_of
from kd_core.workdir import choose

Config = dict[str, Any]
Demo = Callable[[Namespace, Callable[..., dict[str, Any]]], None]


class TrainingTool:
    """Trains models of one task, alone or with teachers.

    Args:
        kit: Of the task.
        demo: Runs without CONFIG; takes the arguments and `train_seed` for its device.
    """

    def __init__(self, kit: Kit, demo: Demo) -> None:
        self.kit, self.demo = kit, demo

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the tool; returns the exit status."""
        return run_main(self._main, argv)

    def _main(self, argv: list[str]) -> None:
        parser = training_parser(f"{self.kit.title}; without CONFIG, the demo runs.")
        args = parser.parse_args(argv)
        with distributed.joined() as device:
            if not args.configs and not (args.dry_run or args.list_taps):
                self.demo(args, partial(self.train_seed, device=device))
                return
            needs_training = not (args.eval_only or args.list_taps)
            options = parse_options(args.cfg_options)
            paths = args.configs or self.kit.demo_config
            config = read_config(self.kit, paths, options, training=needs_training)
            if args.list_taps:
                self.list_taps(config, device)
            elif args.dry_run:
                self.dry_run(config, device)
            elif args.eval_only:
                self.evaluate_file(config, args, device)
            else:
                self.train(config, args, device)

    def train(self, config: Config, args: Namespace, device: torch.device) -> dict[str, Any]:
        """Train every seed and print the summary."""
        names = [Path(path).stem for path in args.configs]
        work_dir = choose(args.work_dir, names, resume=args.resume)
        seeds = args.seeds or [config.get("seed", 0)]
        one = partial(
            self.train_seed, config, device=device, resume=args.resume, teachers=work_dir.parent
        )
        summary = repeat(one, seeds, work_dir, resume=args.resume)
        if distributed.rank() == 0:
            out.print(summary_table(summary))
            err.print(f"results in {work_dir}")
        return summary

    def train_seed(
        self,
        config: Config,
        seed: int,
        work_dir: Path,
        *,
        device: torch.device,
        resume: bool,
        teachers: Path,
    ) -> dict[str, Any]:
        """Run a config's stages with one seed, in one folder, and return the last one's result.

        Args:
            config: A checked config.
            seed: Of initialisation and dropout, and of the data unless the config has `data_seed`.
            work_dir: Folder of this run.
            device: Where it runs.
            resume: Continue what is in the folder.
            teachers: Folder that has, or gets, the folder `teachers` of those trained by a recipe.
        """
        for later in stage_configs(config)[1:]:  # a misspelt tap must show before the first stage
            self.assemble(later, seed, device, teachers, untrained=True)
        stage = partial(self._train_stage, device=device, teachers=teachers)

        def earlier(settings: Config, folder: Path) -> None:
            # What serves every student must not depend on the seed of the first.
            stage(settings, folder, seed=0 if is_of_teachers(settings) else seed, resume=True)

        place = partial(stage_folder, self.kit, work_dir, teachers / "teachers")
        return stage(run_stages(config, place, earlier), work_dir, seed=seed, resume=resume)

    def _train_stage(
        self,
        config: Config,
        work_dir: Path,
        *,
        seed: int,
        device: torch.device,
        resume: bool,
        teachers: Path,
    ) -> dict[str, Any]:
        built = self.assemble(config, seed, device, teachers)
        trainer = build_trainer(
            built.parts,
            work_dir,
            optimizer=config["optimizer"],
            schedule=config["schedule"],
            **_with_cache(config["trainer"], teachers / "teachers"),
        )
        facts: dict[str, Any] = {"seed": seed, "data_seed": built.data.train.data_seed}
        facts["environment"] = report.environment(device)
        if distributed.rank() == 0:
            checkpoint.save_json(facts["environment"], work_dir / "environment.json")
            save_config({**config, "seed": seed}, work_dir / "config.py")
            _print_tables(built)
        facts["teachers"] = self.teacher_scores(built)
        return run(trainer, built.parts, resume=resume, facts=facts)

    def list_taps(self, config: Config, device: torch.device) -> None:
        """Print what can be tapped in the last stage's student and teachers, with shapes."""
        # Without terms, which may be in error.
        config = {**self.kit.stand_ins(stage_configs(config)[-1]), "distiller": {}}
        built = self.assemble(config, 0, device, Path(), untrained=True)
        for role, model in {"student": built.distiller.student, **built.teachers}.items():
            out.print(f"{role}:")
            out.print(report.taps_listing(model, built.sample))

    def dry_run(self, config: Config, device: torch.device) -> None:
        """Build every stage without downloads, print its tables and take one training step."""
        for stage in stage_configs(config):
            config = self.kit.stand_ins(stage)
            built = self.assemble(config, config.get("seed", 0), device, Path(), untrained=True)
            _print_tables(built)
            with TemporaryDirectory() as folder:
                trainer = build_trainer(
                    built.parts,
                    Path(),
                    optimizer=config["optimizer"],
                    schedule=config["schedule"],
                    **{
                        **_with_cache(config["trainer"], Path(folder)),
                        "tensorboard": False,
                        "wandb": None,
                    },
                )
                built.distiller.train()
                trainer.meter.update(trainer.step([next(trainer.loader.epoch(0))]))
                trainer.check_finite()
            out.print("dry run: one training step done")

    def evaluate_file(self, config: Config, args: Namespace, device: torch.device) -> None:
        """Print the metrics of a checkpoint, and what the task says of it beside its teachers."""
        config = stage_configs(config)[-1]
        folder = Path(args.work_dir).parent if args.work_dir else Path("runs")
        if missing := unfinished(self.kit, config, folder / "teachers"):
            raise UserError(
                f"the teacher that belongs into {missing[0]} is not trained; set teacher.weights, "
                "or --work-dir to the folder of the run"
            )
        # The file has every weight: none need be downloaded only to be overwritten.
        config = {**config, "student": {**config["student"], "weights": RANDOM}}
        built = self.assemble(config, config.get("seed", 0), device, folder)
        predictor = built.distiller.predictor()
        self.kit.load_checkpoint(predictor, Path(args.eval_only))
        if config.get("trainer", {}).get("channels_last", prefers_channels_last(device)):
            use_channels_last(built.distiller)
        scores = self.kit.evaluate(predictor, config, built.data, built.teachers)
        if distributed.rank() == 0:
            for name, value in scores.items():
                out.print(f"{name:>20} {value:.4f}")

    def assemble(
        self,
        config: Config,
        seed: int,
        device: torch.device,
        teachers: Path,
        *,
        untrained: bool = False,
    ) -> Assembly:
        """Build what a config describes, training teachers by their recipes if need be.

        Args:
            config: A checked config, without stages.
            seed: Of initialisation and dropout.
            device: Where everything runs.
            teachers: Folder that has, or gets, the folder `teachers`.
            untrained: Neither load nor train the teachers' weights.
        """

        def train_teacher(recipe: Config, folder: Path) -> None:
            # With a seed of its own: the teacher must not depend on which student came first.
            own_seed = recipe.get("seed", 0)
            self.train_seed(recipe, own_seed, folder, device=device, resume=True, teachers=teachers)

        def data_of(recipe: Mapping[str, Any]) -> Any:
            same = recipe["data"] == config["data"]
            return data if same else build_data(recipe, seed, torch.device("cpu"))

        kit, folder = self.kit, teachers / "teachers"
        data = build_data(config, seed, device)
        get_teachers = partial(build_teachers, kit, config, seed, data, folder, train_teacher)
        put_together = partial(assemble, kit, config, seed, device, data)
        if not untrained and unfinished(kit, config, folder):
            # A misspelt tap must show now, not after the hours that the teacher takes; and so must
            # classes that differ from those of the teacher's own data.
            put_together(get_teachers(untrained=True, own_data=data_of))
        return put_together(get_teachers(untrained=untrained))

    def teacher_scores(self, built: Assembly) -> dict[str, Any]:
        """Measure the teachers on the test set, so that a wrong checkpoint is seen at once."""
        scores: dict[str, Any] = {}
        for name, teacher in built.teachers.items():
            found = self.kit.score_teacher(teacher, built.sample, built.data, built.parts.test)
            if found is None:
                text = "knows other classes, so its accuracy cannot be measured here"
            else:
                scores[name] = found
                text = f"{self.kit.metric} {found[self.kit.metric]:.2f} on the test set"
            if distributed.rank() == 0:
                err.print(f"teacher {name!r}: {text}")
        return scores


def _with_cache(trainer: Config, folder: Path) -> Config:
    """Let `teacher_cache=True` mean this folder."""
    return (
        {**trainer, "teacher_cache": str(folder)}
        if trainer.get("teacher_cache") is True
        else trainer
    )


def _print_tables(built: Assembly) -> None:
    models = {"student": built.distiller.student, **built.teachers}
    networks = {
        role: (network_of(model), model.prepare(built.sample["image"][:1]))
        for role, model in models.items()
    }
    err.print(report.models_table(networks))
    if built.distiller.terms:
        err.print(report.terms_table(built.distiller))
