"""Distances between classes as a teacher sees them: by its logits, or by its weights."""

from collections.abc import Iterator, Mapping
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

_MOST = 2**26
"""Numbers of the Gram matrices of all classes that are held at once."""
_CENTRED = 2**22
"""Numbers of the features that are centred at once."""


@full_precision
def cka_distance(features: Tensor, kept: Tensor | None = None) -> Tensor:
    """Return 1 - CKA of every two classes, [C, C]: 0 if their images differ in the same ways.

    Linear centred kernel alignment, as WKD (arXiv:2412.08139) takes it. Image m of a class is
    paired with image m of another, so the result depends on the order of the images.

    Args:
        features: Such as logits, of M images of every class: [C, M, D]. They are not copied whole.
        kept: Which of the images count, bool [M]; None takes all.

    Raises:
        UserError: If they are not, or M is 1.
    """
    images = features.shape[1] if kept is None or features.dim() != 3 else int(kept.sum())
    if features.dim() != 3 or images < 2:
        raise UserError(
            f"distances between classes: features are {list(features.shape)}, wanted [classes, "
            "images, D] with at least two images of every class"
        )
    classes = len(features)
    # The squared norm of X'Y is the product of the Gram matrices XX' and YY', taken in parts.
    products = features.new_zeros(classes, classes)
    step = max(1, _MOST // (classes * images))
    for start in range(0, images, step):
        rows = slice(start, start + step)
        grams = features.new_empty(classes, min(step, images - start) * images)
        place = 0
        for own in _centred(features, kept):
            grams[place : place + len(own)] = (own[:, rows] @ own.mT).flatten(1)
            place += len(own)
        products += grams @ grams.T
    norms = products.diagonal().sqrt()
    scale = norms.outer(norms)
    # Equal logits of all images of a class have nothing in common with any other class's.
    distance = 1 - products / scale.where(scale > 0, 1)
    return distance.clamp(min=0).fill_diagonal_(0)


def _centred(features: Tensor, kept: Tensor | None) -> Iterator[Tensor]:
    """Yield the features of a few classes after the other, less the mean of each class."""
    for some in features.split(max(1, _CENTRED // max(1, features[0].numel()))):
        own = some if kept is None else some[:, kept]
        yield own - own.mean(1, keepdim=True)


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
        "would say how far classes are apart; make the cost by a phase with ClassDistances "
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
    with fewer than two images counts as far from all others, which is printed. The logits take
    4 * C * C * images bytes (once C is that of the classes that are compared): 20 MB for CIFAR-100,
    2.9 GB for ImageNet. The distances are computed a few classes at a time beside them.

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
        if few := int((~known).sum()):
            distributed.print_note(
                f"ClassDistances: {few} of {num_classes} classes have fewer than two training "
                "images; they count as far from all others"
            )
        fewest = min(counts[known].tolist(), default=2)
        self.images, self.sharpness = min(images or fewest, fewest), sharpness
        rows = int(known.sum()) * self.images  # of classes that are compared
        self.register_buffer("is_known", known, persistent=False)
        self.register_buffer("places", _places(labels, known, self.images), persistent=False)
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
        distance = equal_costs(len(self.is_known)).to(self.logits)
        known = self.is_known.nonzero().flatten()
        if len(known):
            shape = len(known), self.images
            # One image that was left out (a last batch of one) leaves out its place in all classes.
            filled = self.is_filled[:-1].view(shape).bool().all(0)
            features = self.logits[:-1].unflatten(0, shape)
            distance[known[:, None], known] = cka_distance(features, filled)
        return {"cost": sharpened(distance, self.sharpness)}


def _places(labels: Tensor, known: Tensor, images: int) -> Tensor:
    """Return the row of each image: a known class after the other; the last row for the rest."""
    counts = labels.bincount(minlength=len(known))
    first_rows = (known.cumsum(0) - 1) * images
    order = labels.argsort(stable=True)
    rank = torch.empty_like(order)
    firsts = counts.cumsum(0) - counts
    rank[order] = torch.arange(len(labels), device=labels.device) - firsts[labels[order]]
    is_kept = known[labels] & (rank < images)
    return torch.where(is_kept, first_rows[labels] + rank, int(known.sum()) * images)
