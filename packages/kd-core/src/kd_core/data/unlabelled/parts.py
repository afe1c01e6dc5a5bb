"""Which images without labels are used, which are held out, and which are also evaluated on."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from kd_core.data.sampling import epoch_order
from kd_core.data.unlabelled.shared_images import shared_images
from kd_core.errors import UserError
from kd_core.runtime import distributed
from kd_core.runtime.console import err
from kd_core.runtime.seed import mix

_HOLD_OUT, _LIMIT = 0x0F1D, 0x11417  # so that draws do not depend on one another
_TRAINED, _HELD = 2, 3  # images at least; of two, CKA and effective rank are always 1


def chosen(files: list[str], limit: int | None) -> list[str]:
    """Return so many of the files, drawn from all of them, the same for every seed."""
    if limit is None or limit >= len(files):
        return files
    return [files[n] for n in epoch_order(len(files), _LIMIT, 0)[:limit].sort().values.tolist()]


def divided(files: np.ndarray, share: float, data_seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the images to train on, and those that are held out.

    Args:
        files: Paths, bytes [N].
        share: Of the images, to be held out; three at least are.
        data_seed: Decides which.

    Raises:
        UserError: If there are too few.
    """
    if len(files) < _TRAINED + _HELD:
        raise UserError(
            f"{len(files)} images are too few to train on some and hold out others; add images, "
            f"{_TRAINED + _HELD} at least"
        )
    count = min(max(round(share * len(files)), _HELD), len(files) - _TRAINED)
    held = np.zeros(len(files), dtype=bool)
    held[epoch_order(len(files), mix(data_seed, _HOLD_OUT), 0)[:count].numpy()] = True
    return files[~held], files[held]


def note_parts(where: str, train: np.ndarray, held_out: np.ndarray) -> None:
    """Print how many images are trained on, and how many are not."""
    distributed.print_note(
        f"{where}: {len(train):,} images to train on, {len(held_out):,} held out, without labels"
    )


def note_shared(files: Sequence[str], labelled: Mapping[str, Sequence[str]]) -> None:
    """Print how many labelled images are among those without labels, train and held out.

    Args:
        files: Paths of those without labels.
        labelled: Paths of those with labels, by what they are called.
    """
    if distributed.rank() > 0:
        return
    shared = []
    for what, others in labelled.items():
        if found := shared_images(others, files):
            shared.append(f"{len(found):,} of its {len(others):,} {what} images ({found[0][0]})")
    if shared:
        err.print(
            f"evaluate_on: {' and '.join(shared)} are also among the images without labels, which "
            "the student learns from; what is measured there is of images that it has seen"
        )


def as_text(paths: np.ndarray) -> list[str]:
    """Return packed paths, bytes [N], as texts."""
    return [os.fsdecode(path) for path in paths]
