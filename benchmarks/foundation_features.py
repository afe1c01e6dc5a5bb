"""Features of networks for labelled images, and how well one network's give another's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from kd_cls.analysis.features import Collected, choose, collect
from kd_cls.classifier import Classifier
from kd_cls.data import SplitLoader, image_folder
from kd_cls.label_free import pooled_of
from kd_cls.models import build_model
from kd_cls.probes import Labelled
from kd_cls.roles import network_roles
from kd_core.files.checkpoint import load, save
from kd_core.files.weights import load_weights
from kd_core.representations import FeatureError, measured
from real_teachers import MEAN, REAL, STD
from timm import create_model
from torch import Tensor

PLAIN = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
_BATCH = 256
_RIDGE = 1e-3  # of the mean square of the features


def labelled(folder: Path, size: int) -> tuple[SplitLoader, SplitLoader]:
    """Return both parts of a set in a fixed order, without augmentation."""
    data = image_folder(root=str(folder), image_size=size, batch_size=_BATCH, augment=[])
    return choose(data.train), choose(data.test)


def network_of(name: str, weights: str | Path | None = None, **options: Any) -> Classifier:
    """Return a network of the zoo, untrained or with weights from a file."""
    network = build_model(name, num_classes=10)
    if weights:
        load_weights(network, weights)
    return Classifier(network, roles=network_roles(network), **options).eval()


def teacher_of(
    name: str,
    weights: str,
    size: int,
    *,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
) -> Classifier:
    """Return a real teacher, fed as it was trained unless other statistics are given."""
    network = create_model(REAL[name].network)
    load_weights(network, weights)
    roles = network_roles(network, [(size, size)])
    return Classifier(network, mean=mean, std=std, size=size, roles=roles).eval()


def features_of(model: Classifier, loader: SplitLoader) -> tuple[Labelled, Tensor]:
    """Return the vectors [N, D] that a network's classifier gets, with labels, and its output."""
    taps = pooled_of(model)
    seen: Collected = collect(model, loader, taps)
    # Clones: tensors of inference mode cannot be learned from.
    features, logits, label = (t.clone() for t in (seen.features, seen.logits, seen.label))
    return (features if taps else logits, label), logits


def kept_features(file: Path, make: Any, parts: tuple[SplitLoader, SplitLoader]) -> list[Labelled]:
    """Return the features of a network for both parts; they are computed once."""
    if not file.is_file():
        model = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        save({"parts": [list(features_of(model, part)[0]) for part in parts]}, file)
    return [(x, y) for x, y in load(file)["parts"]]


def prediction_error(own: list[Labelled], shown: list[Labelled]) -> dict[str, float]:
    """Return how well a linear map of one network's features gives another's, on the test part.

    The map is fitted to the training part (ridge regression). Both are compared as deviations from
    the mean there, so that a constant has cosine 0 and relative error 1.
    """
    (x, _), (y, _) = ((part[0][0].double(), part[0][1]) for part in (own, shown))
    mean, scale, center = x.mean(0), x.std(0) + 1e-9, y.mean(0)
    x = (x - mean) / scale
    gram = x.T @ x + _RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(gram, x.T @ (y - center))
    error = FeatureError()
    error.add(((own[1][0].double() - mean) / scale) @ weights, shown[1][0].double() - center)
    return {key: round(value, 4) for key, value in measured(error.sums()).items()}
