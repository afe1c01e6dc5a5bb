"""Pictures of a searched set: ranked galleries, and embeddings in the plane."""

import csv
import io
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core.errors import RunError, UserError
from kd_core.experiment.pictures import tsne
from kd_core.files.checkpoint import save_text
from kd_core.files.new_files import require_new, require_suffix
from kd_core.runtime.console import out
from kd_core.runtime.failures import explain
from torch import Tensor

from kd_reid.data.records import Record
from kd_reid.evaluation import Features, Searched, labels_in
from kd_reid.metrics import Distances
from kd_reid.metrics.labels import JUNK, Labels
from kd_reid.pictures import draw_galleries, has_match

_OF = {"galleries": ("queries", "top_k"), "tsne": ("people", "perplexity")}
"""Pictures, and the options of each."""
_USUAL = {"queries": 8, "top_k": 10, "people": 20, "perplexity": 30.0}


def check_pictures(args: Namespace) -> None:
    """Reject pictures that cannot be drawn, and options without effect; fill the others in.

    Raises:
        UserError: If a file is there already or is not a PNG file, or there are several sets.
    """
    files: list[Path] = []
    for picture, options in _OF.items():
        given = [name for name in options if getattr(args, name) is not None]
        name = getattr(args, picture)
        if name is None and given:
            raise UserError(f"{_flag(given[0])} has no effect without --{picture} FILE.png")
        for option in set(options) - set(given):
            setattr(args, option, _USUAL[option])
        if name is not None:
            files += _files(picture, Path(name).expanduser())
    tsne.check_perplexity(args.perplexity)
    if args.tsne is not None:
        tsne.require_package()
    if len(set(files)) < len(files):
        raise UserError(f"{files[0]}: is the name of two pictures; give each its own")
    if files and len(args.data) > 1:
        raise UserError(f"a picture is of one set, and --data names {len(args.data)}; name one")


def check_searched(args: Namespace, data: Searched) -> None:
    """Reject pictures for which a set has too little, before it is searched.

    Raises:
        UserError: If its files are not known, or it has too few images.
    """
    records = (*data.query.records, *data.gallery.records)
    if args.galleries is not None and not all(record.path for record in records):
        raise UserError(
            "--galleries: the files of these images are not known; give the CSV file of the "
            "features a column 'path', or name their set with --data"
        )
    if args.tsne is not None:
        chosen, ids = _people(data, args.people)
        tsne.check_count(sum(int(torch.isin(side, chosen).sum()) for side in ids))


def draw_pictures(
    args: Namespace, data: Searched, features: Features, settings: Mapping[str, Any]
) -> None:
    """Draw what is asked for, once the scores are written.

    Args:
        args: Of the tool, checked.
        data: Identities, cameras and files of the images.
        features: Their embeddings.
        settings: Of the evaluation.

    Raises:
        RunError: If a picture cannot be drawn.
    """
    try:
        _draw(args, data, features, settings)
    except (UserError, OSError) as error:
        raise RunError(f"{explain(error) or error}; the scores are complete") from error


def _draw(args: Namespace, data: Searched, features: Features, settings: Mapping[str, Any]) -> None:
    if args.galleries is not None:
        path = Path(args.galleries).expanduser()
        _draw_galleries(path, data, features, settings, (args.queries, args.top_k))
        out.print(f"wrote {path}")
    if args.tsne is not None:
        path = Path(args.tsne).expanduser()
        title = Path(args.model).name
        _draw_plane(path, data, features, settings, (args.people, args.perplexity), title)
        out.print(f"wrote {path} and {path.with_suffix('.csv').name}")


def _draw_galleries(
    path: Path,
    data: Searched,
    features: Features,
    settings: Mapping[str, Any],
    counts: tuple[int, int],
) -> None:
    labels, kind = labels_in(data), settings["distance"]
    queries = chosen_queries(labels, counts[0])
    few = Distances(features.query[queries], features.gallery, kind)
    lists = {kind: torch.cat(list(few.blocks()))}
    if settings["reranking"]:
        every = Distances(*features, kind).reranked(squared_twice=settings["squared_twice"])
        lists["re-ranked"] = _rows_in(every, queries)
    draw_galleries(lists, data, path, queries=queries, shown=counts[1])


def chosen_queries(labels: Labels, count: int) -> list[int]:
    """Return queries of different people who can be found, spread evenly over the set.

    Args:
        labels: Of queries and gallery.
        count: Of queries; fewer if there are not so many people.
    """
    first: dict[int, int] = {}
    for query, person in enumerate(labels.query_ids.tolist()):
        if person not in first and has_match(labels, query):
            first[person] = query
    return _spread(list(first.values()), count)


def _rows_in(blocks: Iterable[Tensor], rows: Sequence[int]) -> Tensor:
    """Return some rows, in rising order, of a matrix that comes some rows at a time."""
    kept, start = [], 0
    for block in blocks:
        inside = [row - start for row in rows if start <= row < start + len(block)]
        kept.append(block[inside].cpu())
        start += len(block)
    return torch.cat(kept)


def _draw_plane(
    path: Path,
    data: Searched,
    features: Features,
    settings: Mapping[str, Any],
    numbers: tuple[int, float],
    title: str,
) -> None:
    chosen, both = _people(data, numbers[0])
    rows, records, person = [], [], []
    sides = zip(("query", "gallery"), both, (data.query, data.gallery), strict=True)
    for split, ids, part in sides:
        places = torch.isin(ids, chosen).nonzero().flatten()
        rows.append(getattr(features, split).cpu()[places])
        records += [(part.records[place], split) for place in places.tolist()]
        person.append(torch.searchsorted(chosen, ids[places]))
    found = torch.cat(rows).float()
    found = F.normalize(found) if settings["distance"] == "cosine" else found
    plane = tsne.embed(found.numpy(), numbers[1])
    label = torch.cat(person).numpy()
    name = {int(n): record.identity for (record, _), n in zip(records, label, strict=True)}
    names = [name[number] for number in range(len(chosen))]
    tsne.draw({title: plane}, label, names, path)
    _write_table(path.with_suffix(".csv"), records, plane.tolist())


def _people(data: Searched, count: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return the numbers of the people that are drawn, and whose the queries and gallery are."""
    labels = labels_in(data)
    people = [number for number in labels.query_ids.unique().tolist() if number != JUNK]
    return torch.tensor(_spread(people, count)), labels[:2]


def _write_table(
    path: Path, records: Sequence[tuple[Record, str]], plane: list[list[float]]
) -> None:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow((*Record._fields, "split", "x", "y"))
    for (record, split), (x, y) in zip(records, plane, strict=True):
        table.writerow((*record, split, f"{x:.4f}", f"{y:.4f}"))
    plain = text.getvalue().encode("utf-8", "replace").decode()  # names may have any bytes
    save_text(plain, path)


def _spread(values: list[int], count: int) -> list[int]:
    """Return so many of the values, evenly spread over them."""
    count = min(count, len(values))
    return [values[place * len(values) // count] for place in range(count)]


def _files(picture: str, path: Path) -> list[Path]:
    """Return the files of a picture, none of which is there."""
    require_suffix(path, ".png", f"--{picture}")
    files = [path, path.with_suffix(".csv")] if picture == "tsne" else [path]
    require_new(files, f"--{picture}")
    return files


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
