"""The demo: distillation into a small re-identification network, in minutes and offline."""

from argparse import Namespace
from pathlib import Path

import torch
from kd_core.experiment.builder import build_data
from kd_core.experiment.cli import parse_options
from kd_core.experiment.demo import Comparison, compare
from kd_core.experiment.parsing import read_experiment
from kd_core.experiment.seeds import seed_folder
from kd_core.experiment.spec import Experiment
from kd_core.runtime.console import out
from torch import Tensor

from kd_reid.adapter import ADAPTER
from kd_reid.evaluation import Evaluation, extract
from kd_reid.pictures import differing_queries, draw_galleries
from kd_reid.student import load_student

SEEDS = (0, 1)
ROWS = 6  # of the picture
METRICS = {"rank1": "rank-1 %", "mAP": "mAP %"}


def main(args: Namespace, device: torch.device) -> None:
    """Train a student, then a teacher, then the same student with it.

    See `kd_core.experiment.demo.compare`. Ends with a table, `galleries.png` and `demo.json`.
    """
    with compare(ADAPTER, args, device, name="reid_demo", method="KD", seeds=SEEDS) as found:
        picture = found.work_dir / "galleries.png"
        options = parse_options(args.cfg_options)
        out.print(found.table("synthetic people", METRICS))
        draw(found, read_experiment(ADAPTER, ADAPTER.demo_config, options), picture)
        out.print(f"ranked galleries: {picture}")


def draw(found: Comparison, experiment: Experiment, path: Path) -> None:
    """Draw the first ranks of both students of the first seed, where they differ."""
    data = build_data(experiment.data, experiment.data_seed or 0, torch.device("cpu"))
    distances: dict[str, Tensor] = {}
    for label in found.students:
        run = seed_folder(found.folders[label], found.seeds[0], found.seeds)
        evaluation = Evaluation(data, **experiment.extra["evaluation"])
        distances[label] = evaluation.distances(extract(load_student(run), data))
    queries = differing_queries(list(distances.values()), data, ROWS)
    chosen = {label: distance[queries] for label, distance in distances.items()}
    draw_galleries(chosen, data, path, queries=queries)
