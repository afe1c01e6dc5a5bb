"""Any `torch.utils.data.Dataset` of images and labels as samples."""

import copy
from collections.abc import Callable, Mapping, Sized
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from kd_core.data.image_files import as_pixels
from kd_core.data.samples.sampled import Samples
from kd_core.data.sampling import borrowed_generators, seed_generators
from kd_core.errors import UserError, located
from kd_core.files.fingerprint import fingerprint
from kd_core.runtime.failures import explain, first_line

_IMAGES, _LABELS = ("image", "img", "pixel_values"), ("label", "labels", "target")
_LOOKED_AT = 64  # samples for a fingerprint
_TRIED = 4  # samples that are read twice
_HALF_A_LEVEL = 0.5 / 255  # what rounding may add to floats in [0, 1]


class DatasetSamples(Samples):
    """The images of a data set that returns (image, label), or a dict of the two.

    An image is a PIL image (see `image_files.as_rgb`), an array [H, W] or [H, W, channels], or a
    tensor [H, W] or [channels, H, W]; arrays and tensors are uint8, or floats in [0, 1].

    Args:
        dataset: Has a length and items by number.
        name: What it is called in messages.
        image_size: See `Samples`.
        data_seed: Seed of the draws that reading an item makes from torch's or Python's generator.
        resize: Brings an image of another size, uint8 [3, H, W], to this one.
    """

    def __init__(
        self,
        dataset: Any,
        name: str,
        image_size: int | tuple[int, int],
        data_seed: int,
        resize: Callable[[Tensor], Tensor],
    ) -> None:
        self.rows = np.arange(_length(dataset, name))
        super().__init__(len(self.rows), image_size, data_seed)
        self.dataset, self.title, self.resize = dataset, name, resize

    def __getitem__(self, chosen: Any) -> Self:
        """Return some of the samples, by their numbers or bool [N]."""
        part = copy.copy(self)
        part.rows = self.rows[chosen]
        part.count = len(part.rows)
        return part

    def name(self, index: int) -> str:
        """Return data set and number of the item."""
        return f"{self.title}: {type(self.dataset).__name__}[{self.rows[index]}]"

    def image(self, index: int) -> Tensor:
        """Return an item's image."""
        with located(self.name(index)):
            image = as_bytes(self._item(index)[0])
            return image if image.shape[1:] == self.size else self.resize(image)

    def label(self, index: int) -> Any:
        """Return an item's label, as the data set gives it."""
        with located(self.name(index)):
            return self._item(index)[1]

    def is_random(self) -> bool:
        """Return whether the images are drawn at random: read again, some of them differ."""
        with borrowed_generators():
            for index in range(min(self.count, _TRIED)):
                seen = []
                for seed in (1, 2):
                    seed_generators(seed)
                    seen.append(self.image(index))
                if not torch.equal(*seen):
                    return True
        return False

    def fingerprint(self) -> str:
        """Return a hash of some images."""
        few = range(0, self.count, max(self.count // _LOOKED_AT, 1))
        images = self.__getitems__([(0, index) for index in few])
        return fingerprint(str(self.count), images)

    def _item(self, index: int) -> tuple[Any, Any]:
        try:
            item = self.dataset[int(self.rows[index])]
        except UserError:
            raise
        except Exception as error:
            if known := explain(error):  # such as lack of memory
                raise known from error
            raise UserError(f"failed ({type(error).__name__}: {first_line(error)})") from error
        if isinstance(item, Mapping):
            found = [[key for key in keys if key in item] for keys in (_IMAGES, _LABELS)]
            if all(len(keys) == 1 for keys in found):
                return item[found[0][0]], item[found[1][0]]
            raise UserError(f"gave a dict of {', '.join(map(str, item))}; wanted image and label")
        if isinstance(item, tuple | list) and len(item) == 2:
            return item[0], item[1]
        came = f"a {type(item).__name__}"
        came += f" of {len(item)}" if isinstance(item, tuple | list) else ""
        raise UserError(f"gave {came}; wanted (image, label), or a dict of image and label")


def as_bytes(image: Any) -> Tensor:
    """Return an image of any kind as uint8 [3, H, W]; see `DatasetSamples`.

    Raises:
        UserError: If it is none of these, or its numbers are in another range.
    """
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        planes = image[None] if image.dim() == 2 else image
        form = "[channels, H, W]"
    elif isinstance(image, np.ndarray):
        planes = torch.from_numpy(np.ascontiguousarray(image)) if image.dtype != object else None
        planes = None if planes is None else planes[None] if image.ndim == 2 else planes
        planes = planes.movedim(-1, 0) if planes is not None and image.ndim == 3 else planes
        form = "[H, W, channels]"
    else:
        return torch.from_numpy(as_pixels(image)).permute(2, 0, 1)
    if planes is None or planes.dim() != 3 or len(planes) not in (1, 3) or not planes.numel():
        what = f"{type(image).__name__} {list(image.shape)}"
        raise UserError(f"its image is a {what}; wanted {form} of 1 or 3 channels")
    return _scaled(planes).expand(3, -1, -1)


def _scaled(image: Tensor) -> Tensor:
    """Return uint8 of uint8, or of floats in [0, 1]."""
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        kind = str(image.dtype).removeprefix("torch.")
        raise UserError(f"its image has numbers of {kind}; wanted uint8, or floats in [0, 1]")
    low, high = image.min().item(), image.max().item()
    if not (low >= -_HALF_A_LEVEL and high <= 1 + _HALF_A_LEVEL):  # true for NaN too
        raise UserError(
            f"its image has floats from {low:.4g} to {high:.4g}; wanted uint8, or floats in [0, 1]:"
            " leave its normalisation out (each network has its own), or divide by 255"
        )
    return image.mul(255).round().clamp(0, 255).to(torch.uint8)


def _length(dataset: Any, name: str) -> int:
    count = len(dataset) if isinstance(dataset, Sized) and hasattr(dataset, "__getitem__") else 0
    if not count:
        raise UserError(f"{name}: {type(dataset).__name__} has no items by number, or none at all")
    return count
