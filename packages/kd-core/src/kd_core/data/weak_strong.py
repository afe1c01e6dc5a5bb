"""Training sets with a weakly and a strongly augmented copy of each sample."""

from collections.abc import Sequence

from kd_core.data.augment import Augment, apply
from kd_core.data.sampling import Sampling
from kd_core.networks.task import Batch, rows_of


class StrongCopies:
    """Augment repeated samples of an epoch once more, except their first copy.

    With `copies=2` of a loader, every epoch has each sample once weakly and once strongly
    augmented, at any place of the shuffle. `Views` puts two views of a sample into one batch.

    Args:
        augment: Augmentations that keep the number and the size of images.
    """

    def __init__(self, augment: Sequence[Augment]) -> None:
        self.augment = tuple(augment)

    def __call__(self, batch: Batch, sampling: Sampling) -> Batch:
        """Augment some of `image` [N, 3, H, W]; the others stay as they are."""
        places, own = sampling.of_copies()
        places = places.to(sampling.device)
        image = batch["image"].clone()
        image[places] = apply(self.augment, rows_of(batch, places), own)["image"]
        sampling.count = own.count
        return {**batch, "image": image}
