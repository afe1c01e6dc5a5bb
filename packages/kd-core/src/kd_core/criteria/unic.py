r"""UNIC: match the class vector and the patch tokens of one or several teachers, without labels.

.. math::

   L = \tfrac12\,(1-\cos(h(s),t))+\tfrac12\ \mathrm{smooth}_{L_1}(h(s),t)

Of the class vector and of every token, h is a head; of several teachers, all but the one with an
image's largest loss are dropped at random.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from kd_core.config.values import NonNegative, PositiveInt
from kd_core.criteria.aligners import resize_tokens
from kd_core.criteria.balancers import Balance, make_balancer, target
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.criteria.kept_heads import KeepsHead, MLPHead
from kd_core.errors import UserError
from kd_core.functional import batch_mean, full_precision, require_same_shape


@full_precision
def unic(
    student: Tensor, teacher: Tensor, *, cosine_weight: float = 0.5, smooth_l1_weight: float = 0.5
) -> Tensor:
    """Return for every image the cosine distance and the smooth L1 distance of features, weighted.

    Sariyildiz et al., "UNIC: Universal Classification Models via Multi-teacher Distillation", ECCV
    2024, arXiv:2408.05088. Smooth L1 is a mean over the channels; both are means over the tokens.

    Args:
        student: What the student predicts, [N, D] or [N, L, D].
        teacher: The teacher's features, of the same shape. No gradient flows into them.
        cosine_weight: Factor of 1 - cosine.
        smooth_l1_weight: Factor of smooth L1.

    Returns:
        The losses [N].

    Raises:
        UserError: If the shapes differ, or are of another rank.
    """
    require_same_shape(student, teacher)
    if student.dim() not in (2, 3):
        raise UserError(f"unic compares [N, D] or [N, L, D], not {list(student.shape)}")
    teacher = teacher.detach()
    cosine = 1 - F.cosine_similarity(student, teacher, dim=-1)
    smooth = F.smooth_l1_loss(student, teacher, reduction="none").mean(-1)
    losses = cosine_weight * cosine + smooth_l1_weight * smooth
    return losses if losses.dim() == 1 else losses.mean(1)


@full_precision
def drop_teachers(
    losses: Tensor, *, probability: float = 0.5, draws: Tensor | None = None
) -> Tensor:
    """Average losses over images and teachers, leaving teachers of an image out at random.

    The teacher with the largest loss of an image stays; every other one is left out with a
    probability, for each image by itself. All that stay count the same, as in UNIC's code: an image
    of which three teachers stay counts three times as much as one of which one stays.

    Args:
        losses: Of every teacher and image, [T, N].
        probability: Of leaving one out.
        draws: Numbers in [0, 1) in the place of random ones, [T, N]; left out is what is below
            `probability`.

    Raises:
        UserError: If the losses are not [T, N] of at least one teacher, or the draws are not.
    """
    if losses.dim() != 2 or not len(losses):
        raise UserError(f"drop_teachers takes losses [T, N], not {list(losses.shape)}")
    if draws is None:
        draws = torch.rand(losses.shape, device=losses.device)
    require_same_shape(draws, losses)
    kept = draws >= probability
    # `argmax` may return any of several equal ones; the first is wanted.
    largest = (losses.detach() == losses.detach().amax(0)).to(torch.uint8).argmax(0)
    teachers = torch.arange(len(losses), device=losses.device)[:, None]
    weights = (kept | (teachers == largest)).to(losses.dtype)
    return (weights * losses).sum() / weights.sum().clamp(min=1)


class UNIC(KeepsHead, Criterion):
    """See `unic`: one head for the class vector, one for the patch tokens, each counts a half.

    A head is Linear, GELU, Linear to the teacher's width; it is trained with the student and left
    out afterwards. Tokens of another grid than the teacher's are resized behind the head, see
    `resize_tokens`. The authors take the student's features of the last block before its last norm,
    and the teacher's after it; their sum of heads over all blocks is not built here.

    `UNICVectors` and `UNICTokens` are the same for one of the two.

    Args:
        student_shapes: [D] of the class vector, [L, D] of the patch tokens.
        teacher_shapes: [D] of the class vector, [L, D] of the patch tokens.
        hidden: Width inside the heads.
        cosine_weight: Factor of 1 - cosine.
        smooth_l1_weight: Factor of smooth L1.
        balance: What is done to the channels of each of the teacher's two features, so that several
            teachers count alike: "none"; "standardize", by running means and deviations, as the
            authors do; or "phi_s", by `phi_s` of a few thousand images before training.
        keep_head: Export the head of the vector with the student; not of balanced features, whose
            space is not the teacher's.
    """

    takes: ClassVar[str | tuple[str, ...]] = ("vectors", "tokens")
    exempt: ClassVar = {"zero_at_identity": "heads before the comparison"}

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        hidden: PositiveInt = 3072,
        cosine_weight: NonNegative = 0.5,
        smooth_l1_weight: NonNegative = 0.5,
        balance: Balance = "none",
        keep_head: bool = False,
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        self.keep_head = keep_head
        if keep_head and (balance != "none" or self.kinds(1)[0] != "vectors"):
            raise UserError(
                f"{type(self).__name__}: keep_head needs a vector, and balance='none'; here "
                f"balance is {balance!r}, and the first feature {self.kinds(1)[0]}"
            )
        self.weights = {"cosine_weight": cosine_weight, "smooth_l1_weight": smooth_l1_weight}
        pairs = zip(student_shapes, teacher_shapes, strict=True)
        self.heads = nn.ModuleList(_head(s[-1], hidden, t[-1]) for s, t in pairs)
        self.balancers = nn.ModuleList(make_balancer(balance, t[-1]) for t in teacher_shapes)

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Reject also tokens whose grids cannot be matched."""
        super().check_shapes(student, teacher)
        for s, t in zip(student, teacher, strict=True):
            if len(s) == 2:
                resize_tokens(torch.empty(1, s[0], 1), t[0])

    def forward(self, student: Any, teacher: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of vectors [N, D] and tokens [N, L, D]."""
        return batch_mean(self.per_image(student, teacher, batch))

    def kept_head(self) -> nn.Module:
        """Return the head of the vector."""
        return self.heads[0]

    def per_image(self, student: Any, teacher: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of every image, the mean over vectors and tokens."""
        features: Any = zip(self.balancers, _several(teacher), strict=True)
        targets = [target(balancer, t, batch) for balancer, t in features]
        pairs = zip(self._predicted(student, targets), targets, strict=True)
        return torch.stack([unic(s, t, **self.weights) for s, t in pairs]).mean(0)

    def compared(self, student: Any, teacher: Any) -> Sequence[tuple[Tensor, Tensor]]:
        """Return what the heads predict, and the teacher's balanced features."""
        features: Any = zip(self.balancers, _several(teacher), strict=True)
        targets = [balancer.balanced(t) for balancer, t in features]
        return list(zip(self._predicted(student, targets), targets, strict=True))

    def _predicted(self, student: Any, targets: Sequence[Tensor]) -> list[Tensor]:
        predicted = [h(s) for h, s in zip(self.heads, _several(student), strict=True)]
        return [
            resize_tokens(p, t.shape[1]) if t.dim() == 3 else p
            for p, t in zip(predicted, targets, strict=True)
        ]


class UNICVectors(UNIC):
    """See `UNIC`: the loss of one vector, such as the class token or what the classifier gets.

    Args:
        student_shapes: [D] of the vector.
        teacher_shapes: [D] of the vector.
        hidden: Width inside the head.
        cosine_weight: Factor of 1 - cosine.
        smooth_l1_weight: Factor of smooth L1.
        balance: See `UNIC`.
        keep_head: Export the head with the student.
    """

    takes = "vectors"


class UNICTokens(UNIC):
    """See `UNIC`: the loss of patch tokens, or of a map's positions.

    Args:
        student_shapes: [L, D] of the tokens.
        teacher_shapes: [L, D] of the tokens.
        hidden: Width inside the head.
        cosine_weight: Factor of 1 - cosine.
        smooth_l1_weight: Factor of smooth L1.
        balance: See `UNIC`.
        keep_head: Only a head of vectors can stay.
    """

    takes = "tokens"


def _several(features: Any) -> Sequence[Tensor]:
    return (features,) if isinstance(features, Tensor) else features


def _head(width: int, hidden: int, target: int) -> MLPHead:
    head = MLPHead(width, hidden, target, "gelu")
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return head
