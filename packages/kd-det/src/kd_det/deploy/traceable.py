"""A detector as a function of one image, which can be traced: tensors in, tensors out."""

from collections.abc import Callable, Sequence
from typing import Any

from detectron2.modeling import GeneralizedRCNN, PanopticFPN
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import Boxes, Instances
from kd_core.errors import UserError
from torch import Tensor, nn

Run = Callable[[Tensor], Sequence[Tensor]]
"""From an image, float32 [C, H, W] of 0 to 255, to what `Traceable.names` lists."""

OUTPUTS = {
    "boxes": "[N, 4] float32: left, top, right and bottom, in pixels of the input",
    "scores": "[N] float32: from 0 to 1",
    "classes": "[N] int64: numbers of the categories, from 0, in the order of their list",
    "masks": "[N, 1, S, S] float32: probabilities of the pixels inside a box, S x S of them",
    "keypoints": "[N, K, 3] float32: x and y in pixels of the input, and a score",
}
_FIELDS = dict(
    zip(
        OUTPUTS,
        ("pred_boxes", "scores", "pred_classes", "pred_masks", "pred_keypoints"),
        strict=True,
    )
)


class Traceable(nn.Module):
    """Detects in one image, as Detectron2's `TracingAdapter` of its deployment does.

    Boxes are those of the image as it came in; a caller that has scaled it scales them back.

    Args:
        network: A Faster, Mask, Cascade or Keypoint R-CNN, a RetinaNet or an FCOS.

    Raises:
        UserError: If it is another kind of network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        require_deployable(network)
        self.network: Any = network
        heads = getattr(network, "roi_heads", None)
        self.names = ["boxes", "scores", "classes"]
        self.names += ["masks"] * bool(getattr(heads, "mask_on", False))
        self.names += ["keypoints"] * bool(getattr(heads, "keypoint_on", False))
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return what `names` lists of an image, float32 [C, H, W] of 0 to 255."""
        inputs = [{"image": image}]
        if isinstance(self.network, GeneralizedRCNN):
            found = self.network.inference(inputs, do_postprocess=False)[0]
        else:
            found = self.network(inputs)[0]["instances"]
        values = [found.get(_FIELDS[name]) for name in self.names]
        return tuple(value.tensor if isinstance(value, Boxes) else value for value in values)


def require_deployable(network: nn.Module) -> int:
    """Return how many classes a detector of boxes has.

    Raises:
        UserError: If it is another kind of network, or needs more than an image.
    """
    part = getattr(network, "roi_heads", network)
    count = getattr(part, "num_classes", None)
    known = isinstance(network, GeneralizedRCNN | DenseDetector)
    if not known or isinstance(network, PanopticFPN) or not isinstance(count, int):
        raise UserError(
            f"{type(network).__name__} cannot be deployed here; wanted a GeneralizedRCNN "
            "(Faster, Mask, Cascade or Keypoint R-CNN), a RetinaNet or an FCOS"
        )
    if isinstance(network, GeneralizedRCNN) and network.proposal_generator is None:
        raise UserError(
            "a detector on files of proposals (MODEL.LOAD_PROPOSALS) cannot be deployed: its "
            "file would need the proposals of every image"
        )
    return count


def instances(found: Sequence[Tensor], names: Sequence[str], size: tuple[int, int]) -> Instances:
    """Return what `Traceable` or an exported file found in an image of a height and width."""
    fields: dict[str, Any] = {_FIELDS[n]: value for n, value in zip(names, found, strict=True)}
    fields["pred_boxes"] = Boxes(fields["pred_boxes"])
    return Instances(size, **fields)
