r"""FGD: the teacher's pyramid, objects and background apart, and its relations between pixels.

.. math::

   L = \sum_l\sum\big(\alpha M+\beta B\big)A^t_{pos}A^t_{ch}\,(F^s-F^t)^2
   +\gamma\big(|A^s-A^t|\big)+\lambda\,\|R(F^s)-R(F^t)\|^2

M marks objects, each divided by its area, B the background; A is attention over positions and
channels, R a block of global context.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_core.config.values import NonNegative, Positive
from kd_core.criteria.aligners import aligners, require_same_sizes
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.errors import UserError
from kd_core.functional import Maps, batch_mean, full_precision, levels, require_same_shape


@full_precision
def fgd(
    student: Maps,
    teacher: Maps,
    boxes: Sequence[Tensor],
    padded_size: Sequence[int] | Tensor,
    *,
    temperature: float = 0.5,
    alpha: float = 1e-3,
    beta: float = 5e-4,
    gamma: float = 1e-3,
) -> Tensor:
    """Match maps where the teacher attends, objects and background apart, and the attention itself.

    The focal part of Yang et al., "Focal and Global Knowledge Distillation for Detectors",
    CVPR 2022, arXiv:2111.11837; `FGD` adds the global one. Every object weighs the same, whatever
    its area, and so does the background. Mean over the batch, summed over levels.

    Args:
        student: One map [N, C, H, W] or a tuple, shallow to deep, already of the teacher's shapes.
        teacher: As many maps. No gradient flows into them.
        boxes: Of the objects in each of the N images, [n, 4]: left, top, right, bottom in pixels.
        padded_size: Height and width in pixels of what the maps cover; [N, 2] if each image's own.
        temperature: Divides the mean magnitudes before the softmax that gives the attention.
        alpha: Weight of the objects.
        beta: Weight of the background.
        gamma: Weight of the attention.

    Raises:
        UserError: If the numbers of levels or the shapes differ.
    """
    losses = []
    for s, t in levels(student, teacher):
        require_same_shape(s, t)
        places, channels = _attention(s, temperature)
        shown_places, shown_channels = _attention(t.detach(), temperature)
        objects = _object_mask(t.detach(), boxes, padded_size)
        rest = (objects == 0).to(t.dtype)
        mask = alpha * objects + beta * rest / rest.sum((1, 2), keepdim=True).clamp_min(1)
        errors = (shown_channels * (s - t.detach()).square()).sum(1) * shown_places
        attention = (places - shown_places).abs().sum() + (channels - shown_channels).abs().sum()
        losses.append(batch_mean(mask * errors) + gamma * attention / max(len(s), 1))
    return torch.stack(losses).sum()


def _attention(maps: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return how much each place [N, H, W] and each channel [N, C, 1, 1] counts: 1 on average."""
    magnitudes, (height, width) = maps.abs(), maps.shape[2:]
    places = (magnitudes.mean(1).flatten(1) / temperature).softmax(1) * (height * width)
    channels = (magnitudes.mean((2, 3)) / temperature).softmax(1) * maps.shape[1]
    return places.unflatten(1, (height, width)), channels[:, :, None, None]


def _object_mask(
    maps: Tensor, boxes: Sequence[Tensor], padded_size: Sequence[int] | Tensor
) -> Tensor:
    """Return 1 / area inside of each box, the largest where they overlap, 0 elsewhere: [N, H, W].

    Areas are in cells of the map, which belong to a box as a whole. So does, as in the authors'
    code, the cell that begins where the box ends, even beyond the map.
    """
    mask = maps.new_zeros(len(maps), *maps.shape[2:])
    sizes = padded_size if isinstance(padded_size, Tensor) else [padded_size] * len(boxes)
    for image, given, (height, width) in zip(mask, boxes, sizes, strict=True):
        if len(given):
            x1, y1, x2, y2 = given.to(maps.dtype).unbind(1)
            rows, high = _covered(y1, y2, maps.shape[2], height)
            columns, wide = _covered(x1, x2, maps.shape[3], width)
            inside = rows[:, :, None] & columns[:, None]
            image.copy_((inside / (high * wide)[:, None, None]).amax(0))
    return mask


def _covered(start: Tensor, end: Tensor, cells: int, pixels: int | Tensor) -> tuple[Tensor, Tensor]:
    """Return which cells are between start and end [n] in pixels, [n, cells], and how many."""
    # Multiply first: a rounded quotient would move an end to the next cell.
    first, last = (start * cells / pixels).floor(), (end * cells / pixels).ceil()
    places = torch.arange(cells, device=start.device)
    inside = (places >= first[:, None]) & (places <= last[:, None])
    return inside, last + 1 - first


class FGD(Criterion):
    """See `fgd`; adds the relations between pixels: a trained block (GCNet) of each network.

    Also a 1x1 convolution where channels differ. Of `batch` it needs `boxes` and `padded_size`,
    see `fgd`, and `image_sizes` [N, 2] (height, width) for `unpadded`. The authors' weights are
    alpha 1e-3, beta 5e-4, gamma 5e-4, relation_weight 5e-6 for one-stage detectors, and 5e-5,
    2.5e-5, 5e-5, 5e-7 for two-stage ones.

    Args:
        student_shapes: [C, H, W] of each tapped map.
        teacher_shapes: [C, H, W] of each tapped map.
        temperature: Divides the mean magnitudes before the softmax that gives the attention.
        alpha: Weight of the objects.
        beta: Weight of the background.
        gamma: Weight of the attention.
        relation_weight: Weight of the relations, the paper's lambda.
        unpadded: As the authors' code does, take the maps to cover each image without its padding;
            the boxes of a padded image shift.

    Raises:
        UserError: If the sizes of the maps differ.
    """

    takes = "maps"

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        temperature: Positive = 0.5,
        alpha: NonNegative = 1e-3,
        beta: NonNegative = 5e-4,
        gamma: NonNegative = 1e-3,
        relation_weight: NonNegative = 5e-6,
        unpadded: bool = False,
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        require_same_sizes("FGD", student_shapes, teacher_shapes)
        self.focal = dict(temperature=temperature, alpha=alpha, beta=beta, gamma=gamma)
        self.relation_weight = relation_weight
        self.unpadded = unpadded
        self.aligners = aligners(student_shapes, teacher_shapes)
        channels = [shape[0] for shape in teacher_shapes]
        self.student_relations = nn.ModuleList(map(_Relation, channels))
        self.teacher_relations = nn.ModuleList(map(_Relation, channels))

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of maps [N, C, H, W]; of `batch`, see the class.

        Raises:
            UserError: If `batch` has no boxes.
        """
        if "boxes" not in batch:
            raise UserError(
                "FGD needs batch['boxes'], where the objects are; use it to distil detectors, or "
                "another method on maps, such as PKD or MGD"
            )
        aligned = [align(maps) for align, maps in zip(self.aligners, student, strict=True)]
        size = batch["image_sizes"] if self.unpadded else batch["padded_size"]
        focal = fgd(aligned, teacher, batch["boxes"], size, **self.focal)
        return focal + self.relation_weight * self._relations(aligned, teacher)

    def _relations(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        blocks = zip(self.student_relations, self.teacher_relations, strict=True)
        pairs = zip(blocks, levels(student, teacher), strict=True)
        errors = [relate(s) - relate_shown(t.detach()) for (relate, relate_shown), (s, t) in pairs]
        return torch.stack([batch_mean(error.square()) for error in errors]).sum()


class _Relation(nn.Module):
    """Global context block: adds a weighted mean over all pixels to every pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = channels // 2
        self.attend = nn.Conv2d(channels, 1, 1)
        self.transform = nn.Sequential(
            nn.Conv2d(channels, middle, 1),
            nn.LayerNorm([middle, 1, 1]),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, channels, 1),
        )
        nn.init.kaiming_normal_(self.attend.weight, nonlinearity="relu")
        for parameter in self.transform[-1].parameters():  # at first it adds nothing
            nn.init.zeros_(parameter)

    def forward(self, maps: Tensor) -> Tensor:
        pixels = maps.flatten(2)  # [N, C, H * W]
        attention = self.attend(maps).flatten(2).softmax(2)
        return maps + self.transform((pixels @ attention.mT)[..., None])
