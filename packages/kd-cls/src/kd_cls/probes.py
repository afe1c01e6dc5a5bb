"""What features are worth for classes: nearest neighbours, and a linear classifier on them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core.data.sampling import epoch_order
from kd_core.errors import UserError
from kd_core.functional import full_precision
from torch import Tensor

NEIGHBOURS, TEMPERATURE = 20, 0.07  # those of DINO
_AT_ONCE = 1024  # test images: memory for their similarities
_STEPS = 200
_SMALL_GRADIENT = 1e-5

Labelled = tuple[Tensor, Tensor]
"""Features [N, D] and labels, int64 [N]."""


@torch.no_grad()
@full_precision
def knn_accuracy(
    train: Labelled,
    test: Labelled,
    *,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """Return how often the nearest training images have the class of a test image.

    As Caron et al., "Emerging Properties in Self-Supervised Vision Transformers" (DINO), ICCV 2021,
    arXiv:2104.14294: each of the nearest images, by cosine, votes for its class with the weight
    exp(cosine / temperature). Every labelled image takes part; equal votes go to the first class.

    Args:
        train: Features and labels of the training part.
        test: Of the test part.
        neighbours: Cut to the number of training images.
        temperature: Of the votes.

    Returns:
        A scalar, fraction of 1.

    Raises:
        UserError: If there is one class, or nothing to measure.
    """
    classes = _check(train, test)
    known, queries = F.normalize(train[0], dim=1), F.normalize(test[0], dim=1)
    right = queries.new_zeros(())
    for some, label in zip(queries.split(_AT_ONCE), test[1].split(_AT_ONCE), strict=True):
        near = (some @ known.T).topk(min(neighbours, len(known)), dim=1)
        # Less the largest: the same winner, and no overflow.
        weight = ((near.values - near.values[:, :1]) / temperature).exp()
        votes = some.new_zeros(len(some), classes)
        votes.scatter_add_(1, train[1][near.indices], weight)
        right += (votes.argmax(1) == label).sum()
    return right / len(test[1])


@torch.enable_grad()
def linear_classifier(features: Tensor, labels: Tensor, classes: int, *, c: float = 1.0) -> Tensor:
    """Fit a multinomial logistic regression, the same on every run.

    The minimum of the sum of cross-entropies + |weights|^2 / (2 c), without the biases, found by
    LBFGS from zero in float64: scikit-learn's `LogisticRegression(C=c)`.

    Args:
        features: [N, D].
        labels: int64 [N].
        classes: Number of classes.
        c: The larger, the less the weights are held small.

    Returns:
        Weights and, last, biases, float64 [D + 1, classes].
    """
    x, count = features.double(), len(features)
    found = x.new_zeros(x.shape[1] + 1, classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [found],
        max_iter=_STEPS,
        max_eval=2 * _STEPS,
        tolerance_grad=_SMALL_GRADIENT,
        tolerance_change=0,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        logits = torch.addmm(found[-1], x, found[:-1])
        loss = F.cross_entropy(logits, labels) + found[:-1].square().sum() / (2 * c * count)
        loss.backward()
        return loss

    optimizer.step(objective)
    return found.detach()


@full_precision
def linear_accuracy(train: Labelled, test: Labelled, *, c: float = 1.0) -> Tensor:
    """Return the accuracy of a linear classifier on standardised features, a fraction of 1.

    Features are shifted and scaled to mean 0 and standard deviation 1 in the training part; those
    that are constant there are only shifted. See `linear_classifier`.

    Args:
        train: Features and labels of the training part.
        test: Of the test part.
        c: See `linear_classifier`.

    Raises:
        UserError: If there is one class, or nothing to measure.
    """
    classes = _check(train, test)
    mean, std = train[0].double().mean(0), train[0].double().std(0, correction=0)
    std = torch.where(std > 1e-12 * mean.abs(), std, 1)
    found = linear_classifier((train[0] - mean) / std, train[1], classes, c=c)
    logits = ((test[0] - mean) / std) @ found[:-1] + found[-1]
    return (logits.argmax(1) == test[1]).double().mean()


def few_of_each_class(labels: Tensor, shots: int, seed: int) -> Tensor:
    """Draw as many images of each class, all of a class that has fewer.

    Args:
        labels: int64 [N].
        shots: Images of each class.
        seed: Of the draw; those of fewer shots are among those of more.

    Returns:
        Their places in ascending order, int64, on the device of the labels.
    """
    order = epoch_order(len(labels), seed, 0).to(labels.device)
    sorted_by_class = order[labels[order].argsort(stable=True)]
    counts = torch.bincount(labels)
    first = counts.cumsum(0) - counts
    rank = torch.arange(len(labels), device=labels.device) - first[labels[sorted_by_class]]
    return sorted_by_class[rank < shots].sort().values


def few_label_accuracy(
    train: Labelled, test: Labelled, shots: int, *, seeds: Sequence[int] = (0, 1, 2), c: float = 1.0
) -> Tensor:
    """Return the accuracy of `linear_accuracy` with few labels, the mean over draws of them."""
    chosen = [few_of_each_class(train[1], shots, seed) for seed in seeds]
    found = [linear_accuracy((train[0][few], train[1][few]), test, c=c) for few in chosen]
    return torch.stack(found).mean()


def require_classes(labels: Tensor, what: str) -> None:
    """Reject labels of a single class: whatever is predicted would be right.

    Raises:
        UserError: If there are not two classes.
    """
    if len(labels.unique()) < 2:
        raise UserError(
            f"{what} has images of one class alone, so accuracy cannot be measured: anything would "
            "be right; add images of another class"
        )


def _check(train: Labelled, test: Labelled) -> int:
    """Return the number of classes."""
    if not len(test[1]):
        raise UserError("the test part has no images, so accuracy cannot be measured")
    require_classes(train[1], "the training part")
    if not all(part[0].isfinite().all() for part in (train, test)):
        raise UserError("some features are not finite, so nothing can be measured on them")
    return int(torch.cat([train[1], test[1]]).max()) + 1
