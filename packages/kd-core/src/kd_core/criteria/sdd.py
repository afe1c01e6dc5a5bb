r"""SDD: logits of an image's regions, distilled like those of the whole image.

.. math::

   L = \frac1N\sum_i\sum_r a_{ir}\,l\big(z^s_{ir}, z^t_{ir}, y_i\big)

r runs over regions of the last map, z are the classifier's logits there, l is KD, NKD
or DKD; a is 2 where a region and the whole image disagree on being right, else 1.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from kd_core.config.values import NonNegative, Positive, PositiveInts
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.criteria.dkd import dkd_rows
from kd_core.criteria.heads import borrow_heads, parameters_of, region_logits, require_one_map
from kd_core.criteria.nkd import nkd_rows
from kd_core.errors import UserError, nearest
from kd_core.functional import batch_mean, full_precision, kl_rows, require_same_shape

_BASES = ("kd", "dkd", "nkd")


@full_precision
def sdd(
    student: Tensor,
    teacher: Tensor,
    label: Tensor,
    *,
    base: str = "dkd",
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    all_classes: bool = False,
) -> Tensor:
    """Distil the logits of every region, mean over regions and batch.

    Wei et al., "Scale Decoupled Distillation", CVPR 2024, arXiv:2403.13512; the factor temperature²
    is inside. A region counts twice where the teacher is right about it and wrong about the whole
    image, or the other way round.

    Differs from the authors' code: a loss that is not finite stays so, while theirs becomes 0; and
    the other classes of NKD are without the target, unless `all_classes`.

    Args:
        student: Logits of regions, [N, C, R]; region 0 is the whole image.
        teacher: The same of the teacher. No gradient flows into it.
        label: True classes of the images, int64 [N].
        base: What is done with a region: `kd`, `dkd` or `nkd` (see there).
        alpha: Weight of DKD's target class against the rest.
        beta: Weight of the other classes among themselves, in DKD and (there gamma) in NKD.
        temperature: Divides the logits, but not those of NKD's target.
        all_classes: Count the target among NKD's other classes, as the authors' code does.

    Raises:
        UserError: If the shapes differ, or there is no such base.
    """
    _require_base(base)
    require_same_shape(student, teacher)
    teacher = teacher.detach()
    right = teacher.argmax(1) == label[:, None]  # [N, R]
    counts = 1 + (right != right[:, :1])
    label = label.repeat_interleave(student.shape[2])
    student, teacher = (logits.mT.flatten(0, 1) for logits in (student, teacher))  # [N * R, C]
    if base == "kd":
        student, teacher = ((logits / temperature).log_softmax(1) for logits in (student, teacher))
        losses = kl_rows(student, teacher) * temperature**2
    elif base == "dkd":
        weights = {"alpha": alpha, "beta": beta, "temperature": temperature}
        losses = dkd_rows(student, teacher, label, **weights)
    else:
        inputs = student, teacher, label
        losses = nkd_rows(*inputs, gamma=beta, temperature=temperature, all_classes=all_classes)
    return batch_mean(counts.flatten() * losses)


def _require_base(base: str) -> None:
    if base not in _BASES:
        raise UserError(f"base is {base!r}{nearest(base, _BASES)}")


class SDD(Criterion):
    """See `sdd`; feeds it the regions of the last map (see `region_logits`). Needs labels.

    The classifiers are the networks' own, and the student's is trained by its regions too.

    Args:
        base: What is done with a region: `kd`, `dkd` or `nkd`.
        alpha: Weight of DKD's target class against the rest.
        beta: Weight of the other classes among themselves, in DKD and (there gamma) in NKD.
        temperature: Divides the logits, but not those of NKD's target.
        all_classes: Count the target among NKD's other classes.
        scales: Regions in a row, 1 first. The authors take (1, 2) for networks of one family.
        student_head: Path of the student's classifier; None takes the last linear layer that fits.
        teacher_head: Path of the teacher's classifier.

    Raises:
        UserError: If there is no such base, scale or classifier, or not one map of each network.
    """

    takes = "maps"
    reads_classes = True
    example: ClassVar = (((6, 8, 8),), ((8, 8, 8),))
    exempt: ClassVar = {
        "zero_at_identity": "the classifiers differ, so equal maps give different logits",
        "state_dict_keeps_the_value": "the classifiers are in the networks' state dicts",
    }

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        num_classes: int,
        *,
        base: str = "dkd",
        alpha: NonNegative = 1.0,
        beta: NonNegative = 8.0,
        temperature: Positive = 4.0,
        all_classes: bool = False,
        scales: PositiveInts = (1, 2, 4),
        student_head: str | None = None,
        teacher_head: str | None = None,
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        _require_base(base)
        if tuple(scales[:1]) != (1,) or max(scales) > 4:
            raise UserError(f"scales are {tuple(scales)}; wanted 1 first, then others up to 4")
        self.scales = scales
        self.loss = partial(
            sdd,
            base=base,
            alpha=alpha,
            beta=beta,
            temperature=temperature,
            all_classes=all_classes,
        )
        names = student_head, teacher_head
        self.borrow = partial(borrow_heads, (student_shapes, teacher_shapes), num_classes, names)

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Also reject more than one map."""
        super().check_shapes(student, teacher)
        require_one_map("SDD", student)

    def bind(
        self, student: nn.Module, teacher: nn.Module, taps: tuple[Sequence[str], Sequence[str]]
    ) -> None:
        """Borrow both classifiers."""
        self.heads = self.borrow(student, teacher)

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of one map [N, C, H, W] of each network and `batch["label"]` [N]."""
        regions = (
            region_logits(maps[0], *parameters_of(head, maps[0]), scales=self.scales)
            for maps, head in zip((student, teacher), self.heads, strict=True)
        )
        return self.loss(next(regions), next(regions), batch["label"])
