"""Distances between classes as a teacher sees them: by its logits, or by its weights."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from kd_core.config.values import Positive, SeveralInt
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.errors import UserError
from kd_core.functional import full_precision
from kd_core.networks.sharding import whole
from kd_core.runtime import distributed
from kd_core.runtime.console import err

_MOST = 2**26
"""Numbers of the Gram matrices of all classes that are held at once."""


@full_precision
def cka_distance(features: Tensor) -> Tensor:
    """Return 1 - CKA of every two classes, [C, C]: 0 if their images differ in the same ways.

    Linear centred kernel alignment, as WKD (arXiv:2412.08139) takes it. Image m of a class is
    paired with image m of another, so the result depends on the order of the images.

    Args:
        features: Such as logits, of M images of every class: [C, M, D].

    Raises:
        UserError: If they are not, or M is 1.
    """
    if features.dim() != 3 or features.shape[1] < 2:
        raise UserError(
            f"distances between classes: features are {list(features.shape)}, wanted [classes, "
            "images, D] with at least two images of every class"
        )
    classes, images, _ = features.shape
    centred = features - features.mean(1, keepdim=True)
    # The squared norm of X'Y is the product of the Gram matrices XX' and YY', taken in parts.
    products = features.new_zeros(classes, classes)
    for part in centred.split(max(1, _MOST // (classes * images)), 1):
        grams = (part @ centred.mT).flatten(1)
        products += grams @ grams.T
    norms = products.diagonal().sqrt()
    scale = norms.outer(norms)
    # Equal logits of all images of a class have nothing in common with any other class's.
    distance = 1 - products / scale.where(scale > 0, 1)
    return distance.clamp(min=0).fill_diagonal_(0)


def sharpened(distance: Tensor, sharpness: float) -> Tensor:
    """Return costs 1 - exp(-sharpness * distance): differences of near classes count more."""
    return -torch.expm1(-sharpness * distance)


def classifier_distance(network: nn.Module, num_classes: int) -> Tensor:
    """Return 1 - cosine of the weights of every two classes, [C, C], in a network's last layer.

    Raises:
        UserError: If no linear layer or 1x1 convolution has so many outputs.
    """
    for layer in reversed(list(network.modules())):
        if not isinstance(layer, nn.Linear | nn.Conv2d) or len(layer.weight) != num_classes:
            continue
        if isinstance(layer, nn.Linear) or layer.kernel_size == (1, 1):
            rows = F.normalize(whole(layer.weight.detach()).flatten(1).float(), dim=1)
            return (1 - rows @ rows.T).clamp(min=0)
    raise UserError(
        f"{type(network).__name__} has no linear layer of {num_classes} outputs, whose weights "
        "would tell how far classes are apart; make the cost by a phase with ClassDistances "
        "(configs/cls/methods/wkd_logits.py)"
    )


def equal_costs(num_classes: int) -> Tensor:
    """Return the costs where all classes are equally far apart, [C, C]."""
    return 1 - torch.eye(num_classes)


def require_costs(cost: Tensor, num_classes: int) -> None:
    """Reject costs that are not of every two classes.

    Raises:
        UserError: Says both shapes.
    """
    if list(cost.shape) != [num_classes, num_classes]:
        raise UserError(
            f"WKDLogits: the cost is {list(cost.shape)}, wanted [{num_classes}, {num_classes}] for "
            f"{num_classes} classes; make it from this teacher"
        )


class ClassDistances(Criterion):
    """Collect a teacher's logits of the training images; the phase before `WKDLogits`.

    Nothing is trained. One epoch of unchanged images (`data.augment=[]`) is enough. The product has
    the `cost` of moving probability between classes: `sharpened` distances of `cka_distance`. Every
    class counts with as many images as the smallest one has, in the order of the training set. One
    with fewer than two images counts as far from all others, which is told. The logits take
    4 * C * C * images bytes: 20 MB for CIFAR-100, 2.9 GB for ImageNet.

    Args:
        num_classes: C.
        labels: Of the training images.
        images: At most so many of every class; None takes as many as there are.
        sharpness: Of the costs.

    Raises:
        UserError: If an image has several labels.
    """

    takes = "logits"
    exempt: ClassVar = {
        "gradient_reaches_the_student_only": "there is no student, and nothing to train",
        "nan_is_not_hidden": "the student is not used",
    }
    places: Tensor
    logits: Tensor
    is_filled: Tensor
    is_known: Tensor

    def __init__(
        self,
        num_classes: int,
        labels: Tensor,
        *,
        images: SeveralInt | None = None,
        sharpness: Positive = 1.0,
    ) -> None:
        super().__init__()
        if labels.dim() != 1:
            raise UserError("ClassDistances needs one label an image, these are [N, C]")
        counts = labels.bincount(minlength=num_classes)
        known = counts >= 2
        if (few := int((~known).sum())) and distributed.rank() == 0:
            err.print(
                f"ClassDistances: {few} of {num_classes} classes have fewer than two training "
                "images; they count as far from all others"
            )
        fewest = min(counts[known].tolist(), default=2)
        self.images, self.sharpness = min(images or fewest, fewest), sharpness
        rows = num_classes * self.images
        self.register_buffer("is_known", known, persistent=False)
        self.register_buffer("places", _places(labels, counts, self.images), persistent=False)
        self.register_buffer("logits", torch.zeros(rows + 1, num_classes))  # the last is for others
        self.register_buffer("is_filled", torch.zeros(rows + 1))
        self.nothing = nn.Parameter(torch.zeros(()))  # an optimizer needs something to move

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Reject anything but logits of the teacher; the student may be anything."""
        self._check_kinds("teacher", teacher)

    def forward(self, student: Any, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Keep the logits [N, C] of the images `batch["index"]` [N]; return 0."""
        with torch.no_grad():
            rows = self.places[distributed.gather_rows(batch["index"])]
            logits = distributed.gather_rows(teacher.detach())
            self.logits.index_copy_(0, rows, logits.to(self.logits))
            self.is_filled.index_fill_(0, rows, 1.0)
        return 0 * self.nothing

    def product(self) -> dict[str, Tensor]:
        """Return the costs that `WKDLogits` loads, [C, C]."""
        shape = len(self.is_known), self.images
        filled = self.is_filled[:-1].view(shape).bool()[self.is_known]
        # One image that was left out (a last batch of one) leaves out its place in all classes.
        features = self.logits[:-1].unflatten(0, shape)[self.is_known][:, filled.all(0)]
        distance = equal_costs(shape[0]).to(features)
        if len(features):
            known = self.is_known.nonzero().flatten()
            distance[known[:, None], known] = cka_distance(features)
        return {"cost": sharpened(distance, self.sharpness)}


def _places(labels: Tensor, counts: Tensor, images: int) -> Tensor:
    """Return the row of each image: a class after the other; the last row for the rest."""
    order = labels.argsort(stable=True)
    rank = torch.empty_like(order)
    firsts = counts.cumsum(0) - counts
    rank[order] = torch.arange(len(labels), device=labels.device) - firsts[labels[order]]
    return torch.where(rank < images, labels * images + rank, len(counts) * images)
