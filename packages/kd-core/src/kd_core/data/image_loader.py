"""From image files to a loader: all pixels on the device, or files read in each epoch."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor

from kd_core.data.device_loader import DeviceLoader
from kd_core.data.folder_loader import FolderLoader, decode
from kd_core.data.image_files import Transform
from kd_core.data.split_loader import SplitLoader
from kd_core.errors import UserError
from kd_core.networks.image_task import height_and_width


def check_resident(resident: bool | str) -> None:
    """Reject a wrong setting of whether a set stays on the device.

    Raises:
        UserError: If it is not True, False or "auto".
    """
    if resident not in (True, False, "auto"):
        raise UserError(f"resident must be True, False or 'auto', got {resident!r}")


def is_resident(
    resident: bool | str, images: int, image_size: int | tuple[int, int], most: int
) -> bool:
    """Return whether the decoded images of a set stay on the device.

    Args:
        resident: True, False, or "auto": whether they are small enough.
        images: Number of images in all parts of the set.
        image_size: Height and width in pixels, or the side of squares.
        most: Bytes that "auto" puts on a device; one more does not.
    """
    check_resident(resident)
    height, width = height_and_width(image_size)
    return 3 * height * width * images < most if resident == "auto" else bool(resident)


def packed(paths: Iterable[str]) -> np.ndarray:
    """Pack paths in one array: worker processes share it; reference counts would copy a list."""
    return np.array([os.fsencode(path) for path in paths])


def image_loader(
    files: np.ndarray,
    labels: Tensor,
    transform: Transform,
    *,
    resident: bool,
    reading: dict[str, Any],
    **options: Any,
) -> SplitLoader:
    """Make the loader of a set of image files.

    Args:
        files: Paths of the images, as `packed` gives them.
        labels: int64 [N].
        transform: From a PIL image to a PIL image or uint8 tensor of the loader's image size; for
            resident images it is applied once.
        resident: Whether the images are decoded now and stay on the device.
        reading: Arguments that `decode` and `FolderLoader` share, such as `image_size`.
        options: See `SplitLoader`.
    """
    if resident:
        return DeviceLoader(decode(files, transform, **reading), labels, **options)
    return FolderLoader(files, labels, transform, **reading, **options)
