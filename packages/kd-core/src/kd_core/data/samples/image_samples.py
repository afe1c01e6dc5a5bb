"""Image files as samples."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_core.data.image_files import Pixels, Transform, as_image, as_tensor, read_image
from kd_core.data.samples.sampled import Samples
from kd_core.errors import UserError
from kd_core.files.fingerprint import fingerprint
from kd_core.runtime.failures import first_line

_LOOKED_AT = 64  # files that are read for a fingerprint, where there are many


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
        try:
            image = self.transform(image)
        except (UserError, MemoryError):
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {first_line(error)}"
            raise UserError(f"{file}: the transform failed on it ({what})") from error
        image = image if isinstance(image, Tensor) else as_tensor(image)
        wanted = (3, *self.size)
        if tuple(image.shape) != wanted or image.dtype != torch.uint8:
            raise UserError(
                f"{file}: the transform gave {image.dtype} {tuple(image.shape)} where uint8 "
                f"{wanted} is wanted; end it with a crop or resize to {self.size}"
            )
        return image

    def fingerprint(self) -> str:
        """Return a hash of all files' and their folders' names, and of some contents."""
        paths = [Path(os.fsdecode(path)) for path in self.files]
        names = ["/".join(path.parts[-2:]) for path in paths]
        few = paths[:: max(len(paths) // _LOOKED_AT, 1)]
        read = [hashlib.sha256(path.read_bytes()).hexdigest() for path in few if path.is_file()]
        return fingerprint(*names, *read)
