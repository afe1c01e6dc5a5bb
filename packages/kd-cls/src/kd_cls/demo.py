"""The demo: distillation into a small network on few labels, in minutes and offline."""

from argparse import Namespace
from functools import partial

import torch
from kd_core.experiment.demo import compare
from kd_core.experiment.seeds import read_histories
from kd_core.experiment.tables.plots import plot_curves
from kd_core.runtime.console import out

from kd_cls.adapter import ADAPTER

SEEDS = (0, 1, 2, 3, 4)


def main(args: Namespace, device: torch.device) -> None:
    """Train a student, then a teacher, then the same student with it.

    See `kd_core.experiment.demo.compare`. Ends with a table, `curves.png` and `demo.json`.
    """
    with compare(ADAPTER, args, device, name="demo", method="DKD", seeds=SEEDS) as found:
        histories = partial(read_histories, seeds=found.seeds)
        runs = {label: histories(found.folders[label]) for label in found.students}
        curves = found.work_dir / "curves.png"
        out.print(found.table("digits", {"top1": "top-1 %"}))
        plot_curves(runs, "top1", curves, ylabel="top-1 on the test set, %")
        out.print(f"curves: {curves}")
