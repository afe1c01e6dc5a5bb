"""Compute logits and features of models for a set of images, batch by batch."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from kd_core.data.sampling import epoch_order
from kd_core.data.split_loader import SplitLoader
from kd_core.errors import UserError
from kd_core.networks.probe import tap_values
from kd_core.networks.roles import tap_list
from kd_core.networks.taps import FeatureTap
from kd_core.networks.task import Batch
from kd_core.runtime.console import err
from rich.progress import track
from torch import Tensor

from kd_cls.classifier import Classifier

_FEW_BATCHES = 10  # seconds of work: not worth a progress line


class Collected(NamedTuple):
    """Logits and features of a model for a whole set.

    Attributes:
        logits: [N, C].
        label: The true classes, int64 [N].
        features: [N, D]; without columns where none was asked for.
    """

    logits: Tensor
    label: Tensor
    features: Tensor


class Chosen:
    """A sampler of some samples of a set, in a fixed order.

    Args:
        index: Their places in the set, int64 [n].
    """

    def __init__(self, index: Tensor) -> None:
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def order(self, epoch: int) -> Tensor:
        """Return the places, the same in every epoch."""
        return self.index


def choose(loader: SplitLoader, limit: int | None = None, *, mixed: bool = False) -> SplitLoader:
    """Return a loader of a part of a set.

    The part is spread evenly over the set, which image folders sort by class, and keeps its order.

    Args:
        loader: The whole set.
        limit: Number of images; None takes all.
        mixed: Whether to shuffle them once, so that every batch is a random part.

    Raises:
        UserError: If the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: wanted a number of images, at least 1")
    total = len(loader.labels)
    count = min(limit or total, total)
    index = torch.arange(count) * total // count
    part = loader.shard(0, 1)
    part.sampler = Chosen(index[epoch_order(count, 0, 0)] if mixed else index)
    return part


@torch.inference_mode()
def collect(
    classifier: Classifier, loader: SplitLoader, taps: str | Sequence[str] = (), *, title: str = ""
) -> Collected:
    """Run a model over a set.

    Args:
        classifier: In evaluation mode, on the loader's device.
        loader: The images.
        taps: Taps to record, such as `@pooled`; several are flattened and joined.
        title: Text of the progress line.

    Raises:
        UserError: If the network has no such tap.
    """
    paths = tap_list(taps, classifier)
    tap = watch(classifier, paths, loader.sample(1)) if paths else None
    logits, labels, features = [], [], []
    for batch in progress(loader, title):
        given, seen = run_batch(classifier, tap, batch)
        logits.append(given.float())
        labels.append(batch["label"])
        flat = [value.float().flatten(1) for value in seen]
        features.append(torch.cat(flat, 1) if flat else given.new_zeros(len(given), 0))
    return Collected(torch.cat(logits), torch.cat(labels), torch.cat(features))


@torch.inference_mode(False)  # inference mode does not detect that a tensor was overwritten
def watch(classifier: Classifier, paths: Sequence[str], batch: Batch) -> FeatureTap:
    """Return a tap that copies what later layers overwrite.

    Raises:
        UserError: If a path does not exist or gives no tensor.
    """
    tap, seen = tap_values(classifier, FeatureTap(classifier.network, paths), batch)
    for path, value in seen.items():
        if not isinstance(value, Tensor):
            raise UserError(f"tap {path!r} gives a {type(value).__name__}, not a tensor")
    return tap


def run_batch(
    classifier: Classifier, tap: FeatureTap | None, batch: Batch
) -> tuple[Tensor, list[Tensor]]:
    """Return the logits of a batch, and the tapped values in the order of the tap's paths."""
    if tap is None:
        return classifier(batch), []
    with tap as seen:
        logits = classifier(batch)
    return logits, [seen[path] for path in tap.paths]


def progress(loader: SplitLoader, title: str) -> Iterator[Batch]:
    """Yield the batches of a set, with a progress line on stderr if there are many."""
    yield from track(
        loader.epoch(0),
        title,
        total=len(loader),
        console=err,
        disable=len(loader) <= _FEW_BATCHES,
        transient=True,
    )
