"""What a teacher gives for a few images, before training: whether it can be kept, and how."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kd_core.distill.teacher import Teacher
from kd_core.errors import UserError, located
from kd_core.networks.task import Batch, rows_of
from kd_core.training.targets.forms import Form, TopK, Whole

ALIKE = 0.02  # of the largest value; bf16 in other batches differs by up to 0.01


def forms_of(
    teacher: Teacher, sample: Batch, autocast: Any, topk: Mapping[str, tuple[int, float]]
) -> dict[str, Form]:
    """Return how the taps of a teacher are kept, from a pass over some images.

    Args:
        teacher: With its taps set.
        sample: The images.
        autocast: Returns the context of a pass.
        topk: Taps of which the largest probabilities are kept: how many, and the temperature.

    Raises:
        UserError: If a tap gives no row for each image, one that depends on the batch, or numbers
            that float16 cannot hold.
    """
    views = int(sample.get("num_views", 1))
    count = len(sample["image"]) // views
    features = outputs_of(teacher, sample, autocast)
    forms: dict[str, Form] = {}
    for tap, value in features.items():
        if not isinstance(value, Tensor) or len(value) != views * count or value.dim() < 2:
            came = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UserError(f"tap {tap!r} gives {came}, which is not a row for each image")
        if tap in topk:
            forms[tap] = TopK(value.shape[1], *topk[tap], views)
        else:
            forms[tap] = Whole(value.shape[1:], views)
        with located(f"tap {tap!r}"):
            forms[tap].encode(value)
    alone = outputs_of(teacher, first_images(sample, max(count // 2, 1), count), autocast)
    for tap, value in alone.items():
        whole = features[tap].unflatten(0, (views, -1))[:, : len(value) // views].flatten(0, 1)
        if not (value - whole).abs().max() <= ALIKE * whole.abs().max():
            raise UserError(
                f"tap {tap!r} has other values for an image in another batch, so they cannot be "
                "kept by image; leave trainer.teacher_cache out"
            )
    return forms


def outputs_of(teacher: Teacher, batch: Batch, autocast: Any) -> dict[str, Any]:
    """Return what the teacher's taps give for a batch under autocast."""
    with autocast():
        return teacher(batch)


def first_images(batch: Batch, wanted: int, count: int) -> Batch:
    """Return the first of so many images of a batch, in all their views."""
    views = int(batch.get("num_views", 1))
    rows = (torch.arange(views)[:, None] * count + torch.arange(wanted)).flatten()
    part = rows_of(batch, rows.to(batch["image"].device))
    return {**part, "num_views": views} if views > 1 else part
