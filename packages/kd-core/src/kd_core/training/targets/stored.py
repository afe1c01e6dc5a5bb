"""StoredTargets: a loader whose batches have teacher features from files, epoch by epoch."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_core.data.split_loader import SplitLoader
from kd_core.distill.teacher import Teacher
from kd_core.errors import UserError, located
from kd_core.files.fingerprint import fingerprint, model_fingerprint
from kd_core.networks.task import Batch
from kd_core.runtime import distributed
from kd_core.runtime.console import err
from kd_core.training.step import PRECISIONS
from kd_core.training.targets.pipeline import identity_of, seeded_batch
from kd_core.training.targets.tap_store import TapStore, differences, identity_in, listed, name_of
from kd_core.training.targets.trial import ALIKE, first_images, forms_of, outputs_of
from kd_core.training.teacher_cache import require_one_machine, require_statistics

_UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))
_COMPARED = 8  # images that go through the teacher though their values are there

TopKTaps = Mapping[str, Mapping[str, tuple[int, float]]]
"""By teacher and tap, how many classes are kept, and the temperature of their probabilities."""


class StoredTargets:
    """A loader whose batches have teacher features from files, instead of a teacher pass.

    An image is a function of (data_seed, epoch, place in the epoch's order), so a teacher's output
    for it can be kept and used again: by every student, method and seed of that `data_seed`,
    whatever the augmentation. What is missing is computed and written; so the first run fills the
    files, later ones read them, and a run that was killed fills the rest. What batches have are
    always the values as they were kept, so that a first run and a second one learn the same.

    Args:
        loader: Training batches, of one that makes them from seeds alone.
        teachers: By name, with their taps set.
        folder: Where stores are kept.
        precision: Of the teachers; see `TrainStep`.
        topk: Taps of which only the largest probabilities are kept.
        named: Whether the folder is for this run's targets alone: those of other data, transforms
            or teachers are then refused. Otherwise each has a store of its own in it.

    Raises:
        UserError: If images or outputs do not depend on seed, epoch and place alone, float16 cannot
            hold the outputs, or the folder has others.
    """

    def __init__(
        self,
        loader: SplitLoader,
        teachers: Mapping[str, Teacher],
        folder: Path,
        *,
        precision: str = "fp32",
        topk: TopKTaps | None = None,
        named: bool = False,
    ) -> None:
        require_one_machine()
        self.loader, self.batch_size = loader, loader.batch_size
        dtype = PRECISIONS[precision]
        autocast = partial(torch.autocast, loader.device.type, dtype, enabled=dtype is not None)
        identity = {"precision": precision, **identity_of(loader)}
        sample = seeded_batch(loader)
        rows = len(loader.order(0))
        self._targets = []
        for name, teacher in teachers.items():
            require_statistics(name, teacher)
            with located(f"trainer.teacher_cache: teacher {name!r}"):
                forms = forms_of(teacher, sample, autocast, (topk or {}).get(name, {}))
            own = {"teacher": model_fingerprint(teacher.model), **identity}
            stores = {}
            for tap, form in forms.items():
                whole = {"tap": tap, **form.described(), **own}
                place = folder / (name_of(name, tap) if named else _hashed(whole))
                if not named:
                    _note_others(folder, place, whole)
                stores[tap] = TapStore(place, whole, form, rows)
            if stores:
                self._targets.append(_TeacherTargets(name, teacher, stores, autocast))
        if not self._targets:
            raise UserError("trainer.teacher_cache: nothing is learned from a teacher here")
        self.folder = folder

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.loader)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on."""
        order = self.loader.order(epoch) % len(self.loader.labels)
        parts = self.loader.places(start)
        for part, batch in zip(parts, self.loader.epoch(epoch, start), strict=True):
            rows = np.arange(part.start, part.stop)
            teacher_features = {
                each.name: each.show(epoch, rows, batch, order[part]) for each in self._targets
            }
            yield {**batch, "teacher_features": teacher_features}

    def check_space(self, epochs: int) -> str:
        """Return a text with the size of all that a run of so many epochs keeps.

        Raises:
            UserError: If the disk cannot hold what is missing.
        """
        stores = [store for each in self._targets for store in each.stores.values()]
        size = epochs * sum(store.epoch_bytes for store in stores)
        there = sum(store.bytes_there() for store in stores)
        free = shutil.disk_usage(self.folder).free
        image = sum(2 * store.form.width + 4 for store in stores)
        text = (
            f"stored targets in {self.folder}: {_size(size)} for {epochs} epochs of "
            f"{stores[0].rows:,} images ({image:,} bytes for each), {_size(there)} are there; "
            f"{_size(free)} free on that disk"
        )
        if size - there > free:
            raise UserError(
                f"{text}: they do not fit; name a folder on another disk, keep only the largest "
                "probabilities (trainer.teacher_cache.topk, for the criterion TopKLabels), train "
                "fewer epochs, or leave trainer.teacher_cache out"
            )
        return text


class _TeacherTargets:
    """The stores of one teacher's taps."""

    def __init__(
        self, name: str, teacher: Teacher, stores: Mapping[str, TapStore], autocast: Any
    ) -> None:
        self.name, self.teacher, self.stores, self.autocast = name, teacher, stores, autocast
        self._trusted = False

    def show(self, epoch: int, rows: np.ndarray, batch: Batch, index: Tensor) -> dict[str, Tensor]:
        """Return the features of a batch by tap, float32 on its device."""
        there = np.logical_and.reduce([store.has(epoch, rows) for store in self.stores.values()])
        if not (there.all() and self._trusted):
            self._run(epoch, rows, there, batch, index)
        device = batch["image"].device
        return {
            tap: store.form.decode(store.read(epoch, rows), device)
            for tap, store in self.stores.items()
        }

    def _run(
        self, epoch: int, rows: np.ndarray, there: np.ndarray, batch: Batch, index: Tensor
    ) -> None:
        """Run the teacher on a batch, or on few of its images if all rows are there."""
        count = min(len(rows), _COMPARED) if there.all() else len(rows)
        if not torch.equal(batch["index"][: len(rows)].cpu(), index):
            raise UserError(
                "trainer.teacher_cache cannot be used here: the images of a batch are not those of "
                "its places in the loader's order; leave it out"
            )
        part = batch if count == len(rows) else first_images(batch, count, len(rows))
        features = outputs_of(self.teacher, part, self.autocast)
        if there.any() and not self._trusted:
            places = np.flatnonzero(there[:count])[:_COMPARED]
            for tap, store in self.stores.items():
                self._compare(tap, store.read(epoch, rows[places]), features[tap], places, count)
            self._trusted = bool(len(places))
        if not there.all():
            for tap, value in features.items():
                with located(f"teacher {self.name!r}: tap {tap!r}"):
                    self.stores[tap].write(epoch, rows, value)

    def _compare(
        self, tap: str, kept: np.ndarray, value: Tensor, places: np.ndarray, count: int
    ) -> None:
        """Compare a few rows with the teacher: the identity covers names and numbers, not code."""
        store = self.stores[tap]
        chosen = value.unflatten(0, (-1, count))[:, torch.from_numpy(places)].flatten(0, 1)
        one, other = store.form.kept_and_new(kept, chosen)
        gap, largest = (one - other).abs().max().item(), other.abs().max().item()
        if not gap <= ALIKE * largest:
            raise UserError(
                f"{store.folder}: teacher {self.name!r} gives other values than are kept here for "
                f"tap {tap!r} (by up to {gap:.3g}); was its code changed, or that of a transform? "
                "Move the folder elsewhere"
            )


def _hashed(identity: Mapping[str, str]) -> str:
    return f"targets-{fingerprint(*(f'{name}={identity[name]}' for name in sorted(identity)))}"


def _note_others(folder: Path, place: Path, identity: Mapping[str, str]) -> None:
    """Print what is different in the targets of this teacher and tap that are there already."""
    if place.exists() or distributed.rank() > 0:
        return
    for other in sorted(folder.glob("targets-*")):
        with suppress(UserError):  # damage there does not matter to this run
            found = identity_in(other)
            if all(found.get(name) == identity[name] for name in ("teacher", "tap")):
                text = listed(differences(found, identity))
                err.print(f"{other} is not used: {text}")
                return


def _size(count: int) -> str:
    for unit, scale in _UNITS:
        if count >= scale:
            return f"{count / scale:,.2f} {unit}"
    return f"{count} bytes"
