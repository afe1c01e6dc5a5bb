"""The analyses by name, and what they take from the arguments of `tools/cls_analyse.py`."""

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from kd_core.config.node import parse
from kd_core.config.reading import load_config
from kd_core.errors import UserError
from kd_core.experiment.builder import DATA, build_data
from kd_core.experiment.cli import parse_options
from kd_core.experiment.parsing import NAMES
from kd_core.files.checkpoint import save_json
from kd_core.files.leftovers import remove_leftovers
from kd_core.files.new_files import require_writable
from kd_core.runtime.console import out

from kd_cls.analysis import cam, cka, correlation, reliability, tables, tsne
from kd_cls.analysis.arguments import PICTURES
from kd_cls.analysis.models import labels_of, load_model
from kd_cls.analysis.place import picture_path
from kd_cls.analysis.subject import Subject
from kd_cls.data.splits import is_multi_label

_MEASURE = {"evaluate": tables.evaluate, "noise": tables.noise}
_DRAW: dict[str, Callable[..., dict[str, Any]]] = {
    "tsne": tsne.analyse,
    "correlation": correlation.analyse,
    "cka": cka.analyse,
    "cam": cam.analyse,
    "reliability": reliability.analyse,
}
_TEACHER = "teacher"


def run(args: Namespace) -> None:
    """Do what the arguments say; see `kd_cls.analysis.arguments`."""
    if args.json:
        require_writable(Path(args.json).expanduser(), "--json")
    numbers = _draw(args) if args.what in PICTURES else _measure(args)
    if args.json:
        save_json(numbers, Path(args.json).expanduser(), sealed=False)
        out.print(f"wrote {args.json}")


def read_subject(args: Namespace) -> Subject:
    """Build the data and the models that the arguments name.

    Raises:
        UserError: If one of them does not exist or does not fit.
    """
    config = load_config(args.data, parse_options(args.cfg_options), known=NAMES)
    if "data" not in config:
        raise UserError(
            f"{args.data} has no `data`; name a file such as configs/cls/data/cifar10.py"
        )
    node = parse(config["data"], "data", kind=DATA, provided=("data_seed",))
    labels = labels_of(args.models, args.labels)
    if args.teacher:
        labels_of([args.teacher, *args.models], [_TEACHER, *labels])  # rejects another "teacher"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = build_data(node, config.get("data_seed", 0), device)
    if is_multi_label(data) and args.what != "cka":
        raise UserError(
            f"{args.what} is for one class an image, {args.data} has several; cka can be drawn, "
            "and cls_train.py --eval-only measures mAP"
        )
    networks = Path(args.data).expanduser().parent.parent / "networks"
    load = partial(load_model, data=data, networks=networks)
    return Subject(
        data,
        {label: load(spec) for label, spec in zip(labels, args.models, strict=True)},
        (_TEACHER, load(args.teacher)) if args.teacher else None,
    )


def _measure(args: Namespace) -> dict[str, Any]:
    numbers = _MEASURE[args.what](read_subject(args), args.limit)
    out.print(tables.as_table(numbers, args.what))
    return dict(numbers)


def _draw(args: Namespace) -> dict[str, Any]:
    path = picture_path(args.out, args.what, args.models)
    own = {name: getattr(args, name) for name in args.own}
    remove_leftovers(path.parent)
    numbers = _DRAW[args.what](read_subject(args), path, limit=args.limit, **own)
    out.print(f"wrote {path}")
    return numbers
