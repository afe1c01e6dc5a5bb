r"""CAT-KD: class activation maps, which say where in the image each class is found.

.. math::

   L = \mathrm{mean}\big(\mathrm{pool}(M^s)-\mathrm{pool}(M^t)\big)^2

M are class activation maps: the classifier's logits in every place; pooled to 2 x 2.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from kd_core.config.values import PositiveInt
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.criteria.heads import borrow_heads, parameters_of, require_one_map
from kd_core.functional import Maps, full_precision, levels, mse


@full_precision
def catkd(student: Maps, teacher: Maps, *, resolution: int = 2, normalize: bool = False) -> Tensor:
    """Match class activation maps, pooled, by their mean squared error.

    Guo et al., "Class Attention Transfer Based Knowledge Distillation", CVPR 2023,
    arXiv:2304.12777. Maps of several levels are summed over.

    Args:
        student: Class activation maps, [N, classes, H, W]; see `class_maps`.
        teacher: The same of the teacher; height and width may differ. No gradient flows into it.
        resolution: Height and width that both are average-pooled to.
        normalize: Give each pooled map, of one image and class, unit norm.

    Raises:
        UserError: If the numbers of classes differ.
    """

    def attention(maps: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(maps, resolution).flatten(2)
        return F.normalize(pooled, dim=2) if normalize else pooled

    pairs = levels(student, teacher)
    return torch.stack([mse(attention(s), attention(t.detach())) for s, t in pairs]).sum()


@full_precision
def class_maps(maps: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return class activation maps [N, classes, H, W]: the classifier's logits in every place.

    Their average is the network's logits if that is how the network pools.

    Args:
        maps: What is pooled before the classifier, [N, C, H, W].
        weight: Of the classifier, [classes, C].
        bias: Of the classifier, [classes], added in every place; or None.
    """
    return F.conv2d(maps, weight[:, :, None, None], bias)


class CATKD(Criterion):
    """See `catkd`; feeds it the class activation maps of the last map.

    The classifiers are the networks' own, and the student's is trained through its maps too. As the
    classifier of an averaged map is the average of the classifier's maps, the student is deployed
    as it is; the authors replace it by a network with a convolution in its place.

    Args:
        resolution: Height and width that both are average-pooled to.
        normalize: Give each pooled map, of one image and class, unit norm.
        bias: Keep the biases of the classifiers. Without them, as in the authors' code, the
            teacher's is left out of its maps, and the student has none: it is set to 0 for good.
        student_head: Path of the student's classifier; None takes the last linear layer that fits.
        teacher_head: Path of the teacher's classifier.

    Raises:
        UserError: If there is no such classifier, or not one map of each network.
    """

    takes = "maps"
    reads_classes = True
    example: ClassVar = (((6, 8, 8),), ((8, 4, 4),))
    exempt: ClassVar = {
        "zero_at_identity": "the classifiers differ, so equal maps give different class maps",
        "state_dict_keeps_the_value": "the classifiers are in the networks' state dicts",
    }

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        num_classes: int,
        *,
        resolution: PositiveInt = 2,
        normalize: bool = False,
        bias: bool = True,
        student_head: str | None = None,
        teacher_head: str | None = None,
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        self.resolution = resolution
        self.normalize = normalize
        self.bias = bias
        names = student_head, teacher_head
        self.borrow = partial(borrow_heads, (student_shapes, teacher_shapes), num_classes, names)

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Also reject more than one map."""
        super().check_shapes(student, teacher)
        require_one_map("CATKD", student)

    def bind(
        self, student: nn.Module, teacher: nn.Module, taps: tuple[Sequence[str], Sequence[str]]
    ) -> None:
        """Borrow both classifiers."""
        self.heads = self.borrow(student, teacher)
        own = self.heads[0].module.bias
        if own is not None and not self.bias:
            own.requires_grad_(False).zero_()

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of one map [N, C, H, W] of each network; `batch` is not used."""
        cams = []
        for (maps,), head in zip((student, teacher), self.heads, strict=True):
            weight, bias = parameters_of(head, maps)
            # Pooling and classifier are linear, so their order is free; this one is cheaper.
            pooled = F.adaptive_avg_pool2d(maps, self.resolution)
            cams.append(class_maps(pooled, weight, bias if self.bias else None))
        return catkd(*cams, resolution=self.resolution, normalize=self.normalize)
