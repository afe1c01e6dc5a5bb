r"""SimKD: the teacher's classifier behind the student's projected map.

.. math::

   L = \mathrm{mean}\big(P(F^s)-F^t\big)^2

F are last maps, P a projector; afterwards the teacher's classifier is put behind P.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from kd_core.config.values import PositiveInt
from kd_core.criteria.criterion import Borrowed, Criterion, Shapes
from kd_core.criteria.heads import find_head, require_one_map
from kd_core.errors import UserError
from kd_core.functional import mse, pool_to_match
from kd_core.networks.taps import FeatureTap


class SimKD(Criterion):
    """Match the teacher's last map, projected from the student's, by the mean squared error.

    Chen et al., "Knowledge Distillation with Reused Teacher Classifier", CVPR 2022,
    arXiv:2203.14001. The larger of the two maps is average-pooled to the size of the smaller. It is
    meant to be the only loss (`task_weight=0`). The deployed network is a `SimKDNetwork`, with the
    teacher's classifier in place of the student's.

    Args:
        student_shapes: [C, H, W] of the map that is pooled.
        teacher_shapes: [C, H, W] of the map that is pooled.
        num_classes: Outputs of the teacher's classifier.
        factor: The projector is so many times narrower than the teacher's map.
        teacher_head: Path of the teacher's classifier; None takes the last linear layer that fits.

    Raises:
        UserError: If there is no such classifier, or not one map of each network.
    """

    takes = "maps"
    reads_classes = True
    example: ClassVar = (((6, 8, 8),), ((8, 4, 4),))
    exempt: ClassVar = {"zero_at_identity": "a projector is between the two maps"}

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        num_classes: int,
        *,
        factor: PositiveInt = 2,
        teacher_head: str | None = None,
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        (inputs, *size), (outputs, *target) = student_shapes[0], teacher_shapes[0]
        smaller = [min(pair) for pair in zip(size, target, strict=True)]
        self.size = None if smaller == size else smaller
        self.widths = {"inputs": inputs, "outputs": outputs, "factor": factor}
        self.projector = Projector(**self.widths)
        self.num_classes = num_classes
        self.teacher_head = teacher_head

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Also reject more than one map."""
        super().check_shapes(student, teacher)
        require_one_map("SimKD", student)

    def bind(
        self, student: nn.Module, teacher: nn.Module, taps: tuple[Sequence[str], Sequence[str]]
    ) -> None:
        """Borrow the teacher's classifier."""
        channels = self.widths["outputs"]
        self.head = Borrowed(find_head(teacher, channels, self.num_classes, self.teacher_head))
        self.tap = taps[0][0]

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of one map [N, C, H, W] of each network; `batch` is not used."""
        own, shown = pool_to_match(student[0], teacher[0].detach())
        return mse(self.projector(own), shown)

    def deploy(self, student: nn.Module) -> nn.Module:
        """Return the student with projector and teacher's classifier, all shared, not copied."""
        return SimKDNetwork(student, self.tap, self.projector, self.head.module, size=self.size)

    def deploy_node(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the config node of the deployed network."""
        head, place = self.head.module, "kd_core.criteria.simkd"
        sizes = {"in_features": head.in_features, "out_features": head.out_features}
        return {
            "type": f"{place}.SimKDNetwork",
            "network": dict(node),
            "tap": self.tap,
            "projector": {"type": f"{place}.Projector", **self.widths},
            "head": {"type": "torch.nn.Linear", "bias": head.bias is not None, **sizes},
            "size": self.size,
        }


class Projector(nn.Sequential):
    """Three convolutions without bias, 1x1, 3x3 and 1x1, each with BatchNorm and ReLU.

    Args:
        inputs: Channels of the student's map.
        outputs: Channels of the teacher's map.
        factor: The channels between are so many times fewer than the outputs.

    Raises:
        UserError: If nothing is left of them.
    """

    def __init__(self, inputs: int, outputs: int, factor: int = 2) -> None:
        width = outputs // factor
        if width < 1:
            raise UserError(f"factor {factor} leaves nothing of {outputs} channels; lower it")
        super().__init__(
            *_layers(inputs, width, 1), *_layers(width, width, 3), *_layers(width, outputs, 1)
        )


def _layers(inputs: int, outputs: int, kernel: int) -> Iterator[nn.Module]:
    yield nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    yield nn.BatchNorm2d(outputs)
    yield nn.ReLU()


class SimKDNetwork(nn.Module):
    """The network that SimKD deploys: student, projector, the teacher's classifier.

    The student's own classifier stays in the network, unused.

    Args:
        network: The student's network.
        tap: Path of its last map, see `FeatureTap`.
        projector: From that map to one of the teacher's channels.
        head: The teacher's classifier.
        size: Height and width that the student's map is average-pooled to, or None.
    """

    def __init__(
        self,
        network: nn.Module,
        tap: str,
        projector: nn.Module,
        head: nn.Module,
        size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.tap = tap
        self.projector = projector
        self.head = head
        self.size = None if size is None else (size[0], size[1])

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [N, C] of images [N, 3, H, W]."""
        # Copied, since a later layer of the network may work in place on the same memory.
        with FeatureTap(self.network, self.tap, copy=self.tap) as seen:
            self.network(image)
            maps = seen[self.tap]
        if self.size:
            maps = F.adaptive_avg_pool2d(maps, self.size)
        return self.head(self.projector(maps).mean((2, 3)))
