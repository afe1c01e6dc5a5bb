"""Time and memory of every criterion, forward and backward, against the plain way.

The plain way (`plain_*.py`) is a few lines of vectorised torch, written directly from the formula,
with the same adapters. Where its largest tensors do not fit into 8 GB, it is left out, and their
size is printed.

Times are medians of alternating calls, for at least a second. The ratio says how many times faster
ours is: the median over neighbouring calls. Memory is the peak of the allocations of the first
call, with everything that is kept for later calls, without inputs: on CUDA by torch's own count, on
the CPU by the allocations that torch's profiler records, also temporary ones inside operators.

python benchmarks/criteria.py --criteria nst rkd --repeats 5 --out criteria.jsonl
"""

import argparse
import json
import os
import tempfile
import time
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import torch
from criterion_cases import NAMES, Case, Step, cases
from kd_core.experiment.report import environment
from torch import Tensor
from torch.autograd.profiler import profile

LIMIT = 8e9  # bytes


def main() -> None:
    """Print a table; write JSON lines if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--criteria", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--repeats", type=int, default=5, help="turns at least")
    parser.add_argument("--seconds", type=float, default=1.0, help="of turns at least")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try it")
    parser.add_argument("--out", type=Path, help="file to which a JSON line a row is added")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.manual_seed(0)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler prints, and misses a GPU
    print("| criterion | size | ours, ms | plain, ms | ratio | ours, MB | plain, MB |")
    print("|---|---|---|---|---|---|---|")
    for name in args.criteria:
        for case in cases(name, device, small=args.small):
            row = {"criterion": name} | measure(case, args.repeats, args.seconds, device)
            print(line(row), flush=True)
            if args.out:
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row | {"environment": environment(device)}) + "\n")


def measure(case: Case, repeats: int, seconds: float, device: torch.device) -> dict[str, Any]:
    """Measure the memory of both ways, see that their losses agree, and time them in turns."""
    row = {"size": case.size, "plain_needs_mb": case.plain_bytes / 1e6}
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
    while len(times["ours"]) < repeats or sum(times["ours"]) < 1e3 * seconds / 2:
        for way, step in ways.items():
            times[way].append(milliseconds(step, device))
        ways = dict(reversed(ways.items()))  # neither is always the first
    medians = {f"{way}_ms": median(values) for way, values in times.items()}
    if "plain" in times:  # of neighbours, between which the machine has not changed
        pairs = zip(times["plain"], times["ours"], strict=True)
        medians["ratio"] = median(plain / ours for plain, ours in pairs)
    return row | {"repeats": len(times["ours"])} | medians


def peak(step: Step, device: torch.device) -> tuple[float, Tensor]:
    """Return by how many MB a step raises the peak memory, and its loss."""
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
    return max(accumulate((change for _, change in sorted(changes)), initial=0)) / 1e6, loss


def milliseconds(step: Step, device: torch.device) -> float:
    """Return how long a step takes."""
    began = now(device)
    step()
    return 1e3 * (now(device) - began)


def now(device: torch.device) -> float:
    """Return the time, in seconds, when the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def line(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    start = f"| {row['criterion']} | {row['size']} | {row['ours_ms']:,.2f}"
    if "plain_ms" not in row:
        return f"{start} | not run | | {row['ours_mb']:,.1f} | > {row['plain_needs_mb']:,.0f} |"
    times = f"{row['plain_ms']:,.2f} | {row['ratio']:.2f}"
    return f"{start} | {times} | {row['ours_mb']:,.1f} | {row['plain_mb']:,.1f} |"


if __name__ == "__main__":
    main()
