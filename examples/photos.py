"""Draw photos as phones save them: turned, with the way up in their EXIF data, and a CSV list.

    python examples/photos.py FOLDER             # photos and photos.csv
    python examples/photos.py FOLDER --folders   # other photos, in train/CLASS and test/CLASS

Each shows one arrow. Its class is where it points when the photo is upright, so whoever reads the
files without their EXIF data sees other classes. docs/photos.md and docs/unlabelled.md continue.
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


def save_all(folder: Path, *, by_class: bool) -> list[tuple[str, str, str]]:
    """Write all photos; return the name, class and part of each."""
    ways, rows = list(_STORED), []
    for part, count in _PARTS.items():
        for number in range(count * len(CLASSES)):
            label = list(CLASSES)[number % len(CLASSES)]
            name = f"{part}_{number:03}.jpg"
            path = folder / part / label / name if by_class else folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            seed = len(part) * 1000 + number + (500 if by_class else 0)
            save(draw(label, seed), path, ways[number // 4 % 4])
            rows.append((name, label, part))
    return rows


def main() -> None:
    """Write the photos and, unless folders name their classes, `photos.csv`, as a spreadsheet."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--folders", action="store_true", help="one a class, instead of a list")
    args = parser.parse_args()
    rows = save_all(args.folder, by_class=args.folders)
    if args.folders:
        print(f"{args.folder}: {len(rows)} photos in train/CLASS and test/CLASS")
        return
    with (args.folder / "photos.csv").open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file, delimiter=";")
        table.writerow(["File", "Class", "Set"])
        table.writerows(rows)
    print(f"{args.folder}: photos.csv and its photos")


if __name__ == "__main__":
    main()
