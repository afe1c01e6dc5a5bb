"""Levels of two networks by stride: measured in passes, and paired where they are equal."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from kd_core.errors import UserError, located
from kd_core.networks.map_layout import MapLayout
from kd_core.networks.probe import untouched
from kd_core.networks.taps import FeatureTap
from torch import Tensor, nn

Stride = Fraction
"""Pixels of an image for one position of a map."""
Strides = Mapping[str, Stride]
"""Of every tap that gives a map."""
Lengths = Mapping[str, Sequence[tuple[int, int]]]
"""Height and width of the map of every tap, for images of several sizes."""

_SHORTEST = 128  # pixels of the images that strides are measured with


def sizes_for(multiple: int, fixed: int = 0) -> list[int]:
    """Return the sides of two square images, multiples of a number; of one, where it is fixed."""
    if fixed:
        return [fixed]
    times = max(0, math.ceil(math.log2(_SHORTEST / multiple)))
    return [multiple * 2**times, multiple * 2 ** (times + 1)]


def measure(
    network: nn.Module, run: Callable[[Tensor], Any], taps: Iterable[str], sizes: Sequence[int]
) -> dict[str, list[tuple[int, int]]]:
    """Return height and width of every tapped map [N, C, H, W] for images of some sizes.

    Args:
        network: Whose taps they are; its modes and generators are as before afterwards.
        run: Runs it on images [1, 3, side, side].
        taps: What gives anything but maps is left out.
        sizes: Sides of square images.

    Raises:
        UserError: If the channels of a map come last, or nothing shows where they are.
    """
    taps = list(dict.fromkeys(taps))
    device = device_of(network)
    found: dict[str, list[tuple[int, int]]] = {tap: [] for tap in taps}
    for size in sizes:
        image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(size))
        layout = MapLayout(network, taps if size == sizes[0] else ())
        tap = FeatureTap(network, taps, copy=taps)
        with layout, untouched(network), tap as values:
            run(image.to(device))
        layout.check()
        for name, value in values.items():
            if isinstance(value, Tensor) and value.dim() == 4 and value.is_floating_point():
                found[name].append((value.shape[2], value.shape[3]))
    return {name: lengths for name, lengths in found.items() if lengths}


def device_of(network: nn.Module) -> torch.device:
    """Return where a network is; the CPU for one without parameters and buffers."""
    tensors = itertools.chain(network.parameters(), network.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def strides_of(lengths: Lengths, sizes: Sequence[int]) -> dict[str, Stride]:
    """Return the stride of every tap whose maps have one; see `measure`.

    With two sizes it is the growth of the image by that of the map, so borders do not count.
    """
    strides = {tap: _stride(found, sizes) for tap, found in lengths.items()}
    return {tap: stride for tap, stride in strides.items() if stride is not None}


def _stride(found: Sequence[tuple[int, int]], sizes: Sequence[int]) -> Stride | None:
    if len(found) != len(sizes) or any(height != width for height, width in found):
        return None
    cells = [height for height, _ in found]
    if len(cells) == 1:
        return Fraction(sizes[0], cells[0]) if sizes[0] % cells[0] == 0 < cells[0] - 1 else None
    grown = cells[1] - cells[0]
    return Fraction(sizes[1] - sizes[0], grown) if grown > 0 else None


def pair(
    student: Sequence[str], strides: Strides, teacher: Strides, where: str, *, resize: bool
) -> list[tuple[str, Stride]]:
    """Return the teacher's tap for each of the student's, and the stride that its map must have.

    Of several maps of one stride the last, which is the deepest, is taken.

    Args:
        student: Taps of a term.
        strides: Of these taps.
        teacher: Of the taps that may be taken, in the order of the network.
        where: Place of the term, for messages.
        resize: Take the nearest map where none has the stride.

    Raises:
        UserError: If a tap has no stride, or none of the teacher's maps has it.
    """
    with located(f"{where}.STUDENT"):
        for tap in student:
            if tap not in strides:
                raise UserError(f"{tap!r} gives no map of a stride, and maps are paired by stride")
    by_stride = {stride: tap for tap, stride in teacher.items()}
    lacking = [strides[tap] for tap in student if strides[tap] not in by_stride]
    if lacking and not resize:
        raise UserError(
            f"{where}: the student's maps have strides {shown(strides[tap] for tap in student)}, "
            f"the teacher's {shown(by_stride)}, none of them {shown(lacking)}; tap only levels "
            f"that both have{_common(student, strides, by_stride)}, or set KD.TEACHER.RESIZE_MAPS "
            f"True, which resizes the nearest{_scaled(lacking, by_stride)}"
        )
    pairs = []
    for tap in student:
        stride = strides[tap]
        nearest = min(by_stride, key=lambda other: (abs(math.log2(other / stride)), other))
        pairs.append((by_stride[nearest], stride))
    return pairs


def _common(student: Sequence[str], strides: Strides, teacher: Mapping[Stride, str]) -> str:
    """Return the student's taps whose strides the teacher has, for a message."""
    common = [tap for tap in student if strides[tap] in teacher]
    return f" (STUDENT {common})" if common else " (there is none)"


def _scaled(lacking: Sequence[Stride], teacher: Iterable[Stride]) -> str:
    """Return how another size of images would help, where the teacher has one stride."""
    strides = list(teacher)
    if len(strides) != 1 or len(set(lacking)) != 1 or not 0.5 <= strides[0] / lacking[0] <= 2:
        return ""
    return (
        f"; with KD.TEACHER.INPUT.RESIZE {float(strides[0] / lacking[0]):g} its maps would have "
        f"stride {lacking[0]}"
    )


def shown(strides: Iterable[Stride]) -> str:
    """Return strides for a message: `4, 8, 16`."""
    return ", ".join(f"{float(stride):g}" for stride in strides)
