"""Cost of a distillation step: our trainer with DKD against a bare loop, interleaved in one run.

(a) bare loop: teacher forward under no_grad, student forward and backward, SGD; no loss of ours.
(b) ours: `Trainer` with DKD, everything included: normalisation, taps, terms, meters, hooks.

python benchmarks/step.py --pairs 40
"""

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from kd_cls.classifier import Classifier
from kd_cls.models import build_model
from kd_core import Distiller, Hook, Term, Trainer
from kd_core.criteria.dkd import DKD
from kd_core.optimizer import build_optimizer
from kd_core.report import environment
from kd_core.schedule import multi_step
from kd_core.step import TrainStep
from torch import nn

CLASSES = 100
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
OPTIMIZER = {"type": "torch.optim.SGD", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}


class BareLoop:
    """What anybody would write in ten lines."""

    def __init__(self, teacher: nn.Module, student: nn.Module) -> None:
        self.teacher, self.student = teacher.eval(), student.train()
        arguments = {key: value for key, value in OPTIMIZER.items() if key != "type"}
        self.optimizer = torch.optim.SGD(student.parameters(), **arguments)

    def step(self, image: torch.Tensor, label: torch.Tensor) -> None:
        """Take one step on a normalised batch."""
        with torch.no_grad():
            self.teacher(image)
        loss = nn.functional.cross_entropy(self.student(image), label)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class Interleaved:
    """A loader that times a bare step before each batch, and the trainer's step after it."""

    def __init__(
        self, bare: BareLoop, *, batch_size: int, pairs: int, warmup: int, device: str
    ) -> None:
        self.bare, self.batch_size, self.warmup, self.count = bare, batch_size, warmup, pairs
        generator = torch.Generator().manual_seed(0)
        shape = (batch_size, 3, 32, 32)
        image = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
        label = torch.randint(CLASSES, (batch_size,), generator=generator)
        self.batch = {
            "image": image.to(device),
            "label": label.to(device),
            "index": torch.arange(batch_size, device=device),
        }
        mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (MEAN, STD))
        self.normalised = (self.batch["image"].float() / 255 - mean) / std
        self.ms: dict[str, list[float]] = {"bare": [], "ours": []}

    def __len__(self) -> int:
        return self.warmup + self.count

    def epoch(self, epoch: int, start: int = 0) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the batch again and again, timing what happens around it."""
        for number in range(len(self)):
            began = _now()
            self.bare.step(self.normalised, self.batch["label"])
            between = _now()
            yield dict(self.batch)
            if number >= self.warmup:
                self.ms["bare"].append(1e3 * (between - began))
                self.ms["ours"].append(1e3 * (_now() - between))


def main() -> None:
    """Print medians and their ratio; write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", default="resnet32x4")
    parser.add_argument("--student", default="resnet8x4")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    teacher = build_model(args.teacher, CLASSES).to(device)
    student = build_model(args.student, CLASSES).to(device)
    loader = Interleaved(
        BareLoop(teacher, copy.deepcopy(student)),
        batch_size=args.batch_size,
        pairs=args.pairs,
        warmup=args.warmup,
        device=device,
    )
    with tempfile.TemporaryDirectory() as folder:
        _trainer(teacher, student, loader, Path(folder), device).train()
    result = {
        "pair": f"{args.teacher} -> {args.student}",
        "batch_size": args.batch_size,
        "pairs": args.pairs,
        "bare_ms": round(median(loader.ms["bare"]), 3),
        "ours_ms": round(median(loader.ms["ours"]), 3),
    }
    ratios = [b / a for a, b in zip(loader.ms["bare"], loader.ms["ours"], strict=True)]
    result["ratio"] = round(median(ratios), 4)
    result["environment"] = environment(torch.device(device))
    print(json.dumps(result, indent=2))
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _trainer(
    teacher: nn.Module, student: nn.Module, loader: Interleaved, folder: Path, device: str
) -> Trainer:
    models = [Classifier(network, mean=MEAN, std=STD).to(device) for network in (student, teacher)]
    distiller = Distiller(models[0], models[1], {"dkd": Term(DKD(), warmup_epochs=1)}).to(device)
    optimizer = build_optimizer(OPTIMIZER, distiller.parameters())
    return Trainer(
        distiller,
        loader,
        TrainStep(distiller, optimizer),
        optimizer,
        schedule=multi_step(epochs=1, milestones=[]),
        epochs=1,
        work_dir=folder,
        hooks=[Hook()],
    )


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
