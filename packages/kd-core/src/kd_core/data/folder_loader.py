"""Sets of image files that are read in each epoch, or once."""

from typing import Any

import numpy as np
from torch import Tensor

from kd_core.data.image_files import Pixels, Transform
from kd_core.data.samples.image_samples import ImageFiles
from kd_core.data.worker_loader import WorkerLoader, read_all
from kd_core.data.workers import WORKER_TIMEOUT


class FolderLoader(WorkerLoader):
    """A set of image files, read again in each epoch.

    Args:
        files: Paths of the images, bytes [N].
        labels: int64 [N].
        transform: From a PIL image to a PIL image or uint8 tensor of `image_size`; it may draw from
            torch's or Python's generator, not from NumPy's.
        image_size: Height and width of the images in pixels, or the side of squares.
        pixels: Returns the pixels of a file, such as `DecodedImages`; None decodes it each time.
        data_seed: See `SplitLoader`; also of the transform's draws.
        options: See `WorkerLoader`.
    """

    def __init__(
        self,
        files: np.ndarray,
        labels: Tensor,
        transform: Transform,
        *,
        image_size: int | tuple[int, int],
        pixels: Pixels | None = None,
        data_seed: int = 0,
        **options: Any,
    ) -> None:
        samples = ImageFiles(files, transform, image_size, data_seed, pixels)
        super().__init__(samples, labels, data_seed=data_seed, **options)


def decode(
    files: np.ndarray,
    transform: Transform,
    *,
    image_size: int | tuple[int, int],
    workers: int | None = None,
    worker_timeout: float = WORKER_TIMEOUT,
    pixels: Pixels | None = None,
) -> Tensor:
    """Read all images once, in worker processes if there are many; uint8 [N, 3, H, W].

    Raises:
        UserError: If an image cannot be read, naming its file.
    """
    samples = ImageFiles(files, transform, image_size, 0, pixels)
    return read_all(samples, workers=workers, worker_timeout=worker_timeout)
