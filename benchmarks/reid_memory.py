"""Measure time and memory of a search, and of its re-ranking, at any size.

python benchmarks/reid_memory.py --queries 11659 --gallery 82161

Embeddings are drawn around one centre for each of the people, thirty images each on average. Every
line has the seconds, and the largest memory of the process so far, Python and torch included.
"""

import argparse
import resource
import time
from collections.abc import Sequence

import torch
from kd_reid.metrics import Distances, labels_of, rank_blocks, tpr_at_fpr
from kd_reid.metrics.blocks import in_words
from kd_reid.metrics.labels import Labels


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each step; returns the exit status."""
    args = _parser().parse_args(argv)
    query, gallery, labels = draw(args.queries, args.gallery, args.width)
    print(
        f"{args.queries:,} x {args.gallery:,}, width {args.width}; "
        f"{_peak():.2f} GiB with the embeddings"
    )
    distances = Distances(query, gallery, args.distance)
    steps = {
        "ranking": lambda: rank_blocks(distances.blocks(), labels),
        "TPR at FPR": lambda: tpr_at_fpr(distances.blocks, labels, [0.001]),
        "re-ranking": lambda: rank_blocks(distances.reranked(announce=_announce), labels),
    }
    for name in args.only or steps:
        before = time.perf_counter()
        steps[name]()
        taken = time.perf_counter() - before
        print(f"{name:>12} {taken:9.1f} s {_peak():6.2f} GiB", flush=True)
    return 0


def draw(queries: int, images: int, width: int) -> tuple[torch.Tensor, torch.Tensor, Labels]:
    """Return embeddings of queries and gallery, and their labels."""
    total, generator = queries + images, torch.Generator().manual_seed(0)
    people = torch.randint(max(total // 30, 2), (total,), generator=generator)
    cameras = torch.randint(12, (total,), generator=generator)
    centres = torch.randn(int(people.max()) + 1, width, generator=generator)
    sides = []
    for part in (people[:queries], people[queries:]):
        rows = torch.randn(len(part), width, generator=generator)
        for some, whose in zip(rows.split(1024), part.split(1024), strict=True):
            some += centres[whose]
        sides.append(rows)
    ids, seen = ((values[:queries], values[queries:]) for values in (people, cameras))
    return sides[0], sides[1], labels_of((queries, images), *ids, *seen)


def _announce(seconds: float) -> None:
    print(f"re-ranking takes about {in_words(seconds)}", flush=True)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--gallery", type=int, default=5000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--distance", choices=("euclidean", "cosine"), default="euclidean")
    parser.add_argument("--only", nargs="+", choices=("ranking", "TPR at FPR", "re-ranking"))
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
