r"""CC: how the samples of the batch are correlated, in the paper's form and in a reduced one.

.. math::

   L = \tfrac1{N^2}\sum_{ij}\big(k(f^s_i,f^s_j)-k(f^t_i,f^t_j)\big)^2,
   \qquad k(x,y)=\exp(-\gamma\|x-y\|^2)

k is taken as a Taylor series of the product of unit vectors. The reduced form is the mean of the
products of the errors of each sample and the next.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 (the name all of torch's users know)
from torch import Tensor, nn

from kd_core.config.values import NonNegative, NonNegativeInt, PositiveInt
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.functional import full_precision, mse, require_same_shape


@full_precision
def cc(student: Tensor, teacher: Tensor, *, gamma: float = 0.4, order: int = 2) -> Tensor:
    """Match the Gaussian kernel between samples, in its Taylor expansion.

    Peng et al., "Correlation Congruence for Knowledge Distillation", ICCV 2019, arXiv:1904.01802:
    of unit vectors, exp(-gamma |x - y|²) is a power series of their product. Used at weight 100.

    Args:
        student: Vectors, [N, D].
        teacher: Vectors, [N, E]; E may differ from D. No gradient flows into it.
        gamma: Of the kernel; larger is narrower.
        order: Highest power kept.

    Raises:
        UserError: If the numbers of samples differ.
    """
    return mse(_kernel(student, gamma, order), _kernel(teacher.detach(), gamma, order))


def _kernel(vectors: Tensor, gamma: float, order: int) -> Tensor:
    unit = F.normalize(vectors, dim=1)
    cosine = unit @ unit.mT
    factors = [
        math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) for p in range(order + 1)
    ]
    kernel = torch.zeros_like(cosine)
    for factor in reversed(factors):
        kernel = kernel * cosine + factor
    return kernel


class CC(Criterion):
    """See `cc`.

    Args:
        gamma: Of the kernel; larger is narrower.
        order: Highest power kept.
    """

    takes = "vectors"

    def __init__(self, *, gamma: NonNegative = 0.4, order: NonNegativeInt = 2) -> None:
        super().__init__()
        self.gamma = gamma
        self.order = order

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of vectors [N, D]; `batch` is not used."""
        return cc(student, teacher, gamma=self.gamma, order=self.order)


@full_precision
def cc_neighbour(student: Tensor, teacher: Tensor) -> Tensor:
    """Lower the product of the errors of each sample and the next one in the batch.

    RepDistiller's CC: a reduced form by the paper's author, used at weight 0.02. It depends on
    the order of the batch and is 0 where there is no next sample.

    Args:
        student: Embeddings, [N, D].
        teacher: Embeddings, [N, D]. Gradients flow into them, for they are trained too.

    Raises:
        UserError: If the shapes differ.
    """
    require_same_shape(student, teacher)
    error = (student - teacher).abs()
    return (error[:-1] * error[1:]).sum() / max(len(error) - 1, 1)


class CCNeighbour(Criterion):
    """See `cc_neighbour`; adds a linear embedding to each side.

    The teacher's embedding is trained too, so both may shrink to 0, and the loss with them.

    Args:
        student_shapes: [D] of the tapped vector.
        teacher_shapes: [D] of the tapped vector.
        dim: Length of the embeddings.
    """

    takes = "vectors"
    exempt: ClassVar = {
        "zero_at_identity": "the two sides have embeddings of their own",
        "order_of_the_batch_does_not_matter": "neighbours in the batch are compared",
    }

    def __init__(
        self, student_shapes: Shapes, teacher_shapes: Shapes, *, dim: PositiveInt = 128
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        self.student_embedding = nn.Linear(student_shapes[0][0], dim)
        self.teacher_embedding = nn.Linear(teacher_shapes[0][0], dim)

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of vectors [N, D]; `batch` is not used."""
        embedded = self.teacher_embedding(teacher.detach())
        return cc_neighbour(self.student_embedding(student), embedded)
