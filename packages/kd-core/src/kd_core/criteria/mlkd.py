r"""MLKD: KD and the correlations of classes and of samples, at several temperatures.

.. math::

   L = \sum_\tau \tau^2\,\mathrm{KL}(p^t\|p^s)
   + \tfrac1N\big\|p^s p^{s\top}-p^t p^{t\top}\big\|^2
   + \tfrac1C\big\|p^{s\top}p^s-p^{t\top}p^t\big\|^2

p are the probabilities [N, C] at each temperature tau.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kd_core.config.values import Positive, PositiveValues
from kd_core.criteria.criterion import Criterion
from kd_core.criteria.kd import Standardizable, kd
from kd_core.errors import UserError
from kd_core.functional import full_precision, kept_shares, mse, require_same_shape


@full_precision
def class_correlation(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Match how classes occur together: the Gram matrices [C, C] of the probabilities.

    Jin et al., "Multi-Level Logit Distillation", CVPR 2023. The sum of squares over C, without a
    factor temperature².

    Args:
        student: Logits, [N, C].
        teacher: Logits, [N, C]. No gradient flows into it.
        temperature: Divides the logits.

    Raises:
        UserError: If the numbers of classes differ.
    """
    return _of_classes(*_softened(student, teacher, temperature))


@full_precision
def batch_correlation(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Match how alike samples are: the Gram matrices [N, N] of the probabilities.

    As `class_correlation`, from the same paper; the sum of squares over N.

    Args:
        student: Logits, [N, C].
        teacher: Logits, [N, C]. No gradient flows into it.
        temperature: Divides the logits.

    Raises:
        UserError: If the batches differ in size.
    """
    return _of_samples(*_softened(student, teacher, temperature))


def _softened(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return (student / temperature).softmax(1), (teacher.detach() / temperature).softmax(1)


def _of_classes(student: Tensor, teacher: Tensor) -> Tensor:
    """See `class_correlation`; of probabilities [N, C]."""
    require_same_shape(student, teacher)
    samples, classes = student.shape
    if classes <= 2 * samples:
        return mse(student.T @ student, teacher.T @ teacher) * classes
    # With D = P - Q and S = P + Q, P'P - Q'Q is (D'S + S'D) / 2. The sum of its squares needs only
    # products of samples, N x N: it is half the sum of DD' * SS' and of DS' * SD'.
    difference, total = student - teacher, student + teacher
    mixed = difference @ total.T
    squares = (difference @ difference.T) * (total @ total.T) + mixed * mixed.T
    return squares.sum() / (2 * classes)


def _of_samples(student: Tensor, teacher: Tensor) -> Tensor:
    """See `batch_correlation`; of probabilities [N, C]."""
    return mse(student @ student.T, teacher @ teacher.T) * len(student)


class MLKD(Standardizable, Criterion):
    """KD, `class_correlation` and `batch_correlation`, summed over temperatures.

    With one view of each image, as in the code of Streamlined Knowledge Distillation (CVPR 2026):
    kept samples * (KD + batch correlation) + kept classes * class correlation, see `kept_shares`.

    With a weak and a strong view (`batch["num_views"]` of 2, the weak one first), as in the
    authors' code: that sum for the weak view, and KD once more, now unscaled, for the strong one.

    Both codes mean to leave samples and classes out, but take the mean before they mask it, so that
    the masks only scale it: about by one half. And the authors' code compares the strong view at
    its first three temperatures only and repeats the weak view at the last two. Results were
    published with both, so both are reproduced here; `strong_temperatures=temperatures` corrects
    the second. The place counts: with temperatures 2, 3, 5, 2, 6 (logit standardisation) the
    strong view is compared at the first 2 and not at the second. Their correlations of the strong
    view never reach the loss and are left out.

    With `standardize`, Sun et al., CVPR 2024, arXiv:2403.01427: in the KD parts alone.

    Args:
        temperatures: Divide the logits; the authors' are 4, 3, 5, 2, 6 with two views.
        strong_temperatures: Those of `temperatures` at which KD takes the strong view, each of them
            at the first equal one that is left; at the others it takes the weak one again. None
            takes the first three, as the authors do.
        standardize: Give each row of both logits zero mean and unit deviation in KD.
    """

    takes = "logits"

    def __init__(
        self,
        *,
        temperatures: PositiveValues = (4.0, 3.0, 2.0),
        strong_temperatures: Sequence[Positive] | None = None,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        self.temperatures = tuple(temperatures)
        strong = self.temperatures[:3] if strong_temperatures is None else strong_temperatures
        self.strong_temperatures = tuple(strong)
        if unknown := Counter(self.strong_temperatures) - Counter(self.temperatures):
            raise UserError(
                f"MLKD: strong_temperatures has {next(iter(unknown)):g} more often than "
                f"temperatures {self.temperatures}, where the strong view would be compared; "
                "leave it out, or None for the first three"
            )
        self.standardize = standardize
        self._kd = partial(kd, standardize=standardize)

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C], or [2 * N, C] where `batch["num_views"]` is 2."""
        views = batch.get("num_views", 1)
        if views not in (1, 2):
            raise UserError(
                f"MLKD: batch['num_views'] is {views}; give one view of each image, or a weak and "
                "a strong one"
            )
        weak, *strong = zip(student.chunk(views), teacher.chunk(views), strict=True)
        loss = self._three_levels(*weak)
        return loss + self._second_kd(weak, strong[0]) if strong else loss

    def _three_levels(self, student: Tensor, teacher: Tensor) -> Tensor:
        samples, classes = kept_shares(teacher)
        losses = []
        for temperature in self.temperatures:
            pair = _softened(student, teacher, temperature)
            instances = self._kd(student, teacher, temperature=temperature)
            losses.append(samples * (instances + _of_samples(*pair)))
            losses.append(classes * _of_classes(*pair))
        return torch.stack(losses).sum()

    def _second_kd(self, weak: Sequence[Tensor], strong: Sequence[Tensor]) -> Tensor:
        left, losses = list(self.strong_temperatures), []
        for temperature in self.temperatures:
            view = weak
            if temperature in left:
                left.remove(temperature)
                view = strong
            losses.append(self._kd(*view, temperature=temperature))
        return torch.stack(losses).sum()
