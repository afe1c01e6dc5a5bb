"""Detectors as tasks: a student, and a teacher that runs only the tapped parts."""

import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from kd_core.errors import UserError, nearest
from kd_core.networks.task import Batch, Task
from kd_core.runtime.failures import explain, first_line
from torch import nn

import kd_det.networks.backbones  # registers MobileNetV2 with Detectron2
import kd_det.networks.resnet10  # registers a ResNet of one block a stage
import kd_det.release.fcos  # noqa: F401  lets FCOS of release 0.6 learn from images without boxes
from kd_det.networks.parts import has_backbone, module_path, part_of, parts_of
from kd_det.release.compat import normalised
from kd_det.roles import advice_without, network_roles


def build_detector(cfg: CfgNode, where: str = "") -> nn.Module:
    """Return the model that a config describes.

    Raises:
        UserError: If Detectron2 cannot build it of these values.
    """
    with building(where):
        model: nn.Module = build_model(cfg)
    return model


@contextmanager
def building(where: str = "", node: str = "MODEL") -> Iterator[None]:
    """Turn what Detectron2 raises about a node of the config into an error of one line."""
    try:
        yield
    except KeyError as error:
        if "found in" not in str(error):
            reason = f"{error} is not among the values that it knows"
            raise UserError(f"{where}{node}: Detectron2 cannot build it: {reason}") from error
        raise UserError(  # of a registry, such as META_ARCH
            f"{where}the config names a part that Detectron2 does not have: {error.args[0]}; if a "
            "module of yours registers it, name that: --import MODULE"
        ) from error
    except (
        *(AssertionError, TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError),
    ) as error:
        if memory := explain(error):
            raise memory from error
        asserted = traceback.extract_tb(error.__traceback__)[-1].line
        reason = first_line(error) or asserted or type(error).__name__
        raise UserError(f"{where}{node}: Detectron2 cannot build it: {reason}") from error


class Detector(Task):
    """Wraps a Detectron2 model, which has its own training and evaluation code.

    Its batch has `inputs`: the list of dicts that Detectron2's models take. Its roles are those of
    `kd_det.roles.ROLES`.

    Args:
        network: A model of `detectron2.modeling.build_model`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, roles=network_roles(network))
        self.backbone_alone = False

    def forward(self, batch: Batch) -> Any:
        """Return the model's own losses while training, else its predictions."""
        return self.network(batch["inputs"])

    def without_role(self, role: str) -> str:
        """Return what to do where a tap asks for a role that this detector lacks."""
        return advice_without(role)

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
            return network.backbone(normalised(network, batch["inputs"]))
        if "instances" not in batch["inputs"][0]:
            raise UserError(
                "KD.TERMS: terms tap the student's heads, which need boxes; on images without them "
                "tap its backbone (@fpn)"
            )
        return self(batch)


class TeacherDetector(Detector):
    """A teacher that runs on a student's images and regions.

    Images are converted to its channel order and normalised with its statistics. Only the
    backbone and the parts chosen by `run_for` run, those on regions on `batch["regions"]`: boxes of
    every image, by the key of the part; without it on the `proposals` of the inputs. A model
    without such parts predicts as in evaluation.

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
        self.whole = not has_backbone(network)
        self.parts = parts_of(network)

    def run_for(self, taps: Iterable[str]) -> None:
        """Run only the parts that these taps need from now on.

        Raises:
            UserError: If a tap needs the whole model to predict, with regions of its own, and it or
                another is of regions.
        """
        known, paths = parts_of(self.network), {tap: module_path(tap) for tap in taps}
        needed = {tap: part_of(path, known) for tap, path in paths.items()}
        others = [tap for tap, part in needed.items() if not part and not _in_backbone(paths[tap])]
        self.parts = [part for part in known if part in needed.values()]
        self.whole = bool(others) or not has_backbone(self.network)
        regions = [tap for tap, part in needed.items() if part and part.on_regions]
        regions += [tap for tap in others if known and paths[tap].startswith("roi_heads")]
        if others and regions:
            keys = [part.key for part in known if part.on_regions]
            raise UserError(
                f"tap {others[0]!r}: the teacher computes it only for regions of its own, but "
                f"{regions[0]!r} is compared on the student's; tap inside one of "
                f"{', '.join(keys)}{nearest(others[0], keys)}"
            )

    def forward(self, batch: Batch) -> Any:
        """Run the tapped parts; the taps record their values."""
        network: Any = self.network
        inputs = batch["inputs"]
        if self.reverse:
            inputs = [{**one, "image": one["image"].flip(0)} for one in inputs]
        if self.whole:
            return network(inputs)
        maps = network.backbone(normalised(network, inputs))
        for part in self.parts:
            part.run(network, maps, self._boxes(batch, part.key) if part.on_regions else ())
        return None

    def _boxes(self, batch: Batch, key: str) -> Any:
        """Return the boxes that a part runs on; without regions of a student, of a sample."""
        if "regions" in batch:
            return batch["regions"][key]
        return [one["proposals"].proposal_boxes for one in batch["inputs"]]


def _in_backbone(path: str) -> bool:
    return path == "backbone" or path.startswith("backbone.")
