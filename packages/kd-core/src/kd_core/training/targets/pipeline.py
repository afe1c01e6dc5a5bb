"""What the images of a loader's epochs depend on, as texts, and whether they depend on it alone."""

import functools
import inspect
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kd_core.data.augment import BY_IMAGE, Augment, PerImage, QuarterTurns, Views
from kd_core.data.samples.dataset_samples import DatasetSamples
from kd_core.data.samples.image_samples import ImageFiles
from kd_core.data.split_loader import SplitLoader
from kd_core.data.weak_strong import StrongCopies
from kd_core.data.worker_loader import WorkerLoader
from kd_core.errors import UserError
from kd_core.files.fingerprint import fingerprint
from kd_core.networks.task import Batch
from kd_core.runtime import distributed

_APART = (*BY_IMAGE, PerImage, QuarterTurns, Views, StrongCopies)
"""Augmentations after which an image does not depend on the others of its batch."""
_TRIED = 16  # images that are made twice
_MOST = 300  # texts of a transform; more become one hash
_OF_MODULES = frozenset(vars(nn.Module()))


def identity_of(loader: SplitLoader) -> dict[str, str]:
    """Return what the images of every epoch depend on, by name.

    Nothing in it differs between machines: no path, and of the files their names below the folder
    that all have in common, their sizes and contents. Of a transform its class and all its
    attributes count, but not its code.
    """
    identity = {
        "data": _data(loader),
        "samples": str(len(loader.labels)),
        "data_seed": str(loader.data_seed),
        "shuffle": str(loader.shuffle),
        "copies": str(loader.copies),
        "sampler": _name(type(loader.sampler)),
        "order": fingerprint(loader.order(0), loader.order(1)),
        **described(loader.augment, "augment"),
    }
    if isinstance(loader, WorkerLoader):
        identity["image_size"] = str(tuple(loader.samples.size))
        identity |= _reading(loader.samples)
    if any(_depends_on_batch(augment) for augment in loader.augment):
        identity["batch_size"] = str(loader.batch_size)
        identity["processes"] = str(distributed.world_size())  # each mixes its own part
    return identity


def described(value: Any, path: str) -> dict[str, str]:
    """Return the parts of a transform or of anything else by dotted path, each as a text.

    Private tensors are left out: they are computed from the rest. Many parts become one hash.
    """
    leaves = dict(_leaves(value, path, ()))
    if len(leaves) > _MOST:
        return {path: fingerprint(*(f"{key}={text}" for key, text in leaves.items()))}
    return leaves


def seeded_batch(loader: SplitLoader) -> Batch:
    """Return some images of the first epoch, once they and some of the second were made twice.

    They are made in this process, where a generator that runs along has moved in between.

    Raises:
        UserError: If they differ.
    """
    part = loader.shard(0, 1)
    part.batch_size = min(_TRIED, loader.batch_size)
    if isinstance(part, WorkerLoader):
        part.workers = 0
    for epoch in (1, 0):
        first = next(part.epoch(epoch))
        if isinstance(part, WorkerLoader):
            part.samples.__getitems__([(epoch, 0)])  # one more moves a counter of any period on
        again = next(part.epoch(epoch))
        differs = _differing(first["image"], again["image"])
        if differs is not None:
            raise UserError(
                f"trainer.teacher_cache cannot be used here: image {int(first['index'][differs])} "
                f"of epoch {epoch} is another one when it is read again, so a transform draws from "
                "a generator of its own (NumPy's, or one that it keeps); let it draw from torch's "
                "or Python's, which are seeded for every image, or leave trainer.teacher_cache out"
            )
    return first


def _differing(one: Tensor, other: Tensor) -> int | None:
    if one.shape != other.shape:
        return 0
    places = (one != other).flatten(1).any(1).nonzero().flatten()
    return int(places[0]) if len(places) else None


def _data(loader: SplitLoader) -> str:
    return loader.samples.contents() if isinstance(loader, WorkerLoader) else loader.fingerprint()


def _reading(samples: Any) -> dict[str, str]:
    if isinstance(samples, ImageFiles):
        side = getattr(samples.pixels, "side", None)  # of images that are kept decoded
        stored = {} if side is None else {"decoded_side": str(side)}
        return {**described(samples.transform, "transform"), **stored}
    if isinstance(samples, DatasetSamples):
        return described(getattr(samples.dataset, "transform", None), "transform")
    own = getattr(samples, "transform", None)
    return {"reading": _name(type(samples)), **(described(own, "transform") if own else {})}


def _depends_on_batch(augment: Augment) -> bool:
    """Return whether an image may depend on the rest of its batch: mixing, or one of the user's."""
    views = getattr(augment, "views", ())
    inner = [*(each for view in views for each in view), *getattr(augment, "augment", ())]
    return type(augment) not in _APART or any(map(_depends_on_batch, inner))


def _leaves(value: Any, path: str, holders: tuple[int, ...]) -> Iterable[tuple[str, str]]:
    parts = _parts(value)
    if parts is None or id(value) in holders:
        yield path, _text(value)
        return
    if not isinstance(value, Mapping | list | tuple):
        yield path, _name(value if inspect.isroutine(value) else type(value))
    for key, item in parts:
        yield from _leaves(item, f"{path}.{key}", (*holders, id(value)))


def _parts(value: Any) -> Iterable[tuple[Any, Any]] | None:
    """Return what a value is made of, by name; None for one that is a text as a whole."""
    if isinstance(value, Mapping):
        return sorted(((str(key), item) for key, item in value.items()), key=lambda part: part[0])
    if isinstance(value, list | tuple):
        return None if all(map(_is_plain, value)) else enumerate(value)
    if isinstance(value, functools.partial):
        return [("function", value.func), *enumerate(value.args), *value.keywords.items()]
    if inspect.ismethod(value):
        return [("of", value.__self__)]
    if inspect.isfunction(value):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [*enumerate(cells), *enumerate(value.__defaults__ or ())]
    if isinstance(value, Tensor | np.ndarray | type | Enum) or not hasattr(value, "__dict__"):
        return None
    return _attributes(value)


def _attributes(value: Any) -> list[tuple[str, Any]]:
    own = {
        name: item
        for name, item in vars(value).items()
        if not (name.startswith("_") and isinstance(item, Tensor | np.ndarray))
    }
    if isinstance(value, nn.Module):
        state = {**dict(value.named_children()), **dict(value.named_parameters(recurse=False))}
        own = {name: item for name, item in own.items() if name not in _OF_MODULES} | state
    return sorted(own.items())


def _text(value: Any) -> str:
    if isinstance(value, Tensor | np.ndarray):
        return fingerprint(torch.as_tensor(value))
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # 1.0 is 1
    if _is_plain(value):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, set | frozenset):
        return str(sorted(map(_text, value)))
    return _name(value if isinstance(value, type) or inspect.isroutine(value) else type(value))


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | bytes | complex)


def _name(value: Any) -> str:
    return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__name__)}"
