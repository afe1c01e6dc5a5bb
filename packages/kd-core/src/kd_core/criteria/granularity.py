r"""MAG and MAS: a narrow and a wide code of the teacher's features.

.. math::

   L = \sum_g \tau_g^2\,\mathrm{KL}\big(\sigma(z^t_g/\tau_g)\,\|\,\sigma(z^s_g/\tau_g)\big)

g are granularities: logits decoded from a narrow and a wide code, and the plain ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from kd_core.config.values import NonNegative, Positive, PositiveInts, PositiveValues
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.criteria.kd import kd
from kd_core.errors import UserError
from kd_core.functional import batch_mean, full_precision

WIDTHS = (64, 256)
TEMPERATURES = (2.0, 8.0)


@full_precision
def granularity(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    *,
    temperatures: Sequence[float] = TEMPERATURES,
) -> Tensor:
    """Match codes by `kd`, as if their dimensions were classes; summed over the codes.

    Shao and Chen, "Multi-granularity for knowledge distillation", Image and Vision Computing 2021,
    arXiv:2108.06681.

    Args:
        student: Codes, [N, width] each: the abstract one (narrow), then the detailed one (wide).
        teacher: As many codes of the same widths. No gradient flows into them.
        temperatures: One for each code.

    Raises:
        UserError: If numbers or widths of codes differ.
    """
    if not len(student) == len(teacher) == len(temperatures):
        raise UserError(
            f"{len(student)} codes of the student, {len(teacher)} of the teacher and "
            f"{len(temperatures)} temperatures; give one of each for every granularity"
        )
    pairs = zip(student, teacher, temperatures, strict=True)
    return torch.stack([kd(s, t, temperature=temperature) for s, t, temperature in pairs]).sum()


@full_precision
def stable_logits(logits: Tensor, decoded: Sequence[Tensor]) -> Tensor:
    """Return the mean of logits and of what is decoded from the codes, each [N, C].

    The stable excitation of the paper of `granularity`.
    """
    return torch.stack([logits, *decoded]).mean(0)


class SelfAnalysis(Criterion):
    """Train encoders and decoders that describe a frozen teacher's features; the phase before MAG.

    The self-analysing module of the paper of `granularity`: each code of the pooled vector must let
    a decoder predict the teacher's logits (`kd` at the code's temperature) and the label. The
    student is not used. The authors train one code after the other. The codes share nothing, so one
    pass with the sum gives the same gradients at half the cost. The authors keep the epoch that is
    best on the test set; here it is the last one.

    Args:
        teacher_shapes: [C] of the logits and [D] of the vector that the classifier gets.
        widths: Of the codes, abstract then detailed.
        temperatures: One for each code.

    Raises:
        UserError: If there is not one temperature for each width.
    """

    takes = ("logits", "vectors")
    exempt: ClassVar = {
        "gradient_reaches_the_student_only": "only the teacher's encoders and decoders are trained",
        "zero_at_identity": "the task is the teacher's own",
        "nan_is_not_hidden": "the student is not used",
    }

    def __init__(
        self,
        teacher_shapes: Shapes,
        *,
        widths: PositiveInts = WIDTHS,
        temperatures: PositiveValues = TEMPERATURES,
    ) -> None:
        super().__init__()
        self._check_kinds("teacher", teacher_shapes)
        _require_pairs(widths, temperatures)
        self.temperatures = tuple(temperatures)
        self.teacher_encoders, self.teacher_decoders = _describe(teacher_shapes, widths)

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Reject anything but logits and a vector of the teacher."""
        self._check_kinds("teacher", teacher)

    def forward(self, student: Any, teacher: Sequence[Tensor], batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C] and vectors [N, D]; `batch` has the labels."""
        logits, vectors = (tensor.detach() for tensor in teacher)
        losses = []
        for code, decode, temperature in zip(
            self.teacher_encoders(vectors),
            self.teacher_decoders,
            self.temperatures,
            strict=True,
        ):
            decoded = decode(code)
            losses.append(kd(decoded, logits, temperature=temperature))
            wrong = F.cross_entropy(decoded, batch["label"], reduction="none")
            losses.append(batch_mean(wrong))
        return torch.stack(losses).sum()


class MultiGranularity(Criterion):
    """Distil logits and two codes of the pooled vector; see `granularity`.

    `kd` of the logits, which is MAG, or of `stable_logits`, which is MAS; and `granularity` of the
    codes. The teacher's encoders and decoders are the product of a phase with `SelfAnalysis`; they
    are frozen. The student's encoders are trained with it.

    The paper adds this to another method X and compares with X without KD. So part of the gain
    over X comes from KD: compare with X + KD.

    Args:
        student_shapes: [C] of the logits and [D] of the vector that the classifier gets.
        teacher_shapes: The same of the teacher.
        stable: Whether to distil from the mean of the teacher's three predictions.
        kd_weight: Weight of the logits; the codes have 1. The authors' default of 0 makes MAS and
            MAG the same; their scripts have 1, and 0.8 for MAG without another method.
        temperature: Divides the logits.
        widths: Of the codes, abstract then detailed; the same as in the phase before.
        temperatures: One for each code.

    Raises:
        UserError: If there is not one temperature for each width.
    """

    takes = ("logits", "vectors")
    trained_before = ("teacher_encoders", "teacher_decoders")
    exempt: ClassVar = {"zero_at_identity": "each network has its own encoders"}

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        stable: bool = False,
        kd_weight: NonNegative = 1.0,
        temperature: Positive = 4.0,
        widths: PositiveInts = WIDTHS,
        temperatures: PositiveValues = TEMPERATURES,
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        _require_pairs(widths, temperatures)
        self.stable, self.kd_weight, self.temperature = stable, kd_weight, temperature
        self.temperatures = tuple(temperatures)
        self.student_encoders = make_encoders(student_shapes[1][0], widths)
        self.teacher_encoders, self.teacher_decoders = (
            modules.requires_grad_(False) for modules in _describe(teacher_shapes, widths)
        )

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of logits [N, C] and vectors [N, D]; `batch` is not used."""
        (logits, vectors), (shown, shown_vectors) = student, (t.detach() for t in teacher)
        wanted = self.teacher_encoders(shown_vectors)
        if self.stable:
            pairs = zip(self.teacher_decoders, wanted, strict=True)
            shown = stable_logits(shown, [decode(code) for decode, code in pairs])
        codes = self.student_encoders(vectors)
        loss = granularity(codes, wanted, temperatures=self.temperatures)
        return loss + self.kd_weight * kd(logits, shown, temperature=self.temperature)


class Encoders(nn.ModuleList):
    """Encoders of one vector [N, D]; calling it gives a list of their codes, [N, width] each."""

    def forward(self, vectors: Tensor) -> list[Tensor]:
        """Return every encoder's code."""
        return [encoder(vectors) for encoder in self]


def make_encoders(size: int, widths: Sequence[int]) -> Encoders:
    """Return one encoder for each width, of vectors [N, size]."""
    return Encoders(_perceptron(size, size, width) for width in widths)


def _describe(shapes: Shapes, widths: Sequence[int]) -> tuple[Encoders, nn.ModuleList]:
    (classes,), (size,) = shapes
    decoders = nn.ModuleList(_perceptron(width, size, classes) for width in widths)
    return make_encoders(size, widths), decoders


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _require_pairs(widths: Sequence[int], temperatures: Sequence[float]) -> None:
    if len(widths) != len(temperatures) or not widths:
        raise UserError(
            f"widths {list(widths)} and temperatures {list(temperatures)}: give one temperature "
            "for each width, and at least one"
        )
