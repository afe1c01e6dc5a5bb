"""Train a classifier, alone or with teachers: `tools/cls_train.py`."""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from kd_core import checkpoint, distributed, report
from kd_core.cli import run_main, training_parser
from kd_core.config import load_config, parse_options, save_config
from kd_core.console import err, out
from kd_core.run import build_trainer, run, use_channels_last
from kd_core.seeds import repeat, summary_table
from kd_core.stages import run_stages
from kd_core.task import network_of
from kd_core.weights import load_weights
from kd_core.workdir import choose

from kd_cls import demo
from kd_cls.assemble import NAMES, Assembly, assemble, build_data, check_config
from kd_cls.evaluation import evaluate
from kd_cls.networks import class_count
from kd_cls.synthetic import with_synthetic_data
from kd_cls.teachers import build_teachers, unfinished

Config = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return run_main(_main, argv)


def _main(argv: list[str]) -> int | None:
    parser = training_parser("Train or distil an image classifier; without CONFIG, the demo runs.")
    args = parser.parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not args.configs:
        demo.main(args, partial(train_seed, device=device))
        return 0
    config = load_config(args.configs, parse_options(args.cfg_options), known=NAMES)
    check_config(config, training=not (args.eval_only or args.list_taps))
    device = distributed.start(device)
    try:
        if args.dry_run or args.list_taps or args.eval_only:
            look(config, args, device)
        else:
            train(config, args, device)
    finally:
        distributed.stop()
    return 0


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
    stage = partial(_train_stage, seed=seed, device=device, teachers=teachers)
    last = run_stages(config, work_dir, partial(stage, resume=True))
    return stage(last, work_dir, resume=resume)


def _train_stage(
    config: Config, work_dir: Path, *, seed: int, device: torch.device, resume: bool, teachers: Path
) -> dict[str, Any]:
    check_config(config)
    built = _assemble(config, seed, device, teachers)
    settings = dict(config.get("trainer", {}))
    trainer = build_trainer(
        built.parts,
        work_dir,
        optimizer=config["optimizer"],
        schedule=config["schedule"],
        **settings,
    )
    facts: dict[str, Any] = {"seed": seed, "data_seed": config.get("data_seed", seed)}
    facts["environment"] = report.environment(device)
    if distributed.rank() == 0:
        save_config({**config, "seed": seed}, _make(work_dir) / "config.py")
        checkpoint.save_json(facts["environment"], work_dir / "environment.json")
        _print_tables(built)
    facts["teachers"] = teacher_scores(built)
    return run(trainer, built.parts, resume=resume, facts=facts)


def look(config: Config, args: Namespace, device: torch.device) -> None:
    """Do what needs no training: --dry-run, --list-taps, --eval-only."""
    if args.dry_run or args.list_taps:
        config = with_synthetic_data(config)
    folder = Path(args.work_dir or "runs")
    built = _assemble(config, config.get("seed", 0), device, folder, untrained=not args.eval_only)
    if args.list_taps:
        for model in (built.distiller.student, *built.teachers.values()):
            out.print(report.taps_listing(model, built.sample))
    elif args.dry_run:
        _print_tables(built)
        _one_step(config, built, folder)
        out.print("dry run: one training step done")
    else:
        predictor = built.distiller.predictor()
        load_weights(network_of(predictor), args.eval_only)
        if config.get("trainer", {}).get("channels_last"):
            use_channels_last(built.distiller)
        scores = evaluate(predictor, built.data.test, built.teachers)
        for name, value in scores.items():
            out.print(f"{name:>20} {value:.4f}")


def _one_step(config: Config, built: Assembly, folder: Path) -> None:
    settings = {**config.get("trainer", {}), "tensorboard": False, "wandb": None}
    trainer = build_trainer(
        built.parts,
        folder,
        optimizer=config["optimizer"],
        schedule=config["schedule"],
        **settings,
    )
    built.distiller.train()
    trainer.losses = trainer.step([next(built.parts.loader.epoch(0))])
    trainer.meter.update(trainer.losses)
    trainer.check_finite()


def _assemble(
    config: Config, seed: int, device: torch.device, teachers: Path, *, untrained: bool = False
) -> Assembly:
    data = build_data(config, seed, device)
    train_teacher = partial(_train_stage, seed=seed, device=device, resume=True, teachers=teachers)
    get_teachers = partial(build_teachers, config, data, teachers / "teachers", train_teacher)
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
            err.print(f"teacher {name!r} on the test set: top1 {scores[name]['top1']:.2f}")
        else:
            err.print(
                f"teacher {name!r} knows other classes, so its accuracy cannot be measured here"
            )
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


def _make(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
