r"""ViTKD: a transformer's first blocks imitated, its last one generated from some tokens.

.. math::

   L = \alpha\sum_{l\in\{0,1\}}\|r_l(T^s_l)-T^t_l\|^2
   +\frac{\beta}{r}\,\big\|m\odot\big(G(T^s_n)-T^t_n\big)\big\|^2

T are tokens; those that m marks, a share r, were hidden from the generator G; mean over the
batch.
"""

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kd_core.config.values import Fraction, NonNegative
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.errors import UserError
from kd_core.functional import batch_mean, full_precision, require_same_shape


@full_precision
def vitkd(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    hidden: Tensor,
    *,
    alpha: float = 3e-5,
    beta: float = 3e-6,
    mask_ratio: float = 0.5,
) -> Tensor:
    """Match shallow tokens by squared errors, and deep ones where the student's were hidden.

    Yang et al., "ViTKD: Practical Guidelines for ViT Feature Knowledge Distillation",
    arXiv:2209.02432. Squares are summed over tokens and channels, mean over the batch; those of
    hidden tokens are divided by their share.

    Args:
        student: Patch tokens [N, L, D] in the teacher's channels: of two shallow blocks, and what
            was generated from the deep ones that are not hidden.
        teacher: Patch tokens of the same places, [N, L, D]. No gradient flows into them.
        hidden: 1 where a deep token of the student was hidden, else 0, [N, L].
        alpha: Weight of the shallow tokens.
        beta: Weight of the deep ones.
        mask_ratio: Share of tokens that are hidden.

    Raises:
        UserError: If shapes differ.
    """
    for own, shown in zip(student, teacher, strict=True):
        require_same_shape(own, shown)
    *shallow, deep = (
        (own - shown.detach()).square() for own, shown in zip(student, teacher, strict=True)
    )
    generated = batch_mean(deep * hidden.unsqueeze(2)) / mask_ratio
    return (
        alpha * torch.stack([batch_mean(squares) for squares in shallow]).sum() + beta * generated
    )


@full_precision
def hidden_tokens(noise: Tensor, mask_ratio: float) -> Tensor:
    """Return 1 where a token is hidden, else 0: int(L (1 - mask_ratio)) of the least noise are not.

    Args:
        noise: [N, L]; of equal values the first is the least.
        mask_ratio: Share of tokens that are hidden.
    """
    kept = int(noise.shape[1] * (1 - mask_ratio))
    rank = noise.argsort(dim=1, stable=True).argsort(1)
    return (rank >= kept).to(noise.dtype)


class ViTKD(Criterion):
    """See `vitkd`; adds linear maps where widths differ, a token for the hidden ones, a generator.

    The taps are patch tokens, without class and register tokens: after the first block, after the
    second, and after the last one with the final normalisation: `@blocks[0]`, `@blocks[1]`,
    `@tokens`. The authors add NKD on the logits. Every batch draws which tokens are hidden, from
    `batch["noise"]` [N, L] where it is given.

    Args:
        student_shapes: [L, D] of the three taps.
        teacher_shapes: [L, E] of the three taps; L as the student's, a square.
        alpha: Weight of the first two, beside the term's own.
        beta: Weight of the last.
        mask_ratio: Share of its tokens that are hidden.

    Raises:
        UserError: If the numbers of tokens differ, or those of the last taps are not a square.
    """

    takes = ("tokens", "tokens", "tokens")
    example: ClassVar = (((16, 6),) * 3, ((16, 8),) * 3)
    exempt: ClassVar = {
        "zero_at_identity": "a generator is between the last tokens",
        "two_calls_agree": "what is hidden is drawn",
        "order_of_the_batch_does_not_matter": "what is hidden is drawn for each place in the batch",
        "cuda_agrees_with_cpu": "what is hidden is drawn, by another generator on each device",
    }

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        alpha: NonNegative = 3e-5,
        beta: NonNegative = 3e-6,
        mask_ratio: Fraction = 0.5,
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        self.alpha, self.beta, self.mask_ratio = alpha, beta, mask_ratio
        pairs = [(s[1], t[1]) for s, t in zip(student_shapes, teacher_shapes, strict=True)]
        self.aligners = nn.ModuleList(
            nn.Identity() if own == shown else nn.Linear(own, shown) for own, shown in pairs
        )
        width = teacher_shapes[-1][1]
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.generator = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Also reject other numbers of tokens, and last ones that are not a square."""
        super().check_shapes(student, teacher)
        for own, shown in zip(student, teacher, strict=True):
            if own[0] != shown[0]:
                raise UserError(
                    f"ViTKD compares token by token, but the student has {own[0]} and the teacher "
                    f"{shown[0]}; take networks of the same patches in a row (patch size, `size` "
                    "of the images), tap maps of equal size (@stages[-2]:tokens), or use a method "
                    "that takes any grid, such as VkD"
                )
        _side(student[-1][0])

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of tokens [N, L, D]; of `batch`, `noise` is used if it is there."""
        aligned = [align(tokens) for align, tokens in zip(self.aligners, student, strict=True)]
        hidden = hidden_tokens(self._noise(aligned[-1], batch), self.mask_ratio).to(aligned[-1])
        aligned[-1] = self._generated(aligned[-1], hidden.unsqueeze(2))
        weights = {"alpha": self.alpha, "beta": self.beta, "mask_ratio": self.mask_ratio}
        return vitkd(aligned, teacher, hidden, **weights)

    @full_precision
    def compared(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor]
    ) -> Sequence[tuple[Tensor, Tensor]]:
        """Return the shallow tokens; the deep ones depend on what is hidden."""
        parts = zip(self.aligners[:2], student, teacher, strict=False)
        return [(align(own), shown) for align, own, shown in parts]

    def _noise(self, tokens: Tensor, batch: Mapping[str, Any]) -> Tensor:
        if "noise" not in batch:
            return torch.rand(tokens.shape[:2], device=tokens.device)
        noise: Tensor = batch["noise"]
        if noise.shape != tokens.shape[:2]:
            raise UserError(
                f"ViTKD: batch['noise'] is {list(noise.shape)}; wanted one number for every token, "
                f"{list(tokens.shape[:2])}"
            )
        return noise

    def _generated(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Return tokens made from those that are not hidden, which become the mask token."""
        side = _side(tokens.shape[1])
        # A product and not a choice: a value that is not finite must be seen.
        shown = tokens * (1 - hidden) + self.mask_token * hidden
        maps: Tensor = self.generator(shown.mT.unflatten(2, (side, side)))
        return maps.flatten(2).mT


def _side(tokens: int) -> int:
    """Return the side of the square that tokens make."""
    side = isqrt(tokens)
    if side**2 != tokens:
        raise UserError(
            f"ViTKD lays the last tokens on a square, but {tokens} are none; tap patch tokens "
            "without class and register tokens (@tokens, PATH:tokens), from square images"
        )
    return side
