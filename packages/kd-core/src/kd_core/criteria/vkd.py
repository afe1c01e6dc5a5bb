r"""VkD: the teacher's vector from the student's, through a projection that stays orthogonal.

.. math::

   L = \mathrm{smooth}_{L_1}\big(P f^s,\ \mathrm{norm}(f^t)\big),\qquad P^\top P = I

P stays orthogonal while it is trained; norm is a layer norm, or standardisation over the batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.criteria.kept_heads import KeepsHead
from kd_core.errors import UserError
from kd_core.functional import full_precision, require_same_shape

Normalize = Literal["layer", "standard"]

_LAYER_EPS = 1e-5  # of LayerNorm
_CONSTANT_EPS = 1e-6  # deviation of a channel that is the same in the whole batch
_OFF = 1e-3  # from orthonormal, more than rounding explains


@full_precision
def vkd(student: Tensor, teacher: Tensor, *, normalize: Normalize = "layer") -> Tensor:
    """Match projected vectors to normalised ones of the teacher by a smooth L1 distance.

    Miles et al., "VkD: Improving Knowledge Distillation using Orthogonal Projections", CVPR 2024,
    arXiv:2403.06213. Mean over the batch and all channels.

    Differs from the authors' code: `"standard"` divides a channel that is constant in the batch by
    1e-6 where theirs divides by 0, and has neither the gain nor the bias behind their projector,
    which cancel.

    Args:
        student: Projected, [N, D].
        teacher: [N, D]. No gradient flows into it.
        normalize: `"layer"` (classification): the teacher's vectors have mean 0 and variance 1
            over their channels, the student's stay as they are. `"standard"` (detection): both
            have mean 0 and deviation 1 over the batch, channel by channel.

    Raises:
        UserError: If the shapes differ, or a batch of one is to be standardised.
    """
    require_same_shape(student, teacher)
    pair = normalized(student, teacher.detach(), normalize)
    return F.smooth_l1_loss(*pair, reduction="sum") / max(student.numel(), 1)


def normalized(student: Tensor, teacher: Tensor, normalize: Normalize) -> tuple[Tensor, Tensor]:
    """Return both vectors as `vkd` compares them."""
    if normalize == "layer":
        return student, F.layer_norm(teacher, teacher.shape[1:], eps=_LAYER_EPS)
    if len(student) == 1:
        raise UserError(
            'VkD: normalize="standard" needs the deviation over the batch, and this batch has one '
            'image; take larger batches that leave no single image over, or normalize="layer"'
        )
    return _standardized(student), _standardized(teacher)


def _standardized(vectors: Tensor) -> Tensor:
    if not len(vectors):
        return vectors
    deviation, mean = torch.std_mean(vectors, 0)
    return (vectors - mean) / torch.where(deviation == 0, _CONSTANT_EPS, deviation)


class _Orthogonal(nn.Module):
    """Parametrization of a matrix with orthonormal columns, or rows where these are fewer.

    The columns of the free matrix are made orthonormal one after the other (Gram-Schmidt, by the
    Cholesky factor of their products; twice, for full precision). It takes products of matrices
    alone, so that nothing is read from the device. The scale of the free matrix has no effect.
    """

    @full_precision
    def forward(self, free: Tensor) -> Tensor:
        """Return the matrix [D, E] of a free one."""
        columns = free if free.shape[0] >= free.shape[1] else free.mT
        for _ in range(2):
            factor, _ = torch.linalg.cholesky_ex(columns.mT @ columns)
            columns = torch.linalg.solve_triangular(factor, columns.mT, upper=False).mT
        return columns if free.shape[0] >= free.shape[1] else columns.mT

    @full_precision
    def right_inverse(self, matrix: Tensor) -> Tensor:
        """Return a free matrix of an orthogonal one: a copy of it.

        Raises:
            UserError: If it is not orthogonal.
        """
        products = matrix @ matrix.mT if matrix.shape[0] < matrix.shape[1] else matrix.mT @ matrix
        off = (products - torch.eye(len(products)).to(products)).abs().max().item()
        if not off < _OFF:
            raise UserError(
                f"the weight of an orthogonal projector needs orthonormal columns (rows, where "
                f"these are fewer), but their products are off by {off:.2g}; "
                "torch.nn.init.orthogonal_ makes such a matrix"
            )
        # Not the caller's memory, and in one order of it: a resumed run has the same last bits.
        return matrix.clone(memory_format=torch.contiguous_format)


def orthogonal_projector(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear map without bias whose weight is orthogonal, at first a random one.

    A semi-orthogonal matrix can be assigned to its `weight`.

    Args:
        inputs: Channels of the student's vectors.
        outputs: Channels of the teacher's.
    """
    projector = nn.Linear(inputs, outputs, bias=False)
    nn.init.orthogonal_(projector.weight)
    return cast(nn.Linear, register_parametrization(projector, "weight", _Orthogonal()))


class VkD(KeepsHead, Criterion):
    """See `vkd`; adds the orthogonal `projector` from the student's channels to the teacher's.

    The authors compare the mean of a transformer's patch tokens, after the last normalisation and
    without class and distillation token, with the mean of a convolutional teacher's last map: the
    tap `@map:mean` of both. Weight decay leaves the projector alone.

    Args:
        student_shapes: [D] of the student's vectors.
        teacher_shapes: [E] of the teacher's.
        normalize: "layer" or "standard"; the latter needs batches of two images at least.
        keep_head: Export the projector with the student, as a linear layer.
    """

    takes = "vectors"
    exempt: ClassVar = {"zero_at_identity": "the student is projected, the teacher is normalised"}

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        normalize: Normalize = "layer",
        keep_head: bool = False,
    ) -> None:
        super().__init__()
        self.keep_head = keep_head
        self.check_shapes(student_shapes, teacher_shapes)
        self.normalize: Normalize = normalize
        self.projector = orthogonal_projector(student_shapes[0][0], teacher_shapes[0][0])

    def kept_head(self) -> nn.Module:
        """Return the projector as it is now, without what keeps it orthogonal."""
        weight = self.projector.weight.detach()
        head = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        head.load_state_dict({"weight": weight})
        return head.to(weight)

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of vectors [N, D] and [N, E]; `batch` is not used."""
        return vkd(self.projector(student), teacher, normalize=self.normalize)

    @full_precision
    def compared(self, student: Tensor, teacher: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        """Return the projected vectors and the teacher's, as they are compared."""
        if self.normalize == "standard" and len(student) == 1:
            return ()  # the last batch of an evaluation
        return (normalized(self.projector(student), teacher, self.normalize),)
