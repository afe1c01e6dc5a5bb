"""Draw photos as phones save them: turned, with the way up in their EXIF data, and a CSV list.

    python examples/photos.py FOLDER

Each shows one arrow. Its class is where it points when the photo is upright, so whoever reads the
files without their EXIF data sees other classes. docs/photos.md continues from here.
"""

import argparse
import csv
import random
from pathlib import Path

from PIL import Image, ImageDraw

CLASSES = {"up": 0, "left": 90, "down": 180, "right": 270}
"""Classes, and by how many degrees an arrow that points up is turned for each."""

_STORED = {  # by EXIF orientation: what was done to the upright photo before it was saved
    1: None,
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
_ORIENTATION = 0x0112
_PARTS = {"train": 40, "test": 10}  # photos of each class


def draw(label: str, number: int) -> Image.Image:
    """Return an upright photo, 72 x 96 pixels, of an arrow in any place and colour."""
    dice = random.Random(f"{label} {number}")
    ground = tuple(dice.randint(0, 110) for _ in range(3))
    colour = tuple(dice.randint(150, 255) for _ in range(3))
    arrow = Image.new("RGB", (48, 48), ground)
    pen = ImageDraw.Draw(arrow)
    pen.polygon([(24, 4), (42, 24), (6, 24)], fill=colour)
    pen.rectangle((18, 24, 30, 44), fill=colour)
    photo = Image.new("RGB", (72, 96), ground)
    photo.paste(arrow.rotate(CLASSES[label]), (dice.randint(0, 24), dice.randint(0, 48)))
    return photo


def save(photo: Image.Image, path: Path, orientation: int) -> None:
    """Write a photo as a phone that was held in one of four ways."""
    turn = _STORED[orientation]
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    stored = photo if turn is None else photo.transpose(turn)
    stored.save(path, quality=92, exif=exif)


def main() -> None:
    """Write the photos and `photos.csv`, as a spreadsheet does: with semicolons and a mark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "photos.csv").open("w", encoding="utf-8-sig", newline="") as file:
        rows = csv.writer(file, delimiter=";")
        rows.writerow(["File", "Class", "Set"])
        for part, count in _PARTS.items():
            for number in range(count * len(CLASSES)):
                label = list(CLASSES)[number % len(CLASSES)]
                name = f"{part}_{number:03}.jpg"
                ways = list(_STORED)
                save(draw(label, len(part) * 1000 + number), folder / name, ways[number // 4 % 4])
                rows.writerow([name, label, part])
    print(f"{folder}: photos.csv and its photos")


if __name__ == "__main__":
    main()
