"""Train a classifier, alone or with teachers: `tools/cls_train.py`."""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from kd_core import checkpoint, distributed, report
from kd_core.cli import run_main, training_parser
from kd_core.config import parse_options, save_config
from kd_core.console import err, out
from kd_core.errors import UserError
from kd_core.run import build_trainer, run, use_channels_last
from kd_core.seeds import repeat, summary_table
from kd_core.stages import run_stages
from kd_core.task import network_of
from kd_core.weights import load_weights
from kd_core.workdir import choose

from kd_cls import demo
from kd_cls.assemble import Assembly, assemble, build_data
from kd_cls.config import read_config, stage_configs
from kd_cls.evaluation import evaluate
from kd_cls.networks import class_count
from kd_cls.synthetic import with_stand_ins
from kd_cls.teachers import build_teachers, unfinished

Config = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return run_main(_main, argv)


def _main(argv: list[str]) -> None:
    parser = training_parser("Train or distil an image classifier; without CONFIG, the demo runs.")
    args = parser.parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = distributed.start(device)
        if not args.configs and not (args.dry_run or args.list_taps):
            demo.main(args, partial(train_seed, device=device))
            return
        needs_training = not (args.eval_only or args.list_taps)
        options = parse_options(args.cfg_options)
        config = read_config(args.configs or demo.CONFIG, options, training=needs_training)
        if args.list_taps:
            list_taps(config, device)
        elif args.dry_run:
            dry_run(config, device)
        elif args.eval_only:
            evaluate_file(config, args, device)
        else:
            train(config, args, device)
    finally:
        distributed.stop()


def train(config: Config, args: Namespace, device: torch.device) -> dict[str, Any]:
    """Train every seed and print the summary."""
    names = [Path(path).stem for path in args.configs]
    work_dir = choose(args.work_dir, names, resume=args.resume)
    seeds = args.seeds or [config.get("seed", 0)]
    one = partial(train_seed, config, device=device, resume=args.resume, teachers=work_dir.parent)
    summary = repeat(one, seeds, work_dir, resume=args.resume)
    if distributed.rank() == 0:
        out.print(summary_table(summary))
        err.print(f"results in {work_dir}")
    return summary


def train_seed(
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
        teachers: Folder that has, or gets, the folder `teachers` of teachers trained by a recipe.
    """
    for later in stage_configs(config)[1:]:  # a misspelt tap must show before the first stage
        _assemble(later, seed, device, teachers, untrained=True)
    stage = partial(_train_stage, seed=seed, device=device, teachers=teachers)
    last = run_stages(config, work_dir, partial(stage, resume=True))
    return stage(last, work_dir, resume=resume)


def _train_stage(
    config: Config, work_dir: Path, *, seed: int, device: torch.device, resume: bool, teachers: Path
) -> dict[str, Any]:
    built = _assemble(config, seed, device, teachers)
    trainer = build_trainer(
        built.parts,
        work_dir,
        optimizer=config["optimizer"],
        schedule=config["schedule"],
        **config["trainer"],
    )
    facts: dict[str, Any] = {"seed": seed, "data_seed": built.data.train.data_seed}
    facts["environment"] = report.environment(device)
    if distributed.rank() == 0:
        checkpoint.save_json(facts["environment"], work_dir / "environment.json")
        save_config({**config, "seed": seed}, work_dir / "config.py")
        _print_tables(built)
    facts["teachers"] = teacher_scores(built)
    return run(trainer, built.parts, resume=resume, facts=facts)


def list_taps(config: Config, device: torch.device) -> None:
    """Print what can be tapped in the last stage's student and teachers, with shapes."""
    config = {**with_stand_ins(stage_configs(config)[-1]), "distiller": {}}  # it may be in error
    built = _assemble(config, 0, device, Path(), untrained=True)
    for role, model in {"student": built.distiller.student, **built.teachers}.items():
        out.print(f"{role}:")
        out.print(report.taps_listing(model, built.sample))


def dry_run(config: Config, device: torch.device) -> None:
    """Build every stage without downloads, print its tables and take one training step."""
    for stage in stage_configs(config):
        config = with_stand_ins(stage)
        built = _assemble(config, config.get("seed", 0), device, Path(), untrained=True)
        _print_tables(built)
        trainer = build_trainer(
            built.parts,
            Path(),
            optimizer=config["optimizer"],
            schedule=config["schedule"],
            **{**config["trainer"], "tensorboard": False, "wandb": None},
        )
        built.distiller.train()
        trainer.meter.update(trainer.step([next(built.parts.loader.epoch(0))]))
        trainer.check_finite()
        out.print("dry run: one training step done")


def evaluate_file(config: Config, args: Namespace, device: torch.device) -> None:
    """Print the metrics of a checkpoint, and its agreement with the teachers."""
    config = stage_configs(config)[-1]
    folder = Path(args.work_dir).parent if args.work_dir else Path("runs")
    if missing := unfinished(config, folder / "teachers"):
        raise UserError(
            f"the teacher that belongs into {missing[0]} is not trained; set teacher.weights, or "
            "--work-dir to the folder of the run"
        )
    built = _assemble(config, config.get("seed", 0), device, folder)
    predictor = built.distiller.predictor()
    load_weights(network_of(predictor), args.eval_only)
    if config.get("trainer", {}).get("channels_last"):
        use_channels_last(built.distiller)
    test = built.data.test.shard(distributed.rank(), distributed.world_size())
    scores = evaluate(predictor, test, built.teachers)
    if distributed.rank() == 0:
        for name, value in scores.items():
            out.print(f"{name:>20} {value:.4f}")


def _assemble(
    config: Config, seed: int, device: torch.device, teachers: Path, *, untrained: bool = False
) -> Assembly:
    def train_teacher(recipe: Config, folder: Path) -> None:
        # With a seed of its own: the teacher must not depend on which student came first.
        own_seed = recipe.get("seed", 0)
        train_seed(recipe, own_seed, folder, device=device, resume=True, teachers=teachers)

    data = build_data(config, seed, device)
    get_teachers = partial(build_teachers, config, seed, data, teachers / "teachers", train_teacher)
    put_together = partial(assemble, config, seed, device, data)
    if not untrained and unfinished(config, teachers / "teachers"):
        # A misspelt tap must show now, not after the hours that the teacher takes.
        put_together(get_teachers(untrained=True))
    return put_together(get_teachers(untrained=untrained))


def teacher_scores(built: Assembly) -> dict[str, Any]:
    """Measure the teachers on the test set, so that a wrong checkpoint is seen at once."""
    scores: dict[str, Any] = {}
    for name, teacher in built.teachers.items():
        if class_count(teacher, built.sample) == built.data.num_classes:
            scores[name] = built.parts.test(teacher)
            text = f"top1 {scores[name]['top1']:.2f} on the test set"
        else:
            text = "knows other classes, so its accuracy cannot be measured here"
        if distributed.rank() == 0:
            err.print(f"teacher {name!r}: {text}")
    return scores


def _print_tables(built: Assembly) -> None:
    models = {"student": built.distiller.student, **built.teachers}
    networks = {
        role: (network_of(model), model.prepare(built.sample["image"][:1]))
        for role, model in models.items()
    }
    err.print(report.models_table(networks))
    if built.distiller.terms:
        err.print(report.terms_table(built.distiller))
