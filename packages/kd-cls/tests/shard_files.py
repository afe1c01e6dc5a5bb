"""Shards for tests."""

import io
import tarfile

import numpy as np
from PIL import Image

SIZE = 8


def jpeg(number):
    """Return a small image that differs for every number."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "jpeg")
    return stream.getvalue()


def write(path, files, mode="w"):
    """Write a tar archive of (name, content)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def samples(numbers, label=lambda number: number % 3):
    """Return the files of samples: an image and its class."""
    return [
        pair
        for n in numbers
        for pair in ((f"{n:04d}.jpg", jpeg(n)), (f"{n:04d}.cls", str(label(n)).encode()))
    ]
