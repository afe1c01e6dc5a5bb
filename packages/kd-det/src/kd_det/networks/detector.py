"""Detectors as tasks: a student, and a teacher that runs only the tapped parts."""

from collections.abc import Iterable, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.modeling.roi_heads import StandardROIHeads
from detectron2.structures import Instances
from kd_core.errors import UserError
from kd_core.networks.task import Batch, Task
from kd_core.runtime.failures import explain, first_line
from torch import Tensor, nn

from kd_det.roles import has_part, network_roles


def build_detector(cfg: CfgNode, where: str = "") -> nn.Module:
    """Return the model that a config describes.

    Raises:
        UserError: If Detectron2 cannot build it of these values. (A `KeyError` of its registries
            passes: see `DistillationTrainer.build_model`.)
    """
    try:
        model: nn.Module = build_model(cfg)
    except (AssertionError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        if memory := explain(error):
            raise memory from error
        reason = first_line(error) or type(error).__name__
        raise UserError(f"{where}MODEL: Detectron2 cannot build it: {reason}") from error
    return model


class Detector(Task):
    """Wraps a Detectron2 model, which has its own training and evaluation code.

    Its batch has `inputs`: the list of dicts that Detectron2's models take. Roles: `@fpn` (maps of
    the backbone, large to small), `@roi_logits` (class logits of a Faster R-CNN's box head), and
    `@towers` (the two towers of a RetinaNet's head before their last layer, of all levels).

    Args:
        network: A model of `detectron2.modeling.build_model`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, roles=network_roles(network))
        self.backbone_alone = False

    def forward(self, batch: Batch) -> Any:
        """Return the model's own losses while training, else its predictions."""
        return self.network(batch["inputs"])

    def train_backbone_alone(self) -> None:
        """Train the backbone only, and run nothing else where the losses have no weight."""
        self.backbone_alone = True
        for name, part in self.network.named_children():
            if name != "backbone":
                part.requires_grad_(False)

    def run_for_taps(self, batch: Batch) -> Any:
        """Run a batch whose losses have no weight: by the backbone alone it needs no boxes."""
        if self.backbone_alone:
            network: Any = self.network
            return network.backbone(network.preprocess_image(batch["inputs"]).tensor)
        if "instances" not in batch["inputs"][0]:
            raise UserError(
                "KD.TERMS: terms tap the student's heads, which need boxes; on images without them "
                "tap its backbone (@fpn)"
            )
        return self(batch)


class TeacherDetector(Detector):
    """A teacher that runs on a student's images and regions.

    Images are converted to its channel order and normalised with its statistics. Only the
    parts chosen by `run_for` run: the backbone, a dense head, the box head on the regions in
    `batch["proposals"]`. A model without these parts predicts as in evaluation.

    Args:
        network: The detector.
        input_format: Channel order that it was trained with: "RGB" or "BGR".
        given_format: Channel order of the images in the batches, the student's.

    Raises:
        UserError: If the two formats cannot be converted into each other.
    """

    def __init__(self, network: nn.Module, *, input_format: str, given_format: str) -> None:
        super().__init__(network)
        self.reverse = input_format != given_format
        if self.reverse and {input_format, given_format} != {"RGB", "BGR"}:
            raise UserError(
                f"the teacher takes {input_format} images, the student {given_format}; only RGB "
                "and BGR can be converted into each other: set INPUT.FORMAT of both"
            )
        self.parts = [name for name in ("backbone", "head", "roi_heads") if has_part(network, name)]

    def run_for(self, paths: Iterable[str]) -> None:
        """Run only the parts that these taps need from now on."""
        needed = {"backbone", *(path.partition(".")[0].partition("[")[0] for path in paths)}
        self.parts = [name for name in self.parts if name in needed]
        if needed - set(self.parts):
            self.parts = []

    def forward(self, batch: Batch) -> Any:
        """Run the tapped parts; the taps record their values."""
        network: Any = self.network
        inputs = batch["inputs"]
        if self.reverse:
            inputs = [{**one, "image": one["image"].flip(0)} for one in inputs]
        if "backbone" not in self.parts:
            return network(inputs)
        features = network.backbone(network.preprocess_image(inputs).tensor)
        if "head" in self.parts:
            network.head([features[name] for name in network.head_in_features])
        if "roi_heads" in self.parts:
            class_logits(network.roi_heads, features, batch["proposals"])
        return None


def class_logits(
    heads: StandardROIHeads, features: dict[str, Tensor], regions: Sequence[Instances]
) -> Tensor:
    """Return the logits of a box head for given regions, [regions of all images, classes + 1]."""
    levels = [features[name] for name in heads.box_in_features]
    boxes = [region.proposal_boxes for region in regions]
    return heads.box_predictor(heads.box_head(heads.box_pooler(levels, boxes)))[0]
