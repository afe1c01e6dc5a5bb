"""The demo: what distillation does for a small network on few labels, in minutes and offline."""

import json
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kd_core import distributed
from kd_core.checkpoint import save_json
from kd_core.config import parse_options
from kd_core.console import out
from kd_core.errors import UserError
from kd_core.plots import plot_curves
from kd_core.seeds import read_histories, repeat, text
from kd_core.workdir import choose
from rich.table import Table

from kd_cls.config import read_config
from kd_cls.teachers import recipe_folder

CONFIG = Path(__file__).parent / "configs" / "dkd.py"
SEEDS = (0, 1, 2, 3, 4)


def main(args: Namespace, train_seed: Callable[..., dict[str, Any]]) -> None:
    """Train a teacher, then the same student without and with it, over several seeds.

    Both students share initialisation, data order and augmentation in every seed. Ends with a
    table, `curves.png` and `demo.json`.

    Args:
        args: The tool's arguments; its options change both students, not the teacher.
        train_seed: See `kd_cls.train.train_seed`.
    """
    if args.eval_only or distributed.is_distributed():
        raise UserError("the demo takes no --eval-only and no torchrun; name a CONFIG")
    distilled = read_config(CONFIG, parse_options(args.cfg_options))
    alone = {name: node for name, node in distilled.items() if name not in ("teacher", "distiller")}
    work_dir = choose(args.work_dir, ["demo"], resume=args.resume)
    seeds: Sequence[int] = args.seeds or SEEDS
    summaries, runs = {}, {}
    for name, label, config in (("student", "student", alone), ("dkd", "student + DKD", distilled)):
        one = partial(train_seed, config, resume=args.resume, teachers=work_dir.parent)
        summaries[label] = repeat(one, seeds, work_dir / name, resume=args.resume)
        runs[label] = read_histories(work_dir / name, seeds)
    folder = recipe_folder(distilled["teacher"]["recipe"], work_dir.parent / "teachers")
    teacher = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    save_json({"teacher": teacher, "students": summaries}, work_dir / "demo.json")
    plot_curves(runs, "top1", work_dir / "curves.png", ylabel="top-1 on the test set, %")
    out.print(_table(teacher, summaries))
    out.print(f"curves: {work_dir / 'curves.png'}")


def _table(teacher: dict[str, Any], summaries: dict[str, Any]) -> Table:
    count = len(next(iter(summaries.values()))["seeds"])
    title = f"digits, last epoch, {count} seed{'s' * (count > 1)}"
    table = Table("", "top-1 %", "parameters", "seconds a run", title=title)
    rows = {"teacher": (f"{teacher['last']['top1']:.2f}", teacher)}
    rows |= {name: (text(summary["last"]["top1"]), summary) for name, summary in summaries.items()}
    for name, (top1, run) in rows.items():
        parameters, seconds = run["student_parameters"], run["train_seconds"]
        table.add_row(name, top1, f"{parameters:,}", f"{seconds:.1f}")
    return table
