"""Measure a network or saved features on sets, and print a table: `tools/reid_evaluate.py`."""

import inspect
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from kd_core.errors import UserError, located
from kd_core.files.checkpoint import save_json
from kd_core.files.new_files import require_suffix, require_writable
from kd_core.runtime import distributed
from kd_core.runtime.console import err, out
from rich.table import Table

from kd_reid.arguments import given_of_network, passes_of, reading_of
from kd_reid.data.options import Options
from kd_reid.evaluation import Evaluation, Features, extract
from kd_reid.measuring.models import Measured, measured_model
from kd_reid.measuring.pictured import check_pictures, check_searched, draw_pictures
from kd_reid.measuring.saved import Saved, read_saved
from kd_reid.measuring.targets import (
    Images,
    Searching,
    Target,
    open_target,
    read_searching,
    unusual,
)

SAVED = ".npy"


class Found(NamedTuple):
    """Scores and counts of a set, and what draws the pictures that are asked for of it."""

    facts: dict[str, Any]
    draw: Callable[[], None]


def run(args: Namespace) -> None:
    """Do what the arguments say; see `kd_reid.evaluate`."""
    check_pictures(args)
    if args.out:
        require_suffix(Path(args.out).expanduser(), ".json")
        require_writable(Path(args.out).expanduser())
    if Path(args.model).suffix == SAVED:
        if given := given_of_network(args):
            raise UserError(f"{given[0]}: {args.model} has features already; leave it out")
        found, shared = dict(_of_saved(args, read_saved(args.model))), _settings(args, {})
    else:
        with distributed.joined() as device:
            measured = measured_model(args)
            shared = _settings(args, measured.evaluation)
            measured.embedder.to(device)
            found = dict(_of_network(args, measured, shared, device))
    if distributed.rank() == 0:
        scores = {name: searched.facts for name, searched in found.items()}
        out.print(_table(scores))
        if args.out:
            report = {"model": args.model, "evaluation": shared, "sets": scores}
            save_json(report, Path(args.out).expanduser(), sealed=False)
        for searched in found.values():
            with located(searched.facts["source"]):
                searched.draw()


def _settings(args: Namespace, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the evaluation: the user's, else the run's own, else the usual."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(Evaluation).parameters.items()
        if name != "data"
    }
    given = {name: getattr(args, name) for name in defaults if getattr(args, name, None)}
    settings = {**defaults, **own, **given, "fpr": list(args.fpr or ())}
    Evaluation(Searching("", Images([]), Images([])), **settings)  # rejects wrong ones, early
    return settings


def _of_network(
    args: Namespace, measured: Measured, shared: Mapping[str, Any], device: Any
) -> Iterator[tuple[str, Found]]:
    options = Options(**passes_of(args))
    for name, searching in _sets(args):
        note_own_data(searching, measured, same_camera=args.same_camera)
        with located(searching.source):
            target = open_target(searching, measured.image_size, options)
            check_searched(args, target)
            target.to(device)
            features = extract(measured.embedder, target, flip=shared["flip"])
            yield name, _facts(args, target, features, shared)


def note_own_data(searching: Searching, measured: Measured, *, same_camera: bool) -> None:
    """Print what differs from the run's own evaluation, where its own data are searched."""
    source = searching.source
    if measured.source is None or Path(source).resolve() != Path(measured.source).resolve():
        return
    if searching.is_whole:
        err.print(
            f"{source}: the run was trained on a part of it, and all its people are searched for "
            "here; its config.py as --data keeps to the others"
        )
    known = any(record.camera is not None for record in searching.query.records)
    if measured.camera is not None and not (known or same_camera):
        err.print(
            f"{source}: no cameras are known, so matches by the same camera count; the run has "
            f"data.camera={measured.camera}: add --camera '{measured.camera}'"
        )


def _of_saved(args: Namespace, saved: Saved) -> Iterator[tuple[str, Found]]:
    settings = _settings(args, {})
    if not args.data:
        for name in unusual(reading_of(args) | {"same_camera": False}):
            option = "no-distractors" if name == "distractors" else name
            raise UserError(f"--{option} is for --data, and {args.model} has its own table")
        searching, features = saved.searching(same_camera=args.same_camera)
        check_searched(args, searching)
        yield saved.file.stem, _facts(args, searching, features, settings)
        return
    for name, searching in _sets(args):
        if searching.node is not None:
            raise UserError(
                f"{searching.source}: saved features belong to files; name their folder or CSV file"
            )
        check_searched(args, searching)
        features = saved.features_of(searching.query.records, searching.gallery.records)
        yield name, _facts(args, searching, features, settings)


def _sets(args: Namespace) -> list[tuple[str, Searching]]:
    """Return the sets by a short name each; all are read before the first is searched."""
    if not args.data:
        raise UserError("name the sets that are searched: --data FOLDER, FILE.csv or NAME:ROOT")
    names = [_short(source) for source in args.data]
    found = []
    for source, name in zip(args.data, names, strict=True):
        if args.data.count(source) > 1:
            raise UserError(f"--data names {source} twice; each set is searched once")
        searching = read_searching(source, **reading_of(args))
        found.append((source if names.count(name) > 1 else name, searching))
    return found


def _short(source: str) -> str:
    name, colon, _ = source.partition(":")
    return name if colon and not Path(source).exists() else Path(source).resolve().name


def _facts(
    args: Namespace, target: Target | Searching, features: Features, shared: Mapping[str, Any]
) -> Found:
    with located(target.source):
        scores = Evaluation(target, **shared).measure(features)
    counts = {"query": len(target.query.records), "gallery": len(target.gallery.records)}
    facts = {"source": target.source, "images": counts, "metrics": scores}
    if len(args.data) > 1:  # pictures are of one set: the features of others are not kept
        return Found(facts, _nothing)
    return Found(facts, partial(draw_pictures, args, target, features, shared))


def _nothing() -> None:
    """Draw nothing."""


def _table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("", *found)
    for column in table.columns[1:]:
        column.justify = "right"
    for side in ("query", "gallery"):
        table.add_row(f"{side} images", *(f"{facts['images'][side]:,}" for facts in found.values()))
    metrics: Sequence[str] = list(next(iter(found.values()))["metrics"])
    for name in metrics:
        values = [facts["metrics"][name] for facts in found.values()]
        shown = [f"{v:.4g}" if name.startswith("threshold") else f"{v:.2f}" for v in values]
        table.add_row(name, *shown)
    return table
