"""Cost of the same KD step in other packages and here, each relative to a bare loop.

Hinton's KD (cross-entropy + KL at temperature 4, equal weights) with the same networks, batch and
SGD, in fp32. In every round each loop takes one step, in random order; times are medians over
rounds, ratios medians of the rounds' ratios. Peers that are not installed are left out. What each
loop includes is in docs/peers.md.

uv run --with torchdistill --with timm benchmarks/peers.py --rounds 40 --out peers.json
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from kd_cls.models import build_model
from kd_core.experiment.report import environment
from kd_loops import CLASSES, PEERS, Loop, Problem, bare, ours
from torch import Tensor, nn

OURS = "kd_core"


class Rounds:
    """A loader for our trainer that lets every other loop take a step around the trainer's own.

    Args:
        loops: The others, by name.
        problem: What all loops get.
    """

    def __init__(self, loops: dict[str, Loop], problem: Problem) -> None:
        self.loops, self.problem = loops, problem
        self.batch_size = problem.batch_size
        self.ms: dict[str, list[float]] = {name: [] for name in (*loops, OURS)}
        self.students = {name: loop.student for name, loop in loops.items()}
        self.differences: dict[str, float] = {}

    def __len__(self) -> int:
        return self.problem.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[dict[str, Tensor]]:
        """Yield a batch a round, timing what happens around it."""
        index = torch.arange(self.batch_size, device=self.problem.device)
        batch = {"image": self.problem.image, "label": self.problem.label, "index": index}
        turns = random.Random(0)
        for _ in range(len(self)):
            for name in turns.sample(list(self.ms), len(self.ms)):
                began = _now()
                if name == OURS:
                    yield dict(batch)  # the trainer's step is taken here
                else:
                    next(self.loops[name].steps)
                self.ms[name].append(1e3 * (_now() - began))
            self.differences = self.differences or self._differences()

    def _differences(self) -> dict[str, float]:
        """Return how far each student's weights and statistics are from the bare loop's."""
        wanted = self.students["bare"].state_dict()
        return {
            name: max(
                (value - wanted[key]).abs().max().item()
                for key, value in student.state_dict().items()
                if value.is_floating_point()
            )
            for name, student in self.students.items()
        }


def main() -> None:
    """Print a table; write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--teacher", default="resnet32x4")
    parser.add_argument("--student", default="resnet8x4")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=5, help="rounds that are not counted")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--plain", action="store_true", help="kd_core without what its tools do for speed"
    )
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True  # as in the scripts of both peers
    problem = Problem(
        build_model(args.student, CLASSES),
        build_model(args.teacher, CLASSES),
        batch_size=args.batch_size,
        steps=args.warmup + args.rounds,
        device=torch.device(args.device),
    )
    report = measure(problem, args)
    print(table(report))
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def installed_peers(problem: Problem) -> dict[str, Loop]:
    """Build the loops of the peers that can be imported; say which cannot."""
    loops = {}
    for name, build in PEERS.items():
        try:
            loops[name] = build(problem)
        except ImportError as error:
            print(f"{name} is left out: {error} (uv run --with {name} adds it to one run)")
    return loops


def measure(problem: Problem, args: argparse.Namespace) -> dict[str, Any]:
    """Let all loops take turns; return what was measured and where."""
    rounds = Rounds({"bare": bare(problem), **installed_peers(problem)}, problem)
    with tempfile.TemporaryDirectory() as folder:
        trainer = ours(problem, rounds, Path(folder), plain=args.plain)
        network: nn.Module = trainer.distiller.student.network  # type: ignore[assignment]
        rounds.students[OURS] = network
        trainer.train()
    counted = {name: ms[args.warmup :] for name, ms in rounds.ms.items()}
    return {
        "pair": f"{args.teacher} -> {args.student}",
        "batch_size": args.batch_size,
        "rounds": args.rounds,
        "plain": args.plain,
        "loops": {
            name: {**compare(ms, counted["bare"]), "difference": rounds.differences[name]}
            for name, ms in counted.items()
        },
        "versions": {name: version(name.replace("_", "-")) for name in counted if name != "bare"},
        "environment": environment(problem.device),
    }


def compare(ms: list[float], base: list[float]) -> dict[str, Any]:
    """Return the median time, and medians of the ratios to and the differences from another's."""
    pairs = list(zip(ms, base, strict=True))
    ratios = [own / other for own, other in pairs]
    first, _, third = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {
        "ms": round(median(ms), 3),
        "ratio": round(median(ratios), 4),
        "quartiles": [round(first, 4), round(third, 4)],
        "more_ms": round(median(own - other for own, other in pairs), 3),
    }


def table(report: dict[str, Any]) -> str:
    """Return the loops as a table in Markdown."""
    rows = [
        "| loop | version | ms a step | of the bare loop | quartiles | more, ms |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in report["loops"].items():
        first, third = row["quartiles"]
        rows.append(
            f"| {name} | {report['versions'].get(name, '')} | {row['ms']:.1f} "
            f"| {row['ratio']:.3f} | {first:.3f} to {third:.3f} | {row['more_ms']:.2f} |"
        )
    return "\n".join(rows)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
