"""Augmentations that mix the images of a batch with one another, on its device."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kd_core.config.values import BetaParameter, checked
from kd_core.data.augment import Augment
from kd_core.data.sampling import Sampling
from kd_core.errors import UserError
from kd_core.networks.task import Batch
from kd_core.runtime.seed import random_bits


class Mix(ABC):
    """Make every image of a batch from several; the last of the augmentations.

    Adds `mixed_weights`, float32 [N, K], the share of each part: a row sums to 1; and, where there
    are labels, `mixed_labels`, int64 [N, K], the classes of the parts of each image (floats
    [N, K, C], where images have several). A class may occur twice. `label` and `index` stay those
    of the original image at that place. So a reader of `label` sees one class only, which may be a
    small part of the image. `crop_id` is removed, because it does not identify the image any more.

    How images are mixed is drawn once a batch, as a function of (data_seed, epoch, the batch's
    first sample); the partners are a function of (data_seed, epoch, the batch's samples). In
    data-parallel training every process mixes its own part, with its own random numbers.
    """

    def __call__(self, batch: Batch, sampling: Sampling) -> Batch:
        """Mix `image` [N, 3, H, W], each with its `label` if it has one."""
        name = type(self).__name__
        if "num_views" in batch:
            raise UserError(
                f"{name}: the batch has several views of every image, which would no longer be "
                "views of one; leave either the views or the mixing out"
            )
        if "mixed_weights" in batch:
            raise UserError(f"{name}: the images are mixed already; keep one of the two")
        image, sources, weights = self.mix(batch["image"], _Numbers(sampling))
        rest = batch.copy()
        rest.pop("crop_id", None)  # it names views of one image
        rest |= {"image": image, "mixed_weights": weights.expand(len(image), -1)}
        if "label" in batch:
            rest["mixed_labels"] = batch["label"][sources].transpose(0, 1)
        return rest

    @abstractmethod
    def mix(self, image: Tensor, numbers: "_Numbers") -> tuple[Tensor, Tensor, Tensor]:
        """Return the images, the places of their parts in the batch, and the shares.

        Args:
            image: uint8 [N, 3, H, W], or floats in [0, 1].
            numbers: Random numbers of this batch.

        Returns:
            Images [N, 3, H, W], int64 [K, N] and float32 [K].
        """


class Mixup(Mix):
    """Average every image with another one: floats in [0, 1], two labels.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv:1710.09412.

    Args:
        alpha: Of Beta(alpha, alpha), from which the image's own share is drawn; 1 is uniform.
    """

    @checked
    def __init__(self, alpha: BetaParameter = 1.0) -> None:
        self.share = SymmetricBeta(alpha)

    def mix(self, image: Tensor, numbers: "_Numbers") -> tuple[Tensor, Tensor, Tensor]:
        """Add each image times a share to another times the rest."""
        share, order = self.share(numbers.uniform()), numbers.order()
        image = image.float() / 255 if image.dtype == torch.uint8 else image
        mixed = torch.lerp(image[order], image, share.to(image.dtype))
        return mixed, _with_itself(order), torch.stack([share, 1 - share])


class CutMix(Mix):
    """Put a box of another image into every image, at the same place: two labels.

    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features", ICCV 2019, arXiv:1905.04899. The box has the image's proportions and its centre
    anywhere in it; what lies outside is cut off, and the weights are those of the box that is left.

    Args:
        alpha: Of Beta(alpha, alpha), from which the image's own share is drawn; 1 is uniform.
    """

    @checked
    def __init__(self, alpha: BetaParameter = 1.0) -> None:
        self.share = SymmetricBeta(alpha)

    def mix(self, image: Tensor, numbers: "_Numbers") -> tuple[Tensor, Tensor, Tensor]:
        """Paste one box, the same for the whole batch."""
        length, order = (1 - self.share(numbers.uniform())).sqrt(), numbers.order()
        rows, columns = (_interval(side, length, numbers) for side in image.shape[-2:])
        box = rows[:, None] & columns
        cut = box.float().mean()
        mixed = torch.where(box, image[order], image)
        return mixed, _with_itself(order), torch.stack([1 - cut, cut])


class RICAP(Mix):
    """Tile every image from random crops of four: four labels.

    Takahashi et al., "Data Augmentation using Random Image Cropping and Patching for Deep CNNs",
    2018, arXiv:1811.09030. The point where the four tiles meet, and the place where each is cut
    from its image, are the same for the whole batch; each tile is from another image.

    Args:
        beta: Of Beta(beta, beta), from which the height and the width of the upper left tile are
            drawn, as parts of the image's.
    """

    @checked
    def __init__(self, beta: BetaParameter = 0.3) -> None:
        self.share = SymmetricBeta(beta)

    def mix(self, image: Tensor, numbers: "_Numbers") -> tuple[Tensor, Tensor, Tensor]:
        """Gather each pixel from the image of its tile."""
        channel, y, x = (torch.arange(size, device=image.device) for size in image.shape[1:])
        above, left = ((len(p) * self.share(numbers.uniform())).round().long() for p in (y, x))
        tile = 2 * (y >= above)[:, None] + (x >= left)  # [H, W], 0 to 3
        moves, areas = [], []
        for number in range(4):
            down, height = _crop(len(y), above, number >= 2, numbers)
            right, width = _crop(len(x), left, number % 2 == 1, numbers)
            moves.append(torch.stack([down, right]))
            areas.append(height * width)
        sources = torch.stack([numbers.order() for _ in range(4)])
        down, right = torch.stack(moves, 1)[:, tile].unbind()
        whose = sources[tile].movedim(2, 0)[:, None]  # [N, 1, H, W]
        mixed = image[whose, channel[:, None, None], y[:, None] + down, x + right]
        return mixed, sources, torch.stack(areas) / tile.numel()


class SymmetricBeta:
    """Turn a number uniform in [0, 1] into one of Beta(alpha, alpha), by its inverse distribution.

    Rejection sampling would read from the device at each try. Up to one half, the inverse is
    tabulated as a smooth function of x ** alpha; the rest is its mirror image. The error is below
    1e-6.

    Args:
        alpha: Positive.

    Raises:
        UserError: If alpha is not positive.
    """

    def __init__(self, alpha: float) -> None:
        if not alpha > 0:
            raise UserError(f"Beta({alpha}, {alpha}): the parameter must be positive")
        self.alpha = alpha
        power = np.linspace(0, 0.5**alpha, 2**14 + 1)  # of x: its density is then bounded
        density = (1 - power ** (1 / alpha)) ** (alpha - 1)
        reached = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
        steps = np.linspace(0, reached[-1], 2**12 + 1)
        self._table = torch.from_numpy(np.interp(steps, reached, power)).float()

    def __call__(self, uniform: Tensor) -> Tensor:
        """Return float32 in [0, 1] for float32 in [0, 1], of any shape."""
        if self._table.device != uniform.device:
            self._table = self._table.to(uniform.device)
        last = len(self._table) - 1
        place = 2 * last * torch.minimum(uniform, 1 - uniform)
        below = place.long().clamp(max=last - 1)
        power = torch.lerp(self._table.take(below), self._table.take(below + 1), place - below)
        x = power ** (1 / self.alpha)
        return torch.where(uniform < 0.5, x, 1 - x)


def check_mixing(augments: Sequence[Augment], *, inside: bool = False) -> None:
    """Reject a list that mixes images before its end, or inside another augmentation.

    Later augmentations would get floats, and images of several classes. Augmentations that make
    views, or change a part of a batch, take the images without the mixed labels.

    Args:
        augments: Augmentations in order.
        inside: Whether they are those of another one, such as `Views`.

    Raises:
        UserError: Names the one at the wrong place.
    """
    for number, augment in enumerate(augments, start=1):
        if isinstance(augment, Mix) and (inside or number < len(augments)):
            raise UserError(
                f"augment: {type(augment).__name__} must be the last of the list, after the "
                "crops, and not inside another augmentation"
            )
        for inner in (*getattr(augment, "views", ()), getattr(augment, "augment", ())):
            check_mixing(inner, inside=True)


class _Numbers:
    """Random numbers of one batch, all from one draw; every call returns new ones."""

    def __init__(self, sampling: Sampling) -> None:
        self._key = sampling.below(2**31)
        self._calls = 0

    def below(self, limit: Tensor | int) -> Tensor:
        """Draw one integer in [0, limit), int64 []."""
        return self._bits()[:1].sum() * limit >> 31  # the sum of none is 0: empty batches pass

    def uniform(self) -> Tensor:
        """Draw one number in [0, 1), float32 []."""
        return 2.0**-24 * (self._bits()[:1].sum() >> 7).float()

    def order(self) -> Tensor:
        """Draw an order of the batch, int64 [N]."""
        return self._bits().argsort(stable=True)

    def _bits(self) -> Tensor:
        self._calls += 1
        return random_bits(self._key, self._calls)


def _with_itself(order: Tensor) -> Tensor:
    """Return the batch's own order and another one, int64 [2, N]."""
    return torch.stack([torch.arange(len(order), device=order.device), order])


def _interval(side: int, length: Tensor, numbers: _Numbers) -> Tensor:
    """Draw an interval of a part of a side, clipped to it: bool [side]."""
    half = (side * length).long() // 2
    centre = numbers.below(side)
    place = torch.arange(side, device=length.device)
    return (place >= centre - half) & (place < centre + half)


def _crop(side: int, first: Tensor, second: bool, numbers: _Numbers) -> tuple[Tensor, Tensor]:
    """Draw where a tile is cut from: how far from its own place, and how long it is."""
    start, size = (first, side - first) if second else (torch.zeros_like(first), first)
    return numbers.below(side - size + 1) - start, size
