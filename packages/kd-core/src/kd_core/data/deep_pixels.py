"""Pixels of more than 8 bits, scaled to 8; never clipped, never by what one image happens to have.

A fixed range, so that equal pixels of two images stay equal.
"""

import numpy as np

from kd_core.errors import UserError


def eight_bits(values: np.ndarray, mode: str, largest: int | None, where: str) -> np.ndarray:
    """Scale one channel to uint8.

    Args:
        values: Whole numbers, or floats in [0, 1], [H, W].
        mode: Pillow's name of their kind, for messages.
        largest: The largest whole number that the file can hold, which becomes 255 (65535 of 16
            bits); None if that is not known.
        where: Name of the image, for messages.

    Raises:
        UserError: If floats are outside [0, 1], or whole numbers have no known range.
    """
    if values.dtype.kind == "f":
        low, high = values.min(), values.max()
        if not (low >= 0 and high <= 1):  # true for NaN too
            raise UserError(
                f"{where}: floats from {low:.4g} to {high:.4g}, wanted 0 to 1, which becomes 0 to "
                "255; convert it to that, or to 8 or 16 bits a channel"
            )
        largest = 1
    if largest is None:
        raise UserError(
            f"{where}: whole numbers of 32 bits, or with a sign (mode {mode}), have no usual "
            "range; convert it to 8 or 16 bits a channel"
        )
    scaled: np.ndarray = np.rint(values.astype(np.float64) * (255 / largest)).astype(np.uint8)
    return scaled
