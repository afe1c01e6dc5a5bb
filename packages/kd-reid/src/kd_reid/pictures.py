"""Pictures of queries, and of the images that were ranked first for each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kd_core.data.image_files import read_image
from kd_core.files.checkpoint import atomic_path
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kd_reid.evaluation import Searched, labels_in
from kd_reid.metrics.labels import Labels, left_out

HIT, MISS, QUERY, INK = "#1a9850", "#d73027", "#4d4d4d", "black"
_HEIGHT, _WIDTH, _FRAME, _GAP, _TITLE = 128, 64, 4, 6, 22  # pixels
_TEXT, _FONT = 16, 12  # pixels of a text below an image
_LETTERS = 10  # of a text below an image
MOST_ROWS = 100  # of a picture; with 50 images each it takes 200 MB of memory


class Framed(NamedTuple):
    """An image of a picture."""

    path: str
    colour: str  # of its frame
    text: str = ""  # below it


class Row(NamedTuple):
    """A query and what was ranked first for it, by the title of each list."""

    query: Framed
    ranked: Mapping[str, Sequence[Framed]]


def draw_rows(rows: Sequence[Row], path: str | Path, *, shown: int) -> None:
    """Write a PNG with a row for every query: its image, then the lists side by side.

    Args:
        rows: All with lists of the same titles.
        path: The file.
        shown: Images that each list has room for.

    Raises:
        UserError: If an image cannot be read, or the file not written.
    """
    titles = list(rows[0].ranked)
    cell, height = _WIDTH + 2 * _FRAME + _GAP, _HEIGHT + 2 * _FRAME + _GAP
    height += _TEXT if any(image.text for row in rows for image in _images(row)) else 0
    block, start = shown * cell + 2 * _GAP, cell + 3 * _GAP
    size = (start + len(titles) * block, _TITLE + len(rows) * height + _GAP)
    sheet = Image.new("RGB", size, "white")
    _write(sheet, "query", (_GAP, 3), 14)
    for column, title in enumerate(titles):
        _write(sheet, title, (start + column * block, 3), 14)
    for line, row in enumerate(rows):
        top = _TITLE + line * height
        _paste(sheet, row.query, (_GAP, top))
        for column, title in enumerate(titles):
            for place, image in enumerate(row.ranked[title][:shown]):
                _paste(sheet, image, (start + column * block + place * cell, top))
    with atomic_path(Path(path)) as temporary:
        sheet.save(temporary, format="PNG")


def draw_galleries(
    distances: Mapping[str, Tensor],
    data: Searched,
    path: str | Path,
    *,
    queries: Sequence[int],
    shown: int = 8,
) -> None:
    """Write a PNG: for every query, its image and the first ranks of each network.

    Correct images have a green frame, wrong ones a red one, and their distances below. Images that
    evaluation leaves out of a query's list (the same person by the same camera, junk) are left
    out here.

    Args:
        distances: Of these queries to the gallery, [n, G], by the title of the list.
        data: Has query and gallery; their images are read from disk.
        path: The file.
        queries: Which queries, one row each.
        shown: Images of a list.
    """
    labels = labels_in(data)
    rows = []
    for line, query in enumerate(queries):
        lists = {
            name: _framed(distance[line].cpu(), data, labels, query, shown)
            for name, distance in distances.items()
        }
        record = data.query.records[query]
        rows.append(Row(Framed(record.path, QUERY, record.identity), lists))
    draw_rows(rows, path, shown=shown)


def ranked(distance: Tensor, labels: Labels, query: int) -> list[int]:
    """Return the places of the gallery images that count for a query, the nearest first.

    Args:
        distance: Of the query to the gallery, [G].
        labels: Of queries and gallery, on the same device.
        query: Its number.
    """
    one = slice(query, query + 1)
    same = labels.query_ids[one, None] == labels.gallery_ids
    gone = left_out(same, labels.query_cams[one], labels.gallery_ids, labels.gallery_cams)[0]
    order = distance.argsort(stable=True)
    return order[~gone[order]].tolist()


def has_match(labels: Labels, query: int) -> bool:
    """Return whether a query has a right image to find."""
    one = slice(query, query + 1)
    same = labels.query_ids[one, None] == labels.gallery_ids
    gone = left_out(same, labels.query_cams[one], labels.gallery_ids, labels.gallery_cams)
    return bool((same & ~gone).any())


def differing_queries(distances: Sequence[Tensor], data: Searched, count: int) -> list[int]:
    """Choose queries of different people on which networks differ, then others, in order.

    Args:
        distances: One for each network, [Q, G].
        data: Has query and gallery.
        count: Of queries; fewer if there are not so many people.
    """
    labels = labels_in(data)
    people: dict[int, int] = {}
    for query, person in enumerate(labels.query_ids.tolist()):
        people.setdefault(person, query)
    right = {
        query: [
            int(labels.gallery_ids[ranked(distance[query], labels, query)[0]]) == person
            for distance in distances
        ]
        for person, query in people.items()
    }
    chosen = sorted(right, key=lambda query: len(set(right[query])) < 2)
    return sorted(chosen[:count])


def _framed(
    distance: Tensor, data: Searched, labels: Labels, query: int, shown: int
) -> list[Framed]:
    """Return the first images of a query's list."""
    found = []
    for place in ranked(distance, labels, query)[:shown]:
        hit = labels.gallery_ids[place] == labels.query_ids[query]
        path = data.gallery.records[place].path
        found.append(Framed(path, HIT if hit else MISS, number(float(distance[place]))))
    return found


def number(distance: float) -> str:
    """Return a distance as it is written below an image."""
    return f"{distance:.4g}"


def _images(row: Row) -> list[Framed]:
    return [row.query, *(image for images in row.ranked.values() for image in images)]


def _write(sheet: Image.Image, text: str, corner: tuple[int, int], size: int) -> None:
    font = ImageFont.load_default(size=size)
    ImageDraw.Draw(sheet).text(corner, text, fill=INK, font=font)


def _paste(sheet: Image.Image, image: Framed, corner: tuple[int, int]) -> None:
    left, top = corner
    box = (left, top, left + _WIDTH + 2 * _FRAME - 1, top + _HEIGHT + 2 * _FRAME - 1)
    ImageDraw.Draw(sheet).rectangle(box, fill=image.colour)
    pixels = read_image(image.path).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
    sheet.paste(pixels, (left + _FRAME, top + _FRAME))
    if image.text:
        _write(sheet, image.text[:_LETTERS], (left, box[3] + 2), _FONT)
