"""Find the pictures of a gallery that are nearest to others: `tools/reid_search.py`."""

import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from kd_core.data.image_files import require_image
from kd_core.errors import RunError, UserError
from kd_core.files.checkpoint import save_json
from kd_core.files.new_files import require_new, require_suffix
from kd_core.runtime.console import out
from kd_core.runtime.failures import explain
from torch import Tensor

from kd_reid.arguments import passes_of
from kd_reid.data.options import Options
from kd_reid.lookup.devices import chosen_device
from kd_reid.lookup.embedding import embed_files, opened_model
from kd_reid.lookup.pictures_in import pictures_in
from kd_reid.lookup.stored import SUFFIX, Stored, read_stored
from kd_reid.metrics import Distances
from kd_reid.pictures import MOST_ROWS, QUERY, Framed, Row, draw_rows, number

FOUND = "#2b6cb0"  # frames: who is in a picture is not known


class Match(NamedTuple):
    """A picture of the gallery."""

    file: str
    distance: float


def run(args: Namespace) -> None:
    """Do what the arguments say; see `kd_reid.search`."""
    path = Path(args.out).expanduser()
    require_suffix(path, ".png")
    beside = path.with_suffix(".json")
    require_new([path, beside])
    if len(args.pictures) > MOST_ROWS:
        raise UserError(
            f"{len(args.pictures)} PICTUREs: {MOST_ROWS} rows have room in a picture; search for "
            "the others in another call"
        )
    for file in args.pictures:
        require_image(str(Path(file).expanduser()))
    queries, gallery, distance = _embedded(args)
    found = nearest(queries, gallery, distance, args.top_k)
    if not any(found):
        raise UserError(f"GALLERY {args.gallery}: has nothing but the PICTURE itself")
    for match in (match for matches in found for match in matches):
        _require_there(match.file, args)
    save_json(_report(args, queries.files, found, distance), beside, sealed=False)
    out.print(f"wrote {beside}")
    try:
        _draw(queries.files, found, path, distance)
    except (UserError, OSError) as error:
        raise RunError(f"{explain(error) or error}; {beside} has the ranking") from error
    out.print(f"wrote {path}")


def nearest(
    queries: Stored, gallery: Stored, distance: Literal["euclidean", "cosine"], top_k: int
) -> list[list[Match]]:
    """Return for each query the nearest pictures, the nearest first.

    The query's own file is left out where it is in the gallery.

    Args:
        queries: What is searched for.
        gallery: What is searched in.
        distance: How embeddings are compared; "euclidean" is squared, as in torchreid.
        top_k: Number of pictures; fewer if there are not so many.
    """
    found: list[list[Match]] = []
    for block in Distances(queries.rows, gallery.rows, distance).blocks():
        for row in block:
            own = queries.files[len(found)]
            found.append(_first(row, own, gallery.files, top_k))
    return found


def _first(row: Tensor, own: str, files: Sequence[str], top_k: int) -> list[Match]:
    matches: list[Match] = []
    for place in row.argsort(stable=True).tolist():
        if len(matches) == top_k:
            break
        if not _is_same(files[place], own):
            matches.append(Match(files[place], float(row[place])))
    return matches


def _is_same(file: str, other: str) -> bool:
    try:
        return os.path.samefile(file, other)
    except OSError:
        return False


def _embedded(args: Namespace) -> tuple[Stored, Stored, Literal["euclidean", "cosine"]]:
    """Return queries and gallery, and the distance that is asked for or the model's own."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = chosen_device(args.device, device)
    options = Options(**passes_of(args))
    stored = _stored(args)
    if stored is None:
        measured, made_by = opened_model(args, normalised=False)
    else:
        made = stored.maker
        if args.flip and not made.flip:
            raise UserError(f"--flip: {args.gallery} was made without it; leave it out")
        measured, made_by = opened_model(args, normalised=made.normalised, flip=made.flip)
        made_by.require(made, args.gallery)
    measured.embedder.to(device)
    files = [str(Path(file).expanduser()) for file in args.pictures]
    queries = Stored(embed_files(measured, made_by, files, options, device), files, made_by)
    if stored is None:
        inside = pictures_in(args.gallery, skip_broken=args.skip_broken)
        rows = embed_files(measured, made_by, inside, options, device)
        stored = Stored(rows, inside, made_by)
    return queries, stored, args.distance or measured.evaluation.get("distance", "euclidean")


def _stored(args: Namespace) -> Stored | None:
    """Return the embeddings of a gallery that was embedded before; None if it is a folder."""
    path = Path(args.gallery).expanduser()
    is_folder = path.is_dir()
    if not is_folder and path.suffix != SUFFIX:
        raise UserError(
            f"GALLERY {args.gallery}: wanted a folder of pictures, or a file of embeddings that "
            "reid_embed wrote, such as embeddings.npy"
        )
    for option, given in (("--skip-broken", args.skip_broken), ("--images", args.images)):
        if given and is_folder == (option == "--images"):
            what = "a folder" if is_folder else "embedded already"
            raise UserError(f"{option}: {args.gallery} is {what}; leave it out")
    if is_folder:
        return None
    return read_stored(path, args.images)


def _require_there(file: str, args: Namespace) -> None:
    if not os.path.isfile(file):
        raise UserError(
            f"{file}: is not there any more; --images FOLDER says where the pictures of "
            f"{args.gallery} are now, or embed them again"
        )


def _draw(queries: Sequence[str], found: Sequence[Sequence[Match]], path: Path, title: str) -> None:
    rows = [
        Row(
            Framed(query, QUERY),
            {title: [Framed(match.file, FOUND, number(match.distance)) for match in matches]},
        )
        for query, matches in zip(queries, found, strict=True)
    ]
    draw_rows(rows, path, shown=max(map(len, found)))


def _report(
    args: Namespace, queries: Sequence[str], found: Sequence[Sequence[Match]], distance: str
) -> dict[str, Any]:
    ranked = [
        {
            "query": query,
            "ranked": [
                {"rank": rank, "file": match.file, "distance": match.distance}
                for rank, match in enumerate(matches, 1)
            ],
        }
        for query, matches in zip(queries, found, strict=True)
    ]
    return {
        "model": args.model,
        "gallery": args.gallery,
        "distance": distance,
        "queries": ranked,
    }
