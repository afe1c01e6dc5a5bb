r"""SKD (Streamlined): KD, and the direction of each sample's logits relative to the others'.

.. math::

   L_{dir} = \frac1N\sum_i\sqrt{d_i^\top(\Sigma+\lambda I)^{-1}d_i},
   \qquad d_i = \tfrac1N\big(\cos(z^s_i,z^s_\cdot)-\cos(z^t_i,z^t_\cdot)\big)

d is what differs in the cosines of a sample with the batch's others, Sigma their covariance; KD
is added, each part with its weight.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from kd_core.config.values import NonNegative, Positive
from kd_core.criteria.criterion import Criterion
from kd_core.criteria.kd import kd
from kd_core.errors import UserError
from kd_core.functional import batch_mean, full_precision, kept_shares


@full_precision
def skd(student: Tensor, teacher: Tensor, *, ridge: float = 0.1) -> Tensor:
    """Match the cosines between samples, by a Mahalanobis distance: the direction term alone.

    "Streamlined Knowledge Distillation", CVPR 2026. Row b of the difference of the two matrices of
    cosines [N, N], divided by C, is the error of sample b; the covariance of these rows, plus
    `ridge` on the diagonal, is the metric, and gradients flow through it too.

    Cosines are divided by C, so in a batch of usual size (64 samples, 100 classes) the covariance
    is ten thousand times smaller than the default ridge. The distance is then a Euclidean one over
    sqrt(ridge), and small beside KD. A smaller ridge gives the covariance an effect.

    Differs from the authors' code: the gradient is finite where student and teacher agree, and one
    sample gives 0, where the code gives NaN.

    Args:
        student: Logits, [N, C].
        teacher: Logits, [N, C]. No gradient flows into it.
        ridge: Added to the diagonal of the covariance, > 0.

    Raises:
        UserError: If the ridge is not positive: the covariance alone has no inverse.
    """
    if ridge <= 0:
        raise UserError(f"ridge is {ridge}, but must be positive; the authors' is 0.1")
    difference = (_cosines(student) - _cosines(teacher.detach())) / student.shape[1]
    centred = difference - difference.mean(0)
    covariance = centred.T @ centred / max(len(student) - 1, 1)
    noise = ridge * torch.eye(len(student), dtype=student.dtype, device=student.device)
    # The `_ex` variant does not read from the device to report failures.
    factor, _ = torch.linalg.cholesky_ex(covariance + noise)
    whitened = torch.linalg.solve_triangular(factor, difference.T, upper=False)
    # A norm and not the root of a sum: its gradient at 0 is 0.
    return batch_mean(torch.linalg.vector_norm(whitened, dim=0))


def _cosines(logits: Tensor) -> Tensor:
    unit = F.normalize(logits, dim=1)
    return unit @ unit.T


class SKD(Criterion):
    """KD and the direction term, `skd`.

    The sum is kept samples * KD + direction_weight * kept classes * `skd`, see `kept_shares`. The
    authors' total is 0.1 of the cross-entropy and 0.9 of this, or 0.5 of each in an older state of
    their code; temperature 1 on ImageNet.

    The authors mean to leave samples and classes out of each part, but take the part's mean before
    they mask it. So the masks only scale it by the shares that they keep, about one half each.
    That is reproduced here because results were published with it.

    Args:
        temperature: Divides the logits in KD.
        ridge: Added to the diagonal of the covariance, > 0.
        direction_weight: Weight of the direction term relative to KD.
    """

    takes = "logits"

    def __init__(
        self,
        *,
        temperature: Positive = 4.0,
        ridge: NonNegative = 0.1,
        direction_weight: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.ridge = ridge
        self.direction_weight = direction_weight

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C]; `batch` is not used."""
        samples, classes = kept_shares(teacher)
        instances = kd(student, teacher, temperature=self.temperature)
        directions = skd(student, teacher, ridge=self.ridge)
        return samples * instances + self.direction_weight * classes * directions
