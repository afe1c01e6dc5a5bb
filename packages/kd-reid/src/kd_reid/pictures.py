"""A picture of ranked galleries: the first ranks of networks for each query."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kd_core.data.image_files import read_image
from kd_core.files.checkpoint import atomic_path
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kd_reid.data import DataSplits
from kd_reid.data.records import Record

HIT, MISS, QUERY, INK = "#1a9850", "#d73027", "#4d4d4d", "black"
_HEIGHT, _WIDTH, _FRAME, _GAP, _TITLE = 128, 64, 4, 6, 22  # pixels


def draw_galleries(
    distances: Mapping[str, Tensor],
    data: DataSplits,
    path: str | Path,
    *,
    queries: Sequence[int],
    shown: int = 8,
) -> None:
    """Write a PNG: for every query, its image and the first ranks of each network.

    Correct images have a green frame, wrong ones a red one. Images that evaluation leaves out of a
    query's list (the same person by the same camera) are left out here.

    Args:
        distances: Of the queries to the gallery, [Q, G], by the name of the network.
        data: Has query and gallery; their images are read from disk.
        path: The file.
        queries: Which queries, one row each.
        shown: Images a network.
    """
    cell, row = _WIDTH + 2 * _FRAME + _GAP, _HEIGHT + 2 * _FRAME + _GAP
    block = shown * cell + 2 * _GAP
    width = _GAP + cell + 2 * _GAP + len(distances) * block
    sheet = Image.new("RGB", (width, _TITLE + len(queries) * row + _GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    pen.text((_GAP, 3), "query", fill=INK, font=font)
    for column, (name, distance) in enumerate(distances.items()):
        left = _GAP + cell + 2 * _GAP + column * block
        pen.text((left, 3), name, fill=INK, font=font)
        for line, query in enumerate(queries):
            top = _TITLE + line * row
            record = data.query.records[query]
            _paste(sheet, record, QUERY, (_GAP, top))
            for place, found in enumerate(ranked(distance[query], data, query)[:shown]):
                colour = HIT if found.identity == record.identity else MISS
                _paste(sheet, found, colour, (left + place * cell, top))
    with atomic_path(Path(path)) as temporary:
        sheet.save(temporary, format="PNG")


def ranked(distance: Tensor, data: DataSplits, query: int) -> list[Record]:
    """Return the ranked gallery of a query, the nearest first.

    Args:
        distance: Of the query to the gallery, [G].
        data: Has query and gallery.
        query: Its number.
    """
    wanted = data.query.records[query]
    order = [data.gallery.records[place] for place in distance.argsort(stable=True).tolist()]
    return [
        found
        for found in order
        if found.camera is None
        or (found.identity, found.camera) != (wanted.identity, wanted.camera)
    ]


def telling_queries(distances: Sequence[Tensor], data: DataSplits, count: int) -> list[int]:
    """Choose queries of different people on which networks differ, then others, in order.

    Args:
        distances: One for each network, [Q, G].
        data: Has query and gallery.
        count: Of queries; fewer if there are not so many people.
    """
    people: dict[str, int] = {}
    for query, record in enumerate(data.query.records):
        people.setdefault(record.identity, query)
    right = {
        query: [
            ranked(distance[query], data, query)[0].identity == person for distance in distances
        ]
        for person, query in people.items()
    }
    chosen = sorted(right, key=lambda query: len(set(right[query])) < 2)
    return sorted(chosen[:count])


def _paste(sheet: Image.Image, record: Record, colour: str, corner: tuple[int, int]) -> None:
    box = (*corner, corner[0] + _WIDTH + 2 * _FRAME - 1, corner[1] + _HEIGHT + 2 * _FRAME - 1)
    ImageDraw.Draw(sheet).rectangle(box, fill=colour)
    image = read_image(record.path).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
    sheet.paste(image, (corner[0] + _FRAME, corner[1] + _FRAME))
