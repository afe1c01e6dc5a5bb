"""One training step of a config, with random weights and without data."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances, Keypoints, PolygonMasks, RotatedBoxes
from detectron2.utils.events import EventStorage
from kd_core.errors import UserError
from kd_core.experiment import report
from kd_core.runtime.console import out
from kd_core.runtime.failures import explain, first_line
from torch import Tensor, nn

from kd_det.distiller import DetectionDistiller, Inputs
from kd_det.lazy.trainer import trainer_of
from kd_det.running.augmented import check_augmentation
from kd_det.running.machine import check_precision
from kd_det.settings.choices import check_choices


def dry_run(cfg: CfgNode) -> None:
    """Build everything with random weights, print the terms and take one step; no data is read."""
    check_choices(cfg)
    check_precision(cfg)
    check_augmentation(cfg)
    without_weights(cfg)
    trainer = trainer_of(cfg)
    model = trainer.build_model(cfg).train()
    optimizer = trainer.build_optimizer(cfg, model)
    losses = _losses(model)
    if bad := [name for name, loss in losses.items() if not loss.isfinite()]:
        raise UserError(f"{bad[0]} is not finite in the first step; look at its term and weight")
    optimizer.step()
    if isinstance(model, DetectionDistiller):
        out.print(report.terms_table(model))
    out.print(f"recipe: {_recipe(cfg, optimizer)}")
    shown = "  ".join(f"{name} {loss.item():.4g}" for name, loss in losses.items())
    out.print(f"dry run: one training step done: {shown}")


def _recipe(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> str:
    """Return how the student is trained, in one line."""
    solver = cfg.SOLVER
    precision = "mixed precision" if solver.AMP.ENABLED else "fp32"
    return (
        f"{type(optimizer).__name__} lr={optimizer.param_groups[0]['lr']:g}; "
        f"{solver.MAX_ITER} iterations of {solver.IMS_PER_BATCH} images; {precision}"
    )


def without_weights(cfg: CfgNode) -> None:
    """Change a config so that its models can be built anywhere: random, on a device that exists."""
    if cfg.KD.TERMS:
        cfg.KD.TEACHER.WEIGHTS = "random"
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"


def _losses(model: nn.Module) -> Mapping[str, Tensor]:
    """Return the losses of a synthetic batch, after their backward pass."""
    inputs = synthetic_inputs(model)
    try:
        with EventStorage():
            losses: dict[str, Tensor] = model(inputs)
        torch.stack(list(losses.values())).sum().backward()
    except UserError:
        raise
    except Exception as error:  # a model is anybody's code
        raise explain(error) or UserError(
            f"the model fails in the dry run's step, on images with boxes, masks, keypoints, "
            f"semantic labels and proposals: {type(error).__name__}: {first_line(error)}; change "
            "MODEL, or, if your model takes other inputs, try it by a few real iterations"
        ) from error
    return losses


def synthetic_inputs(model: nn.Module, size: int = 128) -> Inputs:
    """Return two images of noise with one object of the first category each.

    They have all that a model of Detectron2 may ask for: the object's box, mask and keypoints,
    semantic labels, and a proposal.

    Args:
        model: Its number of keypoints, and whether its boxes are rotated, count.
        size: Height and width in pixels.
    """
    generator = torch.Generator().manual_seed(0)
    keypoints = _of_any(model, "num_keypoints", 17)
    rotated = _of_any(model, "box_dim", 4) == 5
    inputs = []
    for _ in range(2):
        truth = _object(size, keypoints, rotated=rotated)
        regions = Instances((size, size), proposal_boxes=truth.gt_boxes.clone())
        regions.objectness_logits = torch.zeros(1)
        image = torch.randint(256, (3, size, size), dtype=torch.uint8, generator=generator)
        semantic = torch.zeros(size, size, dtype=torch.int64)
        sizes = {"height": size, "width": size}
        one = {"image": image, "instances": truth, "sem_seg": semantic, "proposals": regions}
        inputs.append({**one, **sizes})
    return inputs


def _object(size: int, keypoints: int, *, rotated: bool) -> Instances:
    """Return a triangle in the middle of an image, with its keypoints at the centre."""
    low, high, centre = size // 4, 3 * size // 4, size / 2
    truth = Instances((size, size))
    if rotated:
        truth.gt_boxes = RotatedBoxes(torch.tensor([[centre, centre, centre, centre, 0.0]]))
    else:
        truth.gt_boxes = Boxes(torch.tensor([[low, low, high, high]], dtype=torch.float32))
    truth.gt_classes = torch.zeros(1, dtype=torch.int64)
    truth.gt_masks = PolygonMasks([[np.array([low, low, high, low, high, high])]])
    truth.gt_keypoints = Keypoints(torch.tensor([[[centre, centre, 2.0]] * keypoints]))
    return truth


def _of_any(model: nn.Module, name: str, default: int) -> int:
    """Return a number that one of the modules has as an attribute."""
    values: Any = (getattr(module, name, None) for module in model.modules())
    return next((value for value in values if isinstance(value, int)), default)
