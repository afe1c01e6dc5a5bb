"""Time and memory of vectorised criteria, forward and backward, against the plain way.

The plain way (`plain_losses`) is how the references compute, or how one would at first. It is left
out, and the size of its largest tensors printed, where these do not fit into 8 GB.

Times are medians of calls that take turns. Memory is the peak of what the first call allocates,
inputs not counted, but all that a way keeps for later calls: on CUDA by torch's own count, on the
CPU by the allocations that torch's profiler records, temporary ones inside of operators included.

python benchmarks/criteria.py --criteria nst rkd --repeats 5 --out criteria.jsonl
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import plain_losses
import torch
from kd_core.criteria.crd import CRD
from kd_core.criteria.kdsvd import kdsvd
from kd_core.criteria.nst import nst
from kd_core.criteria.ofd import margin
from kd_core.criteria.rkd import rkd
from kd_core.report import environment
from torch import Tensor
from torch.autograd.profiler import profile

LIMIT = 8e9  # bytes
Step = Callable[[], list[Tensor]]


@dataclass
class Case:
    """Two ways to the same loss and gradients, and what the plain one needs at least."""

    size: str
    plain_bytes: int
    ours: Step
    plain: Step


def main() -> None:
    """Print a table; write JSON lines if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--criteria", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try it")
    parser.add_argument("--out", type=Path, help="file to which a JSON line a row is added")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.manual_seed(0)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler chats, and misses a GPU
    print("| criterion | size | ours, ms | plain, ms | ratio | ours, MB | plain, MB |")
    print("|---|---|---|---|---|---|---|")
    for name in args.criteria:
        for size in (SMALL if args.small else REAL)[name]:
            row = {"criterion": name} | measure(CASES[name](device, *size), args.repeats, device)
            print(line(row), flush=True)
            if args.out:
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row | {"environment": environment(device)}) + "\n")


def measure(case: Case, repeats: int, device: torch.device) -> dict[str, Any]:
    """Measure the memory of both ways, see that their losses agree, and time them in turns."""
    row = {"size": case.size, "repeats": repeats, "plain_needs_mb": case.plain_bytes / 1e6}
    # The plain way comes first: ours moves CRD's memories.
    ways = {"plain": case.plain, "ours": case.ours}
    if case.plain_bytes > LIMIT:
        del ways["plain"]
    losses = []
    for way, step in ways.items():
        row[f"{way}_mb"], loss = peak(step, device)
        losses.append(loss)
    torch.testing.assert_close(losses[0], losses[-1], rtol=0.01, atol=0)  # CRD: other draws
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, step in ways.items():
            times[way].append(milliseconds(step, device))
    return row | {f"{way}_ms": median(values) for way, values in times.items()}


def peak(step: Step, device: torch.device) -> tuple[float, Tensor]:
    """Return by how many MB a step raises the memory in use at its highest, and its loss."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        loss = step()[0]
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6, loss
    with profile(profile_memory=True) as recorded:
        loss = step()[0]
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = [(e["ts"], e["args"]["Bytes"]) for e in events if e["name"] == "[memory]"]
    return max(accumulate(change for _, change in sorted(changes))) / 1e6, loss


def milliseconds(step: Step, device: torch.device) -> float:
    """Return how long a step takes."""
    began = now(device)
    step()
    return 1e3 * (now(device) - began)


def now(device: torch.device) -> float:
    """Return the time, in seconds, when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def line(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    start = f"| {row['criterion']} | {row['size']} | {row['ours_ms']:,.1f}"
    if "plain_ms" not in row:
        return f"{start} | not run | | {row['ours_mb']:,.1f} | > {row['plain_needs_mb']:,.0f} |"
    times = f"{row['plain_ms']:,.1f} | {row['plain_ms'] / row['ours_ms']:.1f}"
    return f"{start} | {times} | {row['ours_mb']:,.1f} | {row['plain_mb']:,.1f} |"


def step_of(loss: Callable[..., Tensor], leaves: Iterable[Tensor], *arguments: Any) -> Step:
    """Return what computes a loss and its gradient by the leaves."""
    leaves = tuple(leaves)

    def step() -> list[Tensor]:
        value = loss(*arguments)
        return [value, *torch.autograd.grad(value, leaves)]

    return step


def draw(device: torch.device, *shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Return tensors of a student that are not negative, as after a ReLU."""
    return tuple(torch.randn(shape, device=device).relu().requires_grad_() for shape in shapes)


def nst_case(device: torch.device, batch: int, channels: int, side: int) -> Case:
    """Maps of equal channels on both sides."""
    shape = (batch, channels, side, side)
    student, teacher = draw(device, shape, shape)
    sides = student, teacher.detach()
    ways = (step_of(loss, [student], *sides) for loss in (nst, plain_losses.nst))
    # Products, their squares and gradients: in the backward there are six at a time.
    return Case(f"maps {list(shape)}", 4 * 6 * batch * channels**2, *ways)


def rkd_case(device: torch.device, batch: int, width: int) -> Case:
    """Embeddings of equal width on both sides."""
    student, teacher = draw(device, (batch, width), (batch, width))
    sides = student, teacher.detach()
    ways = (step_of(loss, [student], *sides) for loss in (rkd, plain_losses.rkd))
    # Differences, unit vectors and gradients: in the backward there are six at a time.
    return Case(f"embeddings [{batch}, {width}]", 4 * 6 * batch**2 * width, *ways)


def kdsvd_case(device: torch.device, batch: int, channels: int, side: int) -> Case:
    """Three stages, each of half the side and twice the channels of the one before."""
    shapes = [(batch, channels * 2**i, side // 2**i, side // 2**i) for i in range(3)]
    maps = draw(device, *shapes, *shapes)
    student, teacher = maps[:3], tuple(stage.detach() for stage in maps[3:])
    ways = (step_of(loss, student, student, teacher) for loss in (kdsvd, plain_losses.kdsvd))
    needs = 4 * sum(stage.numel() for stage in student)  # left singular vectors
    return Case(f"maps {list(shapes[0])} and two stages on", needs, *ways)


def crd_case(device: torch.device, samples: int, classes: int, batch: int, width: int) -> Case:
    """A batch among so many samples, and the drawing of its negatives."""
    criterion = CRD(((width,),), ((width,),), torch.arange(samples) % classes).to(device)
    student, teacher = draw(device, (batch, width), (batch, width))
    index = torch.randperm(samples)[:batch].to(device)
    leaves, sides = (student, *criterion.parameters()), (student, teacher.detach())
    ours = step_of(criterion, leaves, *sides, {"index": index})
    plain = step_of(plain_losses.PlainCRD(criterion), leaves, *sides, index)
    # The lists of other classes, and the rows of both memories, which the backward needs.
    rows = 2 * batch * (criterion.num_negatives + 1) * criterion.memories.shape[2]
    size = f"{samples:,} samples, batch {batch}, {criterion.num_negatives:,} negatives"
    return Case(size, 4 * (classes * samples + rows), ours, plain)


def ofd_case(device: torch.device, channels: int) -> Case:
    """Margins of BatchNorms; they are computed once, and have no gradient."""
    weight, bias = torch.randn(2, channels, device=device)
    ways = (lambda way=way: [way(weight, bias)] for way in (margin, plain_losses.margin))
    return Case(f"margins of {channels:,} channels", 4 * channels, *ways)


CASES: dict[str, Callable[..., Case]] = {
    "nst": nst_case,
    "crd": crd_case,
    "rkd": rkd_case,
    "kdsvd": kdsvd_case,
    "ofd": ofd_case,
}
REAL: dict[str, list[tuple[int, ...]]] = {
    "nst": [(16, 2048, 7)],  # ResNet50's last stage
    "crd": [(50_000, 100, 64, 256), (1_281_167, 1000, 64, 512)],  # CIFAR-100 and ImageNet
    "rkd": [(64, 2048), (512, 256), (512, 2048)],  # widths of ResNet50 and of resnet32x4
    "kdsvd": [(64, 64, 32)],  # resnet32x4's three stages
    "ofd": [(256 + 512 + 1024 + 2048,)],  # ResNet50's four stages
}
SMALL: dict[str, list[tuple[int, ...]]] = {
    "nst": [(2, 16, 3)],
    "crd": [(30, 3, 4, 8)],
    "rkd": [(6, 5)],
    "kdsvd": [(2, 4, 16)],
    "ofd": [(8,)],
}

if __name__ == "__main__":
    main()
