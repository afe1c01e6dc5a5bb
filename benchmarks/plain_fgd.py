"""FGD as one would write it at first: a loop over boxes draws the masks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from kd_core.criteria.criterion import Criterion
from plain_adapters import adapted
from torch import Tensor


def fgd(
    criterion: Criterion, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping
) -> Tensor:
    """Objects, background, attention and relations."""
    total, numbers = torch.zeros((), device=student[0].device), criterion.focal
    blocks = zip(criterion.student_relations, criterion.teacher_relations, strict=True)
    maps = zip(blocks, adapted(criterion.aligners, student), teacher, strict=True)
    for (relate, relate_shown), s, t in maps:
        places, channels = attend(s, numbers["temperature"])
        shown_places, shown_channels = attend(t, numbers["temperature"])
        objects, background = masks(t, batch)
        error = (s - t).square() * shown_places * shown_channels
        total = total + numbers["alpha"] * (error * objects).sum() / len(s)
        total = total + numbers["beta"] * (error * background).sum() / len(s)
        apart = (places - shown_places).abs().sum() + (channels - shown_channels).abs().sum()
        total = total + numbers["gamma"] * apart / len(s)
        related = (relate(s) - relate_shown(t)).square().sum() / len(s)
        total = total + criterion.relation_weight * related
    return total


def attend(maps: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Attention over places [N, 1, H, W] and over channels [N, C, 1, 1]."""
    number, channels, height, width = maps.shape
    places = (maps.abs().mean(1).flatten(1) / temperature).softmax(1) * height * width
    weights = (maps.abs().mean((2, 3)) / temperature).softmax(1) * channels
    return places.view(number, 1, height, width), weights[..., None, None]


def masks(maps: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """One over the area inside of each box, and one over the number of places outside of all."""
    number, _, height, width = maps.shape
    objects = maps.new_zeros(number, 1, height, width)
    scale_y, scale_x = height / batch["padded_size"][0], width / batch["padded_size"][1]
    for image, boxes in zip(objects, batch["boxes"], strict=True):
        for x1, y1, x2, y2 in boxes.tolist():
            top, bottom = math.floor(y1 * scale_y), math.ceil(y2 * scale_y) + 1
            left, right = math.floor(x1 * scale_x), math.ceil(x2 * scale_x) + 1
            inside = image[:, top:bottom, left:right]
            area = (bottom - top) * (right - left)
            inside.copy_(inside.clamp(min=1 / area))
    background = (objects == 0).to(maps.dtype)
    return objects, background / background.sum((1, 2, 3), keepdim=True).clamp(min=1)
