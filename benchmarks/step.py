"""Cost of a distillation step: ours in several settings against a bare loop, in one process.

The bare loop has ten lines: teacher forward under no_grad, student forward and backward, SGD, on
images that are normalised already, without a loss from the teacher. Ours is the trainer with
everything a run of the tools has: augmentation, normalisation, taps, terms, meters, finiteness
checks. All alternate, each with a pass over two batches; times are medians.

python benchmarks/step.py
python benchmarks/step.py --method rkd --pair vgg13_vgg8 --ways bare default bf16
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from kd_cls.adapter import ADAPTER
from kd_core import Hook
from kd_core.data.augment import CropFlip
from kd_core.data.loader import Loader
from kd_core.experiment.parsing import read_experiment
from kd_core.experiment.report import environment
from kd_core.experiment.run import build_trainer
from kd_core.experiment.runner import Runner
from kd_core.experiment.spec import Experiment
from kd_core.networks.task import Batch, network_of
from kd_core.training.shared_teacher import SharedLoader, WithTeachers, shared_teachers
from kd_core.training.trainer import Trainer
from rich.progress import track
from torch import nn

CONFIGS = Path(__file__).parents[1] / "configs/cls"
BATCHES = 2  # of a turn
STUDENTS = 5  # that share a teacher

PLAIN = {"channels_last": False, "accelerate_teachers": False, "capture": False}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "bare": ("a loop by hand, fp32", {}),
    "bare-bf16": ("a loop by hand, bf16 autocast", {}),
    "plain": ("ours, fp32, nothing made faster", PLAIN),
    "default": ("ours, fp32, as it is", {}),
    "bf16": ("ours, bf16", {"precision": "bf16"}),
    "cached": ("ours, fp32, teacher from a warm cache", {"teacher_cache": True}),
    "cached-bf16": (
        "ours, bf16, teacher from a warm cache",
        {"precision": "bf16", "teacher_cache": True},
    ),
    "together": (f"ours, fp32, {STUDENTS} students share a teacher; for each", {}),
    "eager": ("ours, fp32, without CUDA graph", {"capture": False}),
    "eager-bf16": ("ours, bf16, without CUDA graph", {"precision": "bf16", "capture": False}),
    "compiled": ("ours, fp32, torch.compile", {"compile": True}),
}
ON_CUDA = ("eager", "eager-bf16")
ON_REQUEST = ("compiled",)  # minutes before its first step
Turn = Callable[[], object]


class Repeated:
    """The first epoch of a loader, again and again."""

    def __init__(self, loader: Loader) -> None:
        self.loader, self.batch_size = loader, loader.batch_size

    def __len__(self) -> int:
        return 10**9

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield batches forever."""
        while True:
            yield from self.loader.epoch(0)


def main() -> None:
    """Print a table; write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pair", default="resnet32x4_resnet8x4", help="of configs/cls/pairs")
    parser.add_argument("--method", default="dkd", help="of configs/cls/methods")
    parser.add_argument("--data", default="cifar100", help="of configs/cls/data, drawn at random")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=None)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3, help="turns before the first that counts")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    left_out = ON_REQUEST if device.type == "cuda" else (*ON_REQUEST, *ON_CUDA)
    ways = args.ways or [way for way in WAYS if way not in left_out]
    with tempfile.TemporaryDirectory() as folder:
        turns = {way: _turn(way, args, Path(folder), device) for way in ways}
        times = measure(turns, args.repeats, args.warmup)
    rows = [row_of(way, times, device) for way in ways]
    shown = {key: getattr(args, key) for key in ("data", "pair", "method", "batch_size", "repeats")}
    print(f"{shown['pair']}, {shown['method']}, batch {shown['batch_size']}, {device.type}\n")
    print(table_of(rows))
    if args.out:
        result = {**shown, "ways": rows, "environment": environment(device)}
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _turn(way: str, args: argparse.Namespace, folder: Path, device: torch.device) -> Turn:
    """Return what takes a way's turn: as many steps as there are batches."""
    runner, config = runner_and_config(args, args.data, folder, device, BATCHES * args.batch_size)
    if way.startswith("bare"):
        return by_hand(runner, config, torch.bfloat16 if way == "bare-bf16" else None)
    if way == "together":
        return _together(runner, config, folder)
    trainer = make_trainer(runner, config, folder / way, WAYS[way][1])
    return steps_of(trainer)


def runner_and_config(
    args: argparse.Namespace, data: str, folder: Path, device: torch.device, images: int
) -> tuple[Runner, Experiment]:
    """Return what builds a run, and the run with so many random images."""
    parts = (f"data/{data}", f"pairs/{args.pair}", f"methods/{args.method}")
    experiment = read_experiment(ADAPTER, [CONFIGS / f"{part}.py" for part in parts])
    data = ADAPTER.data_stand_in(experiment.data)
    student = ADAPTER.model_stand_in(experiment.student)
    augment = data.get("augment", [CropFlip()])
    sizes = {"batch_size": args.batch_size, "num_train": images, "num_test": 2}
    data = data.changed(**sizes, augment=augment)
    return Runner(ADAPTER, device, folder), replace(experiment, data=data, student=student)


def make_trainer(
    runner: Runner, config: Experiment, folder: Path, options: dict[str, Any]
) -> Trainer:
    """Return a trainer with these options, whose teacher is untrained."""
    built = runner.build(config, 0, untrained=True)
    settings = {**config.training(), "loggers": [], **options}
    if settings.get("teacher_cache"):
        settings["teacher_cache"] = str(folder / "cache")
    trainer = build_trainer(built.parts, folder, **settings)
    trainer.hooks = [Hook()]
    return trainer


def steps_of(trainer: Trainer) -> Turn:
    """Return the turn of a trainer."""
    trainer.loader = Repeated(trainer.loader)
    steps = trainer.steps()
    return lambda: [next(steps) for _ in range(BATCHES)]


def _together(runner: Runner, config: Experiment, folder: Path) -> Turn:
    names = [folder / f"together-{number}" for number in range(STUDENTS)]
    alone = {"accelerate_teachers": False}  # they do not run theirs
    trainers = [make_trainer(runner, config, name, alone) for name in names]
    distillers = [trainer.distiller for trainer in trainers]
    for distiller in distillers[1:]:
        distiller.teachers["teacher"].model = distillers[0].teachers["teacher"].model
    loader = trainers[0].loader
    teachers = shared_teachers(distillers, loader.sample(2), "fp32")  # type: ignore[attr-defined]
    shared = SharedLoader(Repeated(WithTeachers(loader, teachers)))
    every = []
    for trainer in trainers:
        trainer.loader = shared
        every.append(trainer.steps())
    return lambda: [next(steps) for _ in range(BATCHES) for steps in every]


def by_hand(runner: Runner, config: Experiment, dtype: torch.dtype | None) -> Turn:
    """Return the turn of a loop by hand: plain SGD, whose arguments are the config's."""
    built = runner.build(config, 0, untrained=True)
    student = network_of(built.distiller.student).train()
    teacher = network_of(built.distiller.teachers["teacher"].model).eval()
    batches = [
        (built.distiller.student.prepare(batch["image"]), batch["label"])  # type: ignore[operator]
        for batch in built.parts.loader.epoch(0)
    ]
    arguments = {key: value for key, value in config.optimizer.items() if key != "type"}
    optimizer = torch.optim.SGD(student.parameters(), **arguments)
    autocast = partial(torch.autocast, runner.device.type, dtype, enabled=dtype is not None)

    def turn() -> None:
        for image, label in batches:
            with autocast():
                with torch.no_grad():
                    teacher(image)
                output = student(image)
                logits = output[0] if isinstance(output, tuple) else output
                loss = nn.functional.cross_entropy(logits, label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return turn


def measure(turns: dict[str, Turn], repeats: int, warmup: int) -> dict[str, list[float]]:
    """Return milliseconds of a step for every turn that counts."""
    times: dict[str, list[float]] = {way: [] for way in turns}
    for number in track(range(-warmup, repeats), "measuring", transient=True):
        for way, turn in turns.items():
            began = _now()
            turn()
            steps = BATCHES * (STUDENTS if way == "together" else 1)
            if number >= 0:
                times[way].append(1e3 * (_now() - began) / steps)
    return times


def row_of(way: str, times: dict[str, list[float]], device: torch.device) -> dict[str, Any]:
    """Return a way's median, and that of its ratio to the bare loops of the same turn."""
    row = {"way": way, "what": WAYS[way][0], "ms": round(median(times[way]), 3)}
    for bare in ("bare", "bare-bf16"):
        if bare in times:
            ratios = [ours / by_hand for ours, by_hand in zip(times[way], times[bare], strict=True)]
            row[f"to_{bare}"] = round(median(ratios), 3)
    return row


def table_of(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    ratios = [key for key in ("to_bare", "to_bare-bf16") if key in rows[0]]
    names = {"to_bare": "of bare fp32", "to_bare-bf16": "of bare bf16"}
    lines = [["way", "", "ms", *(names[key] for key in ratios)]]
    lines += [["---"] * len(lines[0])]
    for row in rows:
        numbers = [f"{row['ms']:.1f}", *(f"{row[key]:.2f}" for key in ratios)]
        lines.append([row["way"], row["what"], *numbers])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
