"""Make shards of a folder of images: the files as they are, and their classes."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
from kd_core.data.sampling import epoch_order
from kd_core.errors import UserError
from kd_core.files.checkpoint import atomic_path, save_text
from torch import Tensor

from kd_cls.data.folders import class_names, scan
from kd_cls.data.image_folders import parts_of

CLASSES = "classes.txt"


def write_shards(root: str, target: Path, *, size: int = 1000, seed: int = 0) -> dict[str, int]:
    """Write `train-000000.tar`, ..., `test-000000.tar`, ... and `classes.txt`.

    The same images, size and seed give the same bytes. Training images are shuffled, so that every
    shard has all classes.

    Args:
        root: Class folders, as `kd_cls.data.image_folder` reads them.
        target: Folder of the shards.
        size: Images in a shard.
        seed: Of the shuffle.

    Returns:
        The number of shards of each part.

    Raises:
        UserError: If the target has shards already, the folders cannot be read, or the name of one
            cannot be a line of a text.
    """
    if there := [*sorted(target.glob("*.tar")), *target.glob(CLASSES)]:
        raise UserError(f"{there[0]}: is there already; name another folder")
    train, test = parts_of(root)
    classes = class_names(train)
    if odd := [name for name in classes if [line.strip() for line in name.splitlines()] != [name]]:
        raise UserError(
            f"{train}: class folder {odd[0]!r}: {CLASSES} has a name a line, without spaces around "
            "it; rename the folder"
        )
    counts = {}
    for part, folder in (("train", train), ("test", test)):
        files, labels = scan(folder, classes, allow_missing=part == "test")
        if part == "train":
            order = epoch_order(len(files), seed, 0)
            files, labels = files[order.numpy()], labels[order]
        starts = range(0, len(files), size)
        for number, start in enumerate(starts):
            shard = slice(start, start + size)
            _write(target / f"{part}-{number:06d}.tar", files[shard], labels[shard], start)
        counts[part] = len(starts)
    save_text("".join(f"{name}\n" for name in classes), target / CLASSES)
    return counts


def _write(path: Path, files: np.ndarray, labels: Tensor, first: int) -> None:
    with atomic_path(path) as temporary, tarfile.open(temporary, "w") as archive:
        for number, (file, label) in enumerate(zip(files, labels.tolist(), strict=True), first):
            source = Path(os.fsdecode(file))
            _add(archive, f"{number:08d}{source.suffix.lower()}", source.read_bytes())
            _add(archive, f"{number:08d}.cls", str(label).encode())


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # its time is 0
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
