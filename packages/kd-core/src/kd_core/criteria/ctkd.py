r"""CTKD: KD at a learned temperature that makes the task harder from epoch to epoch.

.. math::

   L = \tau^2\,\mathrm{KL}\big(\sigma(z^t/\tau)\,\|\,\sigma(z^s/\tau)\big),
   \qquad \tau = 1+20\,\mathrm{sigmoid}(\theta)

The gradient of theta is reversed, and grows from epoch to epoch, so that tau makes the task
harder.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kd_core.config.values import PositiveInt
from kd_core.criteria.criterion import Criterion
from kd_core.criteria.kd import Standardizable, kd
from kd_core.errors import UserError


class CTKD(Standardizable, Criterion):
    """KD at a learned temperature, 1 + 20 * sigmoid(theta).

    Li et al., "Curriculum Temperature for Knowledge Distillation", AAAI 2023, arXiv:2211.16231; the
    variant with one temperature for all samples. The student's optimizer also trains theta, with
    weight decay. Its gradient is multiplied by a factor that falls from 0 to -1 along half a
    cosine: the temperature moves to where KD is larger. In the first epoch the factor is -0.024.

    It adds 1 parameter and needs `batch["epoch"]`, the epochs done so far. In distributed training
    all ranks share one temperature; the authors' code has one for each process.

    Args:
        ramp_epochs: Epoch, counted from 1, from which on the factor is -1.
        standardize: Give each row of both logits zero mean and unit deviation first; Sun et al.,
            CVPR 2024, arXiv:2403.01427.
    """

    takes = "logits"

    def __init__(self, *, ramp_epochs: PositiveInt = 10, standardize: bool = False) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(()))
        self.ramp_epochs = ramp_epochs
        self.standardize = standardize

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C] in `batch["epoch"]`.

        Raises:
            UserError: If the batch does not say the epoch.
        """
        if "epoch" not in batch:
            raise UserError(
                "CTKD needs batch['epoch'], the epochs done so far as a float tensor on the "
                "device; the Distiller adds it after begin(steps_per_epoch)"
            )
        factor = self._factor(batch["epoch"])
        # Theta in value, but its gradient is multiplied by the factor.
        theta = self.theta * factor + (self.theta - self.theta * factor).detach()
        temperature = 1 + 20 * theta.sigmoid()
        return kd(student, teacher, temperature=temperature, standardize=self.standardize)

    def _factor(self, epoch: Tensor) -> Tensor:
        """Return the factor of theta's gradient, constant inside an epoch."""
        progress = (epoch.floor() + 1).clamp(max=self.ramp_epochs) / self.ramp_epochs
        return ((math.pi * progress).cos() - 1) / 2
