"""A network as a teacher of maps: its own images, and its maps on the student's positions."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core.errors import UserError
from kd_core.networks.taps import FeatureTap, OverwrittenTapError
from kd_core.networks.task import Batch, Task
from torch import Tensor, nn

from kd_det.teachers.inputs import InputFormat
from kd_det.teachers.levels import Stride
from kd_det.teachers.passes import failing, runner_of


@dataclass(frozen=True)
class Geometry:
    """How the student's padded images become those of the network.

    Args:
        resize: Factor of height and width.
        multiple: Of which the network's images must be; they are padded at the bottom and right.
        fixed: Side of the images of a network that takes one size: padded to a square, and resized.
    """

    resize: Fraction
    multiple: int
    fixed: int

    def fit(self, images: Tensor) -> tuple[Tensor, Fraction]:
        """Return images for the network, which start at the same corner, and their factor."""
        height, width = images.shape[-2:]
        if self.fixed:
            height = width = max(height, width)
            factor, size = Fraction(self.fixed, height), (self.fixed, self.fixed)
        else:
            # The least number of the student's pixels that become a multiple of the network's.
            whole = self.resize.denominator * self.multiple
            step = whole // math.gcd(self.resize.numerator, whole)
            height, width = (-(-side // step) * step for side in (height, width))
            factor = self.resize
            size = int(height * factor), int(width * factor)
        images = F.pad(images, (0, width - images.shape[-1], 0, height - images.shape[-2]))
        if factor != 1:
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return images, factor


@dataclass(frozen=True)
class Level:
    """A map of a network, and the stride that the student's has.

    Args:
        tap: In the network.
        own: Its stride, in pixels of the network's images.
        wanted: Stride of the map that is made of it, in pixels of the student's.
    """

    tap: str
    own: Stride
    wanted: Stride


class LevelNetwork(nn.Module):
    """Runs a network on the student's images; `levels` gives its maps on the student's positions.

    A map of another stride than is wanted is resized by its positions in the image, bilinear, as
    `kd_core.criteria.aligners.resize_maps` does where the whole maps cover the same area.

    Args:
        net: The network.
        geometry: Of its images.
        levels: Its maps by name.
    """

    def __init__(self, net: nn.Module, geometry: Geometry, levels: Mapping[str, Level]) -> None:
        super().__init__()
        self.net = net
        self.levels = nn.Identity()  # its output is what terms tap
        self.geometry = geometry
        self.wanted = dict(levels)
        self.overwritten: tuple[str, ...] = ()  # taps that later layers work on in place

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return maps [N, C, h, w] by level of normalised images [N, 3, H, W], padded alike."""
        fitted, factor = self.geometry.fit(images)
        values = self._values(fitted)
        maps = {
            name: _placed(values[level.tap], level, factor, images.shape[-2:])
            for name, level in self.wanted.items()
        }
        result: dict[str, Tensor] = self.levels(maps)
        return result

    def _values(self, images: Tensor) -> dict[str, Any]:
        """Return the tapped maps; those that a later layer overwrites are copied."""
        taps = dict.fromkeys(level.tap for level in self.wanted.values())
        copied = [tap for tap in taps if tap in self.overwritten]
        try:
            with (
                failing(self.net, images.shape[-1]),
                FeatureTap(self.net, taps, copy=copied, stop=True) as values,
            ):
                runner_of(self.net)(images)
        except OverwrittenTapError as error:
            self.overwritten += tuple(error.paths)
            return self._values(images)
        return values


def _placed(maps: Tensor, level: Level, factor: Fraction, size: Sequence[int]) -> Tensor:
    """Return maps at the student's positions: cut to its images, and resized if need be."""
    height, width = (math.ceil(side / level.wanted) for side in size)
    ratio = level.wanted * factor / level.own  # positions of the network's map for one of these
    if ratio == 1:
        if maps.shape[2] < height or maps.shape[3] < width:
            uneven = any(side % level.wanted for side in size)
            advice = (
                "set KD.TEACHER.INPUT.MULTIPLE (32?), so that images are padded"
                if uneven
                else "its layers leave out the border of the images (no padding): name another map"
            )
            raise UserError(
                f"KD.TEACHER.NETWORK: {level.tap!r} gives {maps.shape[2]}x{maps.shape[3]} "
                f"positions, the student's map has {height}x{width}; {advice}"
            )
        return maps[:, :, :height, :width]
    maps = maps.float()  # bfloat16 has too few digits for places
    rows = _centres(height, float(ratio), maps.shape[2], maps)
    columns = _centres(width, float(ratio), maps.shape[3], maps)
    grid = torch.stack((columns.expand(height, width), rows[:, None].expand(height, width)), dim=-1)
    return F.grid_sample(
        maps, grid.expand(len(maps), -1, -1, -1), padding_mode="border", align_corners=False
    )


def _centres(count: int, ratio: float, length: int, like: Tensor) -> Tensor:
    """Return the centres of positions in the coordinates of `grid_sample`, -1 to 1."""
    places = torch.arange(count, device=like.device, dtype=like.dtype) + 0.5
    return places * (2 * ratio / length) - 1


class MapTeacher(Task):
    """A network that is not of Detectron2 as a teacher; runs on batches of Detectron2.

    Images are put into its order of channels and its range, normalised, and padded with zeros at
    the bottom and right to the size of the student's batch, as Detectron2 does.

    Args:
        network: See `LevelNetwork`.
        images: The format of its images.
        given: Order of channels of the images in the batches, the student's.
        multiple: Of the student's padded images, where a batch does not say their size.
        square: Side to which the student pads every batch; 0 if it does not.

    Raises:
        UserError: If the student's images are not in colour.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: LevelNetwork, images: InputFormat, given: str, *, multiple: int, square: int
    ) -> None:
        super().__init__(network)
        if given not in ("RGB", "BGR"):
            raise UserError(
                f"INPUT.FORMAT is {given}, but KD.TEACHER.NETWORK takes {images.order} images; set "
                "RGB or BGR"
            )
        self.reverse = images.order != given
        self.scale = images.range / 255
        self.multiple, self.square = max(multiple, 1), square
        for name, values in (("mean", images.mean), ("std", images.std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def run_for(self, paths: Iterable[str]) -> None:
        """Make only the levels of these taps from now on."""
        names = {path.partition("[")[2].partition("]")[0] for path in paths}
        network: Any = self.network
        network.wanted = {name: level for name, level in network.wanted.items() if name in names}

    def forward(self, batch: Batch) -> Any:
        """Run the network; the taps record its levels."""
        images = [self._normalised(one["image"]) for one in batch["inputs"]]
        height, width = batch.get("padded_size") or self._padded_size(images)
        sides = [(0, width - one.shape[2], 0, height - one.shape[1]) for one in images]
        padded = [F.pad(one, side) for one, side in zip(images, sides, strict=True)]
        return self.network(torch.stack(padded))

    def _normalised(self, image: Tensor) -> Tensor:
        image = image.to(self.mean.device, torch.float32)
        image = image.flip(0) if self.reverse else image
        return (image * self.scale - self.mean) / self.std

    def _padded_size(self, images: Sequence[Tensor]) -> tuple[int, int]:
        sides = (max(one.shape[place] for one in images) for place in (1, 2))
        height, width = (-(-side // self.multiple) * self.multiple for side in sides)
        return max(height, self.square), max(width, self.square)
