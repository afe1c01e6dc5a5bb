"""Augmentations that mix the images of a batch with one another, on its device."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import count

import torch
from torch import Tensor

from kd_core.config.values import BetaParameter, checked
from kd_core.data.augment import Augment
from kd_core.data.sampling import Sampling, SymmetricBeta
from kd_core.errors import UserError
from kd_core.networks.task import Batch
from kd_core.runtime.seed import random_bits

_DRAWS = 14  # of RICAP, which needs most


class Mix(ABC):
    """Make every image of a batch from several; the last of the augmentations.

    Adds `mixed_weights`, float32 [N, K], the share of each part: a row sums to 1; and where there
    are labels `mixed_labels`, int64 [N, K], the classes of the parts of each image (floats
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
        mixed = batch.copy()
        mixed.pop("crop_id", None)  # it names views of one image
        mixed |= {"image": image, "mixed_weights": weights.expand(len(image), -1)}
        if "label" in batch:
            mixed["mixed_labels"] = batch["label"][sources].transpose(0, 1)
        return mixed

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
        return _averaged(image, self.share(numbers.uniform()), numbers.order())


class RolledMixup(Mix):
    """Average every image with the one before it in the batch; its own share is the larger one.

    As the code of Beyer et al., "Knowledge distillation: A good teacher is patient and consistent",
    CVPR 2022, arXiv:2106.05237, mixes for function matching. The first image gets the last one.
    So the order must be shuffled, as it is in training: sorted by class, equal classes would mix.

    Args:
        alpha: Of Beta(alpha, alpha), of which the larger share is taken; 1 is uniform.
    """

    @checked
    def __init__(self, alpha: BetaParameter = 1.0) -> None:
        self.share = SymmetricBeta(alpha)

    def mix(self, image: Tensor, numbers: "_Numbers") -> tuple[Tensor, Tensor, Tensor]:
        """Add each image times a share to the one before times the rest."""
        share = self.share(numbers.uniform())
        order = torch.arange(len(image), device=image.device).roll(1)
        return _averaged(image, torch.maximum(share, 1 - share), order)


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
        self._draws = _draws(sampling.below(2**31))

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
        return next(self._draws)


def _draws(key: Tensor) -> Iterator[Tensor]:
    """Draw bits again and again, int64 [N]: many at once cost as many operations as one."""
    for first in count(1, _DRAWS):
        calls = torch.arange(first, first + _DRAWS, device=key.device)
        yield from random_bits(key, calls[:, None])


def _averaged(image: Tensor, share: Tensor, order: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `Mix.mix` does for a share of every image and the rest of another one."""
    image = image.float() / 255 if image.dtype == torch.uint8 else image
    mixed = torch.lerp(image[order], image, share.to(image.dtype))
    return mixed, _with_itself(order), torch.stack([share, 1 - share])


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
