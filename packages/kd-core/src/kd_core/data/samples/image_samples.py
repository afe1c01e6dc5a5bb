"""Image files as samples."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_core.data.broken_images import each_problem, why_broken
from kd_core.data.image_files import Pixels, Transform, as_image, as_tensor, read_image
from kd_core.data.samples.sampled import Samples
from kd_core.errors import UserError
from kd_core.files.fingerprint import fingerprint
from kd_core.runtime.failures import first_line

_LOOKED_AT = 64  # files that are read for a fingerprint, where there are many
_SECONDS = 30.0  # to look for more broken files
_NAMED = 5  # of them
_READ_WHOLE = 64 * 2**20  # bytes of a set whose files are all read for the hash of its contents


class ImageFiles(Samples):
    """Image files.

    Args:
        files: Paths of the images, bytes [N].
        transform: See `FolderLoader`.
        image_size: See `Samples`.
        data_seed: Seed of the transform's draws.
        pixels: Returns the pixels of a file; None decodes it.
    """

    def __init__(
        self,
        files: np.ndarray,
        transform: Transform,
        image_size: int | tuple[int, int],
        data_seed: int,
        pixels: Pixels | None = None,
    ) -> None:
        super().__init__(len(files), image_size, data_seed)
        self.files, self.transform, self.pixels = files, transform, pixels

    def name(self, index: int) -> str:
        """Return the path of a file."""
        return os.fsdecode(self.files[index])

    def image(self, index: int) -> Tensor:
        """Return a file's image after the transform."""
        file = self.name(index)
        image: Any = read_image(file) if self.pixels is None else as_image(self.pixels(file))
        return transformed(image, self.transform, self.size, file)

    def more_broken(self, problem: str) -> str:
        """Return what else cannot be read, so that one run reports all; "" if nothing is found.

        All files are decoded, for half a minute at most.

        Args:
            problem: Of the first one; nothing is looked for unless that image is broken.
        """
        files = list(dict.fromkeys(map(os.fsdecode, self.files)))
        first = next((file for file in files if problem.startswith(f"{file}:")), None)
        if first is None or not why_broken(first):
            return ""
        problems = list(each_problem(files, _SECONDS))  # of the first files, if time is short
        tried = zip(files, problems, strict=False)
        found = [file for file, why in tried if why and file != first]
        if not found:
            return ""
        names = ", ".join(found[:_NAMED]) + ", ..." * (len(found) > _NAMED)
        return f"; of {len(problems):,} images {len(found):,} more cannot be read: {names}"

    def fingerprint(self) -> str:
        """Return a hash of all files' and their folders' names, and of some contents."""
        paths = [Path(os.fsdecode(path)) for path in self.files]
        names = ["/".join(path.parts[-2:]) for path in paths]
        few = paths[:: max(len(paths) // _LOOKED_AT, 1)]
        read = [hashlib.sha256(path.read_bytes()).hexdigest() for path in few if path.is_file()]
        return fingerprint(*names, *read)

    def contents(self) -> str:
        """Return a hash of the files, the same at any place of the set.

        Their names below the folder that all have in common, their order and sizes, and what is in
        them: in all of a small set, in some of a large one.

        Raises:
            UserError: If a file cannot be read.
        """
        paths = [os.fsdecode(path) for path in self.files]
        places = {folder: os.path.abspath(folder) for folder in set(map(os.path.dirname, paths))}
        beyond = len(os.path.commonpath(places.values()))
        try:
            sizes = [os.stat(path).st_size for path in paths]
            some = 1 if sum(sizes) <= _READ_WHOLE else max(len(paths) // _LOOKED_AT, 1)
            read = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths[::some]]
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from error
        split = map(os.path.split, paths)
        names = [f"{places[folder][beyond:]}/{name}".replace(os.sep, "/") for folder, name in split]
        return fingerprint(*names, *map(str, sizes), *read)


def transformed(
    image: Any, transform: Callable[[Any], Any], size: tuple[int, int], where: str
) -> Tensor:
    """Return an image after its transform, uint8 [3, H, W].

    Args:
        image: What the transform takes.
        transform: Returns a PIL image or a tensor.
        size: Height and width that are wanted.
        where: What the image is called in messages.

    Raises:
        UserError: If the transform fails, or gives something else.
    """
    try:
        image = transform(image)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{where}: the transform failed on it ({what})") from error
    image = image if isinstance(image, Tensor) else as_tensor(image)
    if tuple(image.shape) != (3, *size) or image.dtype != torch.uint8:
        raise UserError(
            f"{where}: the transform gave {image.dtype} {tuple(image.shape)} where uint8 "
            f"{(3, *size)} is wanted; end it with a crop or resize to {size}"
        )
    return image
