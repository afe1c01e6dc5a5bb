"""On-disk cache of teacher outputs: each view of an image goes through a teacher once."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from kd_core.data.augment import CropFlip
from kd_core.data.device_loader import DeviceLoader
from kd_core.data.loader import Loader
from kd_core.distill.teacher import Teacher
from kd_core.errors import UserError
from kd_core.files.fingerprint import fingerprint, model_fingerprint
from kd_core.files.row_store import RowStore, table_bytes
from kd_core.networks.probe import shapes
from kd_core.networks.task import Batch, rows_of
from kd_core.runtime import distributed
from kd_core.training.step import PRECISIONS

_AHEAD = 32  # batches looked up at once, so that the host waits once in so many steps
_PASS = 256  # images that go through a teacher at once
_ALIKE = 0.02  # of the largest value; bf16 in other batches differs by up to 0.01


class CachedTeachers:
    """A loader whose batches have teacher features from a cache, instead of a teacher pass.

    A crop and flip of a fixed image is one of few views (162 for padding 4), named by `crop_id`.
    Logits and vectors of each view are kept in float16, in a table for each tap that is filled as
    views occur. A table is named by a hash of the teacher, the images and the precision, so any
    method, student and seed can use it, also while another run fills it.

    Args:
        loader: Of a set that is on the device, with `CropFlip` or no augmentation.
        teachers: By name; their features must be logits or vectors.
        folder: Where tables are kept.
        precision: Of the teachers; see `TrainStep`.

    Raises:
        UserError: If the number of views is not limited, a tap gives maps, or the disk is too full.
    """

    def __init__(
        self,
        loader: Loader,
        teachers: Mapping[str, Teacher],
        folder: Path,
        *,
        precision: str = "fp32",
    ) -> None:
        self.views = _count_views(loader)
        assert isinstance(loader, DeviceLoader)
        self.loader, self.batch_size = loader, loader.batch_size
        data = _data_fingerprint(loader)
        self._tables: dict[str, _TeacherTables] = {}
        dtype = PRECISIONS[precision]
        autocast = partial(torch.autocast, loader.device.type, dtype, enabled=dtype is not None)
        for name, teacher in teachers.items():
            require_statistics(name, teacher)
            with autocast():
                widths = _widths(name, shapes(teacher(loader.sample(2))))
            key = fingerprint(data, precision, model_fingerprint(teacher.model))
            open_store = partial(_open, folder, key, rows=len(loader.images) * self.views)
            stores = {tap: open_store(tap, width=width) for tap, width in widths.items()}
            if stores:
                self._tables[name] = _TeacherTables(name, teacher, stores, autocast)
        if not self._tables:
            raise UserError("trainer.teacher_cache: nothing is learned from a teacher here")

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.loader)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on."""
        batches = self.loader.epoch(epoch, start)
        while ahead := list(islice(batches, _AHEAD)):
            yield from self._with_shown(ahead)

    def describe(self, epochs: int) -> str:
        """Return where the tables are and how large they become."""
        stores = [store for tables in self._tables.values() for store in tables.stores.values()]
        size = sum(table_bytes(*store.shape) for store in stores)
        there = sum(table_bytes(store.filled, store.shape[1]) for store in stores)
        share = 1 - (1 - 1 / self.views) ** epochs
        return (
            f"teacher cache in {stores[0].folder.parent}: {there / 1e6:,.1f} MB of "
            f"{size / 1e6:,.1f} MB are there ({self.views} views of "
            f"{stores[0].shape[0] // self.views:,} images); {epochs} epochs need {share:.0%}"
        )

    def _with_shown(self, batches: Sequence[Batch]) -> Iterator[Batch]:
        joined = _joined(batches)
        crop_id = joined.get("crop_id", torch.zeros_like(joined["index"]))
        views = joined["index"] * self.views + crop_id
        rows = views.cpu().numpy()  # the only wait for the device
        teacher_features = {
            name: tables.show(rows, joined) for name, tables in self._tables.items()
        }
        begin = 0
        for batch in batches:
            part = slice(begin, begin + len(batch["index"]))
            of_batch = {
                name: {tap: values[part].float() for tap, values in taps.items()}
                for name, taps in teacher_features.items()
            }
            yield {**batch, "teacher_features": of_batch}
            begin = part.stop


class _TeacherTables:
    """The tables of one teacher's taps."""

    def __init__(
        self, name: str, teacher: Teacher, stores: Mapping[str, RowStore], autocast: Any
    ) -> None:
        self.name, self.teacher, self.stores, self.autocast = name, teacher, stores, autocast
        self._trusted = False

    def show(self, rows: np.ndarray, batch: Batch) -> dict[str, Tensor]:
        """Return the features of these rows by tap, float16 [n, width] on the batch's device."""
        there = np.logical_and.reduce([store.has(rows) for store in self.stores.values()])
        if not self._trusted and there.any():
            self._check(rows, there, batch)
        missing = np.flatnonzero(~there)
        for part in np.split(missing, range(_PASS, len(missing), _PASS)):
            if len(part):
                self._fill(rows, part, batch)
        device = batch["image"].device
        return {
            tap: torch.from_numpy(store.read(rows)).to(device, non_blocking=True)
            for tap, store in self.stores.items()
        }

    def _fill(self, rows: np.ndarray, places: np.ndarray, batch: Batch) -> None:
        for tap, values in self._run(places, batch).items():
            if not np.isfinite(values).all():
                raise UserError(
                    f"teacher {self.name!r}: tap {tap!r} gives values that float16 cannot hold; "
                    "leave trainer.teacher_cache out"
                )
            self.stores[tap].write(rows[places], values)

    def _check(self, rows: np.ndarray, there: np.ndarray, batch: Batch) -> None:
        """Compare a few rows with the teacher: the hash covers its weights, not its code."""
        places = np.flatnonzero(there)[:8]
        for tap, values in self._run(places, batch).items():
            kept = self.stores[tap].read(rows[places])
            gap = np.abs(kept.astype(np.float32) - values).max()
            if not gap <= _ALIKE * np.abs(values).max():
                raise UserError(
                    f"{self.stores[tap].folder}: teacher {self.name!r} gives other values than are "
                    f"kept here for tap {tap!r} (by up to {gap:.3g}); was its code changed? Move "
                    "the folder elsewhere"
                )
        self._trusted = True

    def _run(self, places: np.ndarray, batch: Batch) -> dict[str, np.ndarray]:
        chosen = torch.from_numpy(places).to(batch["image"].device)
        with self.autocast():
            features = self.teacher(rows_of(batch, chosen))
        return {tap: value.half().cpu().numpy() for tap, value in features.items()}


def _joined(batches: Sequence[Batch]) -> Batch:
    """Return one batch of the tensors of several."""
    each = [cast(dict[str, Any], batch) for batch in batches]
    names = [name for name, value in each[0].items() if isinstance(value, Tensor)]
    return cast(Batch, {name: torch.cat([batch[name] for batch in each]) for name in names})


def _count_views(loader: Loader) -> int:
    """Return the number of views of an image; raise if it is not limited."""
    require_one_machine()
    if not isinstance(loader, DeviceLoader):
        problem = (
            "images are read and cropped again in each epoch; only a resident set has few views"
        )
    elif not loader.augment:
        return 1
    elif [type(augment) for augment in loader.augment] != [CropFlip]:
        names = ", ".join(type(augment).__name__ for augment in loader.augment)
        problem = f"the augmentation is {names}; only CropFlip alone, or none, has few views"
    else:
        return loader.augment[0].count_views(loader.images.shape)  # type: ignore[attr-defined]
    raise UserError(f"trainer.teacher_cache cannot be used here: {problem}; leave it out")


def has_few_views(loader: Loader) -> bool:
    """Return whether a table of all views of all images is possible."""
    if not isinstance(loader, DeviceLoader):
        return False
    return [type(augment) for augment in loader.augment] in ([], [CropFlip])


def require_one_machine() -> None:
    """Reject processes that do not see one another's files, or not at once."""
    if not distributed.on_one_machine():
        raise UserError(
            "trainer.teacher_cache cannot be used here: processes on several machines cannot share "
            "its files; leave it out"
        )


def require_statistics(name: str, teacher: Teacher) -> None:
    """Reject a teacher whose outputs for an image depend on the other images of the batch."""
    for path, module in teacher.network.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise UserError(
                f"trainer.teacher_cache cannot be used here: {path or 'the network'!r} of teacher "
                f"{name!r} is a BatchNorm without running statistics (track_running_stats=False), "
                "so an output depends on the rest of its batch; leave it out"
            )


def _widths(name: str, shapes: Mapping[str, Any]) -> dict[str, int]:
    """Return the width of every tap of a teacher, all of them vectors."""
    for tap, shape in shapes.items():
        if not (isinstance(shape, tuple) and len(shape) == 1 and isinstance(shape[0], int)):
            raise UserError(
                f"trainer.teacher_cache cannot be used here: tap {tap!r} of teacher {name!r} gives "
                f"{list(shape)} for an image, and only logits and vectors are kept (maps would be "
                "hundreds of times as large); leave it out, or take a criterion on vectors"
            )
    return {tap: shape[0] for tap, shape in shapes.items()}


def _open(folder: Path, key: str, tap: str, *, rows: int, width: int) -> RowStore:
    # "crc32" is the form of the tables; those of older releases are left alone.
    return RowStore(folder / f"cache-{fingerprint(key, tap, 'crc32')}", rows, width)


def _data_fingerprint(loader: DeviceLoader) -> str:
    recipe = [(type(augment).__name__, vars(augment)) for augment in loader.augment]
    return fingerprint(repr(recipe), loader.images)
