r"""WKD: logits and maps compared by Wasserstein distances, the first over relations of classes.

.. math::

   L_{logits} = -p^t_y\log p^s_y
   + \gamma\,\min_{q\in\Pi(\hat p^s,\hat p^t)}\sum_{ij}q_{ij}\,c_{ij}

c is the distance of two classes, p̂ are the probabilities among the classes but the true one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from kd_core.config.values import NonNegative, Positive, PositiveInt
from kd_core.criteria.cells import cell_statistics, require_large_cells
from kd_core.criteria.class_distances import (
    cka_distance,
    classifier_distance,
    equal_costs,
    require_costs,
)
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.criteria.fitnet import regressor
from kd_core.criteria.heads import require_one_map
from kd_core.criteria.nkd import nkd_rows
from kd_core.errors import UserError
from kd_core.functional import batch_mean, full_precision, require_same_shape
from kd_core.networks.probe import untouched

__all__ = ["WKDFeatures", "WKDLogits", "cka_distance", "wkd_features", "wkd_logits"]


@full_precision
def wkd_logits(
    student: Tensor,
    teacher: Tensor,
    label: Tensor,
    cost: Tensor,
    *,
    gamma: float = 1.0,
    temperature: float = 4.0,
    regularization: float = 0.05,
    iterations: int = 10,
    target_weight: float = 1.0,
) -> Tensor:
    """Add a cross-entropy of the true class, and a transport of the probability of the others.

    WKD-L of Lv et al., "Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge
    Distillation", NeurIPS 2024, arXiv:2412.08139. The first part has no temperature. The transport
    has no factor temperature²; the gradient flows through Sinkhorn's iterations.

    The authors cut the true class out of each sample's cost; here it has no mass instead, which
    gives the same numbers.

    Args:
        student: Logits, [N, C].
        teacher: Logits, [N, C]. No gradient flows into it.
        label: True classes, int64 [N].
        cost: Of moving probability from a class to another, [C, C], such as `cka_distance`.
        gamma: Weight of the transport.
        temperature: Divides the logits in the transport.
        regularization: Of entropy; smaller is nearer to the exact distance, and slower.
        iterations: Of Sinkhorn.
        target_weight: Weight of the true class.

    Raises:
        UserError: If the shapes differ, or the cost is not [C, C].
    """
    require_same_shape(student, teacher)
    require_costs(cost, student.shape[1])
    teacher = teacher.detach()
    target = nkd_rows(student, teacher, label, gamma=0.0, temperature=1.0)
    true = torch.arange(student.shape[1], device=label.device) == label.unsqueeze(1)
    lowest = torch.finfo(student.dtype).min
    own, shown = (
        (logits / temperature).masked_fill(true, lowest).softmax(1) for logits in (student, teacher)
    )
    cost = cost.to(student).clamp(min=0) + 1e-8
    kernel = (-cost / regularization).exp()
    # The true class has no mass, in any iteration: so its row and column of the cost do not count.
    rows = (~true).to(student) / max(student.shape[1] - 1, 1)
    columns = torch.zeros_like(rows)
    for _ in range(iterations):
        columns = shown / (rows @ kernel + 1e-8)
        rows = own / (columns @ kernel.T + 1e-8)
    moved = (rows @ (kernel * cost) * columns).sum(1)
    return batch_mean(target_weight * target + gamma * moved)


@full_precision
def wkd_features(
    student: Tensor, teacher: Tensor, *, mean_ratio: float = 2.0, grid: int = 1, eps: float = 1e-5
) -> Tensor:
    """Match mean and deviation of every channel, in the cells of a grid.

    WKD-F of the paper of `wkd_logits`: the squared Wasserstein distance of two Gaussians without
    correlations, summed over channels, mean over cells. The cells are those of adaptive pooling;
    student and teacher may differ in height and width.

    Args:
        student: Map, [N, C, H, W].
        teacher: Map of as many channels. No gradient flows into it.
        mean_ratio: Weight of the means; the deviations have 1.
        grid: Cells along each side.
        eps: Added to the variances before their root.

    Raises:
        UserError: If batches or channels differ, or a cell has one position and so no variance.
    """
    own, shown = (cell_statistics(maps, grid, eps) for maps in (student, teacher.detach()))
    for one, other in zip(own, shown, strict=True):
        require_same_shape(one, other)
    (means, deviations), (shown_means, shown_deviations) = own, shown
    squares = mean_ratio * (means - shown_means).square()
    return batch_mean(squares + (deviations - shown_deviations).square()) / grid**2


class WKDLogits(Criterion):
    """See `wkd_logits`; needs `batch["label"]`.

    Args:
        num_classes: C.
        cost: Of moving probability from a class to another: [C, C]; "classifier", 1 - cosine of the
            weights of the teacher's last layer; or None, which needs the term's `weights`, made by
            a phase with `ClassDistances`; without them all classes are equally far apart.
        gamma: Weight of the transport.
        temperature: Divides the logits in the transport.
        regularization: Of entropy; smaller is nearer to the exact distance, and slower.
        iterations: Of Sinkhorn.
        target_weight: Weight of the true class; 0 leaves it to a term with `NKD(gamma=0)`, which is
            the same and may then have a weight of its own.
    """

    takes = "logits"
    exempt: ClassVar = {"zero_at_identity": "a cross-entropy, and a transport that is smoothed"}
    trained_before: Sequence[str] = ("cost",)
    cost: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        cost: Tensor | Literal["classifier"] | None = None,
        gamma: NonNegative = 1.0,
        temperature: Positive = 4.0,
        regularization: Positive = 0.05,
        iterations: PositiveInt = 10,
        target_weight: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        self.gamma, self.temperature, self.target_weight = gamma, temperature, target_weight
        self.regularization, self.iterations = regularization, iterations
        self.reads_classifier = isinstance(cost, str)
        if cost is not None:
            self.trained_before = ()
        if not isinstance(cost, Tensor):
            cost = equal_costs(num_classes)
        require_costs(cost, num_classes)
        if not cost.isfinite().all():
            raise UserError("WKDLogits: the cost has values that are not finite; compute it again")
        self.register_buffer("cost", cost.detach().clone())

    def bind(
        self, student: nn.Module, teacher: nn.Module, taps: tuple[Sequence[str], Sequence[str]]
    ) -> None:
        """Read the weights of the teacher's classifier, if the cost is made of them."""
        if not self.reads_classifier:
            return
        found = classifier_distance(teacher, len(self.cost)).to(self.cost)
        if not any(
            torch.equal(self.cost, cost) for cost in (equal_costs(len(found)).to(found), found)
        ):
            raise UserError(
                "WKDLogits: its cost was loaded by `weights`, and cost='classifier' asks for "
                "another; leave one of the two out"
            )
        self.cost.copy_(found)

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of logits [N, C] and `batch["label"]` [N]."""
        names = ("gamma", "temperature", "regularization", "iterations", "target_weight")
        values = {name: getattr(self, name) for name in names}
        return wkd_logits(student, teacher, batch["label"], self.cost, **values)


class WKDFeatures(Criterion):
    """See `wkd_features`; adds a regressor (convolution, BatchNorm, ReLU) of the student's map.

    Args:
        student_shapes: [C, H, W] of the one tapped map.
        teacher_shapes: [C, H, W] of the one tapped map.
        mean_ratio: Weight of the means; the deviations have 1.
        grid: Cells along each side.
        eps: Added to the variances before their root.
        bottleneck: Three convolutions in place of one, 256 channels between them: the authors' on
            ImageNet.

    Raises:
        UserError: If the student's map is smaller than the teacher's, but not by half, or a cell
            has a single position.
    """

    takes = "maps"
    example: ClassVar = (((4, 8, 8),), ((6, 4, 4),))
    exempt: ClassVar = {"zero_at_identity": "a regressor is between the two maps"}

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        mean_ratio: NonNegative = 2.0,
        grid: PositiveInt = 1,
        eps: Positive = 1e-5,
        bottleneck: bool = False,
    ) -> None:
        super().__init__()
        self.mean_ratio, self.grid, self.eps = mean_ratio, grid, eps
        self.check_shapes(student_shapes, teacher_shapes)
        hidden = 256 if bottleneck else None
        self.regressor = regressor(student_shapes[0], teacher_shapes[0], hidden=hidden)

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Also reject several maps, and cells of a single position."""
        super().check_shapes(student, teacher)
        require_one_map("WKDFeatures", student)
        require_large_cells(teacher[0][1:], self.grid)

    def compared(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor]
    ) -> Sequence[tuple[Tensor, Tensor]]:
        """Return means and deviations of the channels in every cell, [N, cells, C] each."""
        with untouched(self):
            sides = self.regressor(student[0]), teacher[0]
            own, shown = (cell_statistics(maps, self.grid, self.eps) for maps in sides)
        return tuple(zip(own, shown, strict=True))

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the loss of one map [N, C, H, W] each; `batch` is not used."""
        own, shown = self.regressor(student[0]), teacher[0]
        return wkd_features(own, shown, mean_ratio=self.mean_ratio, grid=self.grid, eps=self.eps)
