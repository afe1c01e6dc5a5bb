"""Time and memory of ranking and re-ranking a gallery of Market1501's size, beside torchreid's.

Features are random: a centre for each identity and noise, so much that two fifths of the queries
find a right image first. About a sixth of the gallery are distractors. All on the CPU.

ranking: torchreid's pure python and ours in turns, on one distance matrix that is not counted.
reranking: torchreid's and ours in turns, at a quarter of the size, since the full one takes theirs
beyond 8 GiB (a process was at 9.4, after 52 s); `theirs_needs_gib` is a bound from below, computed.
ranking_alone, reranking_alone: ours at full size, from features on.

Each part has a process of its own, whose memory is the peak of the whole process: `imports_gib`
after the imports of torch and torchreid, `inputs_gib` when distances were there, `peak_gib` at the
end. Times are medians. Exits with 1 if a limit is missed at full size. Linux only.

python benchmarks/reid_ranking.py --repeats 3 --out reid_ranking.json
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from kd_core.experiment.report import environment
from kd_reid import torchreid
from kd_reid.metrics import evaluate_rank, rerank, squared_euclidean
from torch import Tensor

CAMERAS, NOISE, DISTRACTORS = 6, 4.0, 0.18
Report = dict[str, Any]


class Size(NamedTuple):
    """Numbers of images and identities, and the length of an embedding."""

    queries: int
    gallery: int
    identities: int
    width: int


class Limit(NamedTuple):
    """What a part must reach: a number in its report, at least or at most."""

    text: str
    part: str
    number: str
    least: float = 0
    most: float = float("inf")


LIMITS = [
    Limit("ranking, times as fast as torchreid", "ranking", "ratio", least=6),
    Limit("ranking, largest difference of CMC and mAP", "ranking", "difference", most=1e-6),
    Limit("ranking, peak GiB", "ranking_alone", "peak_gib", most=3),
    Limit("re-ranking, largest difference", "reranking", "difference", most=1e-5),
    Limit("re-ranking, peak GiB", "reranking_alone", "peak_gib", most=8),
]


def main() -> int:
    """Print JSON and a table; write JSON if asked; return 1 if a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try it; no limits")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", choices=list(PARTS), help="measure it in this process, no table")
    args = parser.parse_args()
    if args.part:
        size = (SMALL if args.small else REAL)[args.part]
        print(json.dumps({**size._asdict(), **PARTS[args.part](size, args.repeats)}))
        return 0
    report = {part: measure(part, args) for part in PARTS}
    text = json.dumps(report | {"environment": environment(torch.device("cpu"))}, indent=2)
    print(text, table(report), sep="\n\n")
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    return int(not args.small and not all(holds(limit, report) for limit in LIMITS))


def measure(part: str, args: argparse.Namespace) -> Report:
    """Measure a part in a process of its own, started from one that has only imported."""
    command = [sys.executable, __file__, "--part", part, "--repeats", str(args.repeats)]
    if args.small:
        command.append("--small")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{part} failed; its messages are above")
    result: Report = json.loads(done.stdout.splitlines()[-1])
    return result


def ranking(size: Size, repeats: int) -> Report:
    """Rank with ours and with torchreid, and compare."""
    query, gallery, labels = draw(size)
    distance = untied(squared_euclidean(query, gallery))
    arrays = [tensor.numpy() for tensor in (distance, *labels)]
    times, (ours, theirs) = in_turns(
        repeats,
        lambda: evaluate_rank(distance, *labels),
        lambda: torchreid.metrics.evaluate_rank(*arrays, use_cython=False),
    )
    cmc = np.abs(ours[0].numpy() - theirs[0]).max()
    difference = max(float(cmc), abs(ours[1] - float(theirs[1])))
    return times | {"difference": difference, "rank1": float(ours[0][0]), "map": ours[1]}


def ranking_alone(size: Size, repeats: int) -> Report:
    """Rank with ours."""
    report = {"imports_gib": peak()}
    query, gallery, labels = draw(size)
    distance = squared_euclidean(query, gallery)
    report["inputs_gib"] = peak()
    seconds = [timed(lambda: evaluate_rank(distance, *labels))[0] for _ in range(repeats)]
    return report | {"peak_gib": peak(), "ours_s": median(seconds)}


def reranking(size: Size, repeats: int) -> Report:
    """Re-rank with ours and with torchreid, and compare."""
    distances = plain_distances(*draw(size)[:2])
    query_query, query_gallery, gallery_gallery = (side.numpy() for side in distances)
    times, (ours, theirs) = in_turns(
        repeats,
        lambda: rerank(*distances),
        lambda: torchreid.utils.re_ranking(query_gallery, query_query, gallery_gallery),
    )
    return times | {"difference": float(np.abs(ours.numpy() - theirs).max())}


def reranking_alone(size: Size, repeats: int) -> Report:
    """Re-rank with ours, and say what torchreid's matrices would fill at least."""
    report = {"imports_gib": peak()}
    distances = plain_distances(*draw(size)[:2])
    report["inputs_gib"] = peak()
    seconds = [timed(lambda: rerank(*distances))[0] for _ in range(repeats)]
    # Distances of all images in float32, their order in int64, and again in int32, at once.
    entry = 4 + 8 + 4
    needs = entry * (size.queries + size.gallery) ** 2 + sum(side.nbytes for side in distances)
    return report | {
        "peak_gib": peak(),
        "ours_s": median(seconds),
        "theirs_needs_gib": needs / 2**30,
    }


def draw(size: Size) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Return query and gallery embeddings, and both's identities and cameras."""
    torch.manual_seed(0)
    counts = size.queries, size.gallery
    ids = [torch.randint(1, size.identities + 1, (count,)) for count in counts]
    ids[1][torch.rand(size.gallery) < DISTRACTORS] = 0
    cams = [torch.randint(CAMERAS, (count,)) for count in counts]
    centres = torch.randn(size.identities + 1, size.width)
    query, gallery = (torch.randn(len(i), size.width).mul_(NOISE).add_(centres[i]) for i in ids)
    return query, gallery, (ids[0], ids[1], cams[0], cams[1])


def plain_distances(query: Tensor, gallery: Tensor) -> list[Tensor]:
    """Return the three matrices that re-ranking takes."""
    pairs = (query, query), (query, gallery), (gallery, gallery)
    return [squared_euclidean(*pair).sqrt_() for pair in pairs]


def untied(distance: Tensor) -> Tensor:
    """Move distances by units of the last place until no two of a row [G] are equal.

    A hundredth of them are. torchreid sorts these in any order, so it may find another CMC.
    """
    values, order = distance.sort(1)
    steps = torch.arange(distance.shape[1], dtype=torch.int32)
    bits = values.view(torch.int32)  # in the order of the values, since none is negative
    apart = (bits - steps).cummax(1).values + steps
    return torch.empty_like(distance).scatter_(1, order, apart.view(torch.float32))


def in_turns(
    repeats: int, ours: Callable[[], Any], theirs: Callable[[], Any]
) -> tuple[Report, tuple[Any, Any]]:
    """Return medians of seconds and of their ratio, and what both give."""
    pairs = [(timed(ours), timed(theirs)) for _ in range(repeats)]
    seconds = [[one[0] for one in way] for way in zip(*pairs, strict=True)]
    ratio = median(slow / fast for fast, slow in zip(*seconds, strict=True))
    names = "ours_s", "theirs_s"
    times = {name: median(values) for name, values in zip(names, seconds, strict=True)}
    return times | {"ratio": ratio, "repeats": repeats}, (pairs[0][0][1], pairs[0][1][1])


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return how many seconds something takes, and what it gives."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def peak() -> float:
    """Return the most memory that this process has had, in GiB.

    Not `ru_maxrss` of `resource`, which begins with what the starting process has had.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def holds(limit: Limit, report: Report) -> bool:
    """Return whether a limit is kept."""
    return limit.least <= report[limit.part][limit.number] <= limit.most


def table(report: Report) -> str:
    """Return a row for every limit, and one for the time of every part."""
    lines = ["| what | ours | torchreid | limit | kept |", "|---|---|---|---|---|"]
    for part, found in report.items():
        text = f"{part}, {found['queries']:,} x {found['gallery']:,}, s"
        theirs = f"{found['theirs_s']:.2f}" if "theirs_s" in found else ""
        lines.append(f"| {text} | {found['ours_s']:.2f} | {theirs} | | |")
    for limit in LIMITS:
        bound = f">= {limit.least:g}" if limit.least else f"<= {limit.most:g}"
        kept = "yes" if holds(limit, report) else "NO"
        number = report[limit.part][limit.number]
        lines.append(f"| {limit.text} | {number:.3g} | | {bound} | {kept} |")
    return "\n".join(lines)


PARTS: dict[str, Callable[[Size, int], Report]] = {
    "ranking": ranking,
    "ranking_alone": ranking_alone,
    "reranking": reranking,
    "reranking_alone": reranking_alone,
}
MARKET = Size(queries=3368, gallery=15913, identities=750, width=2048)
REAL = dict.fromkeys(PARTS, MARKET) | {"reranking": Size(842, 3978, 188, 2048)}
SMALL = dict.fromkeys(PARTS, Size(queries=20, gallery=120, identities=5, width=64))

if __name__ == "__main__":
    sys.exit(main())
