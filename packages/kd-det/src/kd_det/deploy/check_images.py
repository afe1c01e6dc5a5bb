"""Pictures on which an exported file is compared with its detector."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kd_det.deploy.scaling import Scaling, read_picture, to_input

_SHAPES = ((3, 4), (1, 1), (4, 3), (2, 3))  # height to width, of the pictures that are drawn
_PATCHES = 6  # along the shorter side


def check_images(files: Sequence[str], scaling: Scaling) -> list[Tensor]:
    """Return inputs of several sizes, unless the size is fixed.

    Args:
        files: Pictures of the user; without any, some of coloured patches are drawn.
        scaling: How pictures become inputs.
    """
    pictures = [read_picture(file, scaling) for file in files] or _drawn(scaling)
    if scaling.fixed is None and files:  # one picture has one size
        pictures.append(np.ascontiguousarray(pictures[0][: pictures[0].shape[0] * 3 // 4 or 1]))
        pictures.append(np.ascontiguousarray(pictures[0].transpose(1, 0, 2)))
    # A file must bear an image without objects too; in a plain one, all scores would be equal.
    noise = np.random.default_rng(0).integers(120, 137, pictures[-1].shape)
    return [to_input(picture, scaling)[0] for picture in (*pictures, noise.astype(np.uint8))]


def _drawn(scaling: Scaling) -> list[np.ndarray]:
    found = []
    side = scaling.shorter_side or 800
    for seed, (height, width) in enumerate(_SHAPES):
        generator = torch.Generator().manual_seed(seed)
        unit = side / min(height, width)
        size = (round(unit * height), round(unit * width))
        counts = _PATCHES * height // min(height, width), _PATCHES * width // min(height, width)
        patches = torch.randint(256, (1, 3, *counts), generator=generator).float()
        large = torch.nn.functional.interpolate(patches, size)
        noise = 20 * torch.randn(large.shape, generator=generator)
        pixels = (large + noise).clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0)
        found.append(pixels.contiguous().numpy())
    return found
