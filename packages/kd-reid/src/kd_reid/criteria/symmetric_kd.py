"""Symmetric KD: the softened identity probabilities, compared in both directions."""

from collections.abc import Mapping
from typing import Any

from kd_core.config.values import Positive
from kd_core.criteria.criterion import Criterion
from kd_core.functional import full_precision, kl_divergence
from torch import Tensor


@full_precision
def symmetric_kd(student: Tensor, teacher: Tensor, *, temperature: float = 16.0) -> Tensor:
    """Match identity probabilities by the mean of KL(teacher || student) and its reverse.

    The `jsdiv_loss` of fast-reid (He et al., "FastReID: A Pytorch Toolbox for General Instance
    Re-identification", arXiv:2006.02631), at its temperature and weight 1. That is half of
    Jeffreys' divergence, not the Jensen-Shannon divergence of the name. The factor temperature² is
    inside, and the gradient flows through the student in both directions.

    Args:
        student: Logits, [N, C]; of a softmax with a margin, those before the margin.
        teacher: Logits, [N, C]. No gradient flows into it.
        temperature: Divides the logits.

    Raises:
        UserError: If the shapes differ.
    """
    sides = (student, teacher.detach())
    own, shown = ((logits / temperature).log_softmax(1) for logits in sides)
    return (kl_divergence(own, shown) + kl_divergence(shown, own)) / 2 * temperature**2


class SymmetricKD(Criterion):
    """See `symmetric_kd`.

    Args:
        temperature: Divides the logits.
    """

    takes = "logits"

    def __init__(self, *, temperature: Positive = 16.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C]; `batch` is not used."""
        return symmetric_kd(student, teacher, temperature=self.temperature)
