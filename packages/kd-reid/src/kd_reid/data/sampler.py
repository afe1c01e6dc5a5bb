"""Batches of several images of each of several identities."""

import torch
from kd_core.data.sampling import numbered
from kd_core.errors import UserError
from kd_core.runtime.seed import mix
from torch import Tensor

_STREAM = 0x1D  # makes its random numbers independent of those of a shuffle


class IdentitySampler:
    """An order in which every batch has P identities with K images each, "PK sampling".

    Hermans et al., arXiv:1703.07737. The images of an identity are shuffled and cut into groups of
    K. The rest is left out of this epoch, and an identity with fewer images has some twice. Batches
    take groups of different identities. As in torchreid's RandomIdentitySampler, but every epoch
    has the same number of batches: if too few identities have groups left for a last batch, other
    identities start again.

    Args:
        labels: Identities, int64 [N].
        batch_size: P * K, of all processes together.
        instances: K.
        data_seed: Seed of the order.

    Raises:
        UserError: If batches cannot be composed in this way.
    """

    def __init__(
        self, labels: Tensor, *, batch_size: int, instances: int, data_seed: int = 0
    ) -> None:
        if instances < 1 or batch_size < 1 or batch_size % instances:
            raise UserError(
                f"instances={instances} must divide batch_size={batch_size}: a batch has so many "
                "images of each identity"
            )
        self.people, self.instances, self.data_seed = batch_size // instances, instances, data_seed
        self.samples = len(labels)
        counts = torch.bincount(labels)
        if self.people > int((counts > 0).sum()):
            raise UserError(
                f"batch_size={batch_size} with instances={instances} needs {self.people} "
                f"identities a batch, the training set has {int((counts > 0).sum())}; lower "
                "batch_size or raise instances"
            )
        self._images = labels.argsort(stable=True).split(counts.tolist())
        groups = sum(max(len(images) // instances, 1) for images in self._images if len(images))
        self.batches = groups // self.people

    def __len__(self) -> int:
        """Return the images of an epoch."""
        return self.batches * self.people * self.instances

    def order(self, epoch: int) -> Tensor:
        """Return an epoch's images, batch by batch; see `kd_core.data.split_loader.Sampler`."""
        generator = torch.Generator().manual_seed(mix(self.data_seed, epoch, _STREAM))
        waiting: dict[int, list[Tensor]] = {}
        chosen: list[Tensor] = []
        for _ in range(self.batches):
            here = [person for person, groups in waiting.items() if groups]
            if len(here) < self.people:
                self._refill(waiting, generator)
                here = list(waiting)
            drawn = torch.randperm(len(here), generator=generator)[: self.people]
            chosen += [waiting[here[place]].pop() for place in drawn.tolist()]
        return numbered(torch.cat(chosen), self.samples)

    def _refill(self, waiting: dict[int, list[Tensor]], generator: torch.Generator) -> None:
        """Make new groups for every identity that has none left."""
        for person, images in enumerate(self._images):
            if not waiting.get(person) and len(images):
                waiting[person] = self._groups(images, generator)

    def _groups(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        shuffled = images[torch.randperm(len(images), generator=generator)]
        if len(images) < self.instances:
            more = torch.randint(len(images), (self.instances - len(images),), generator=generator)
            return [torch.cat([shuffled, images[more]])]
        whole = len(images) // self.instances * self.instances
        return list(shuffled[:whole].split(self.instances))
