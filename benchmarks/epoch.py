"""Whole epochs: how long 240 take, and on a GPU, how much there is around the captured step.

Random images of CIFAR-100's number and shape; no evaluation, checkpoints or logs. `cached` has a
warm cache: its epochs repeat the first, whose views are all there. A replay is the recorded step
alone, on tensors that stay; what an epoch takes beyond its replays is the loader, the copies into
the recording's inputs, learning rates and meters.

python benchmarks/epoch.py --epochs 10
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import step
import torch
from kd_core import Hook
from kd_core.data.loader import Loader
from kd_core.experiment.report import environment
from kd_core.networks.task import Batch
from kd_core.training.cuda_graph import CapturedStep
from kd_core.training.trainer import Trainer

EPOCHS = 240  # of the recipe that published figures have
WAYS = {
    "online-fp32": {},
    "online-bf16": {"precision": "bf16"},
    "cached-fp32": {"teacher_cache": True},
    "cached-bf16": {"precision": "bf16", "teacher_cache": True},
}


class FirstEpoch:
    """A loader whose epochs are all the first."""

    def __init__(self, loader: Loader) -> None:
        self.loader, self.batch_size = loader, loader.batch_size

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of the first epoch."""
        return self.loader.epoch(0, start)


def main() -> None:
    """Print a table; write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pair", default="resnet32x4_resnet8x4", help="of configs/cls/pairs")
    parser.add_argument("--method", default="dkd", help="of configs/cls/methods")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=10, help="to measure, after a first one")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--replays", type=int, default=500)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"| way | s an epoch | replay, ms | epoch / replays | {EPOCHS} epochs, min |")
    print("|---|---|---|---|---|", flush=True)
    rows = []
    for way in args.ways:
        with tempfile.TemporaryDirectory() as folder:
            rows.append({"way": way, **_measure(WAYS[way], args, Path(folder), device)})
        print(_line(rows[-1]), flush=True)
    if args.out:
        result = {"ways": rows, "environment": environment(device)}
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _measure(
    options: dict[str, Any], args: argparse.Namespace, folder: Path, device: torch.device
) -> dict[str, Any]:
    runner, config = step.runner_and_config(args, "cifar100", folder, device, args.images)
    trainer = step.make_trainer(runner, config, folder, {**options, "epochs": args.epochs + 1})
    trainer.loader, trainer.hooks = FirstEpoch(trainer.loader), [Hook()]
    trainer.train()
    ends = [record["seconds"] for record in trainer.history]
    seconds = median(after - before for before, after in pairwise(ends))
    row = {"seconds": seconds, "minutes_of_240": EPOCHS * seconds / 60}
    replay = _replay_ms(trainer, args.replays)
    if replay is not None:
        row |= {"replay_ms": replay, "ratio": 1e3 * seconds / replay / trainer.steps_per_epoch}
    return row


def _replay_ms(trainer: Trainer, count: int) -> float | None:
    if not isinstance(trainer.step, CapturedStep) or not trainer.step.replays:
        return None
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    for _ in range(count):
        trainer.step.replays[0]()
    ended.record()
    torch.cuda.synchronize()
    return began.elapsed_time(ended) / count


def _line(row: dict[str, Any]) -> str:
    replay = f"{row['replay_ms']:.3f} | {row['ratio']:.2f}" if "ratio" in row else "none | "
    return f"| {row['way']} | {row['seconds']:.2f} | {replay} | {row['minutes_of_240']:.2f} |"


if __name__ == "__main__":
    main()
