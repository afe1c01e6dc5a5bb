"""A LazyConfig: a python file that Detectron2 runs, with options; its model."""

import builtins
import copy
import functools
import inspect
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, LazyConfig, instantiate
from detectron2.modeling import META_ARCH_REGISTRY
from kd_core.errors import UserError, nearest
from kd_core.runtime.user_code import FAILURES, pass_signals, with_place
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

ARCHITECTURE = "build_lazy_model"
"""`MODEL.META_ARCHITECTURE` of the config that stands for a LazyConfig."""

_LAZY = "__lazy_file__"
_BY_CHANCE = re.compile(r" at 0x[0-9a-f]+|detectron2\._cfg_loader[0-9a-f]{4}\.")
_NOT_IDENTITY = ("KD", "train")
_NOT_OF_BATCHES = ("total_batch_size", "num_workers", "aspect_ratio_grouping")


class LazyFile:
    """What a LazyConfig says, with KEY VALUE options; nobody changes it.

    Another process reads the file again: what is in it need not be picklable.

    Args:
        path: The file. It is code, and is run.
        options: Pairs such as `train.max_iter 90000`.

    Raises:
        UserError: If the file fails, has no `model`, or an option names nothing in it.
    """

    def __init__(self, path: str, options: Sequence[str] = ()) -> None:
        self.path = str(Path(path).absolute())
        self.options = tuple(options)
        self.node = _read(self.path)
        for key, value in zip(self.options[::2], self.options[1::2], strict=True):
            _change(self.node, str(key), CfgNode._decode_cfg_value(value), path)
        if self.get("model._target_") is None:
            raise UserError(
                f"{path}: has no `model` that is a LazyCall; a config of detection in Python is a "
                "LazyConfig of Detectron2"
            )

    def __deepcopy__(self, memo: Any) -> "LazyFile":
        return self

    def __reduce__(self) -> Any:
        return LazyFile, (self.path, self.options)

    def get(self, path: str, default: Any = None) -> Any:
        """Return a value by its dotted path, lists as lists."""
        with resolving(f"{self.path}: {path}"):
            value = OmegaConf.select(self.node, path, default=default)
            is_plain = OmegaConf.is_list(value)
            return OmegaConf.to_container(value, resolve=True) if is_plain else value

    def copy(self) -> DictConfig:
        """Return a copy of all that the file says."""
        return copy.deepcopy(self.node)

    def build(self, node: Any, what: str) -> Any:
        """Return what a node of the file describes.

        Raises:
            UserError: If it cannot be built.
        """
        log = logging.getLogger("detectron2.config.instantiate")
        before, log.disabled = log.disabled, True  # it reports what is raised here
        try:
            return instantiate(node)
        except (UserError, MemoryError):
            raise
        except Exception as error:  # of any constructor
            raise UserError(f"{self.path}: {what}: {with_place(error)}") from error
        finally:
            log.disabled = before

    def identity(self) -> dict[str, Any]:
        """Return in plain types what the file says, but what the config has that stands for it."""
        names = [str(key) for key in self.node if key not in _NOT_IDENTITY]
        with resolving(self.path):
            whole = {key: _plain(self.get(key)) for key in names}
        for part in ("train", "test"):
            loader = whole.get("dataloader", {}).get(part, {})
            for key in _NOT_OF_BATCHES:
                loader.pop(key, None)
        return whole


@contextmanager
def resolving(where: str) -> Iterator[None]:
    """Turn an error of OmegaConf, as of a reference to a key that is not there, into one line."""
    try:
        yield
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {' '.join(str(error).split())}") from error


def lazy_of(cfg: CfgNode) -> LazyFile | None:
    """Return the LazyConfig that a config stands for, or None."""
    found = cfg.__dict__.get(_LAZY)
    return found if isinstance(found, LazyFile) else None


def attach(cfg: CfgNode, lazy: LazyFile) -> None:
    """Let a config stand for a LazyConfig."""
    cfg.__dict__[_LAZY] = lazy


def _build_model(cfg: CfgNode) -> nn.Module:
    """Return the model of a LazyConfig; Detectron2's `build_model` calls this."""
    lazy = lazy_of(cfg)
    if lazy is None:
        raise UserError(f"MODEL.META_ARCHITECTURE {ARCHITECTURE} is only for a .py LazyConfig")
    model = lazy.build(lazy.node.model, "model")
    if not isinstance(model, nn.Module):
        raise UserError(f"{lazy.path}: model is a {type(model).__name__}; wanted an nn.Module")
    return model


if ARCHITECTURE not in META_ARCH_REGISTRY:
    META_ARCH_REGISTRY._do_register(ARCHITECTURE, _build_model)


def _read(path: str) -> DictConfig:
    before = builtins.__import__
    try:
        return LazyConfig.load(path)
    except FAILURES as error:
        pass_signals(error)
        cause = error.__cause__ if isinstance(error.__cause__, SyntaxError) else error
        raise UserError(f"{path}: {with_place(cause)}") from error
    finally:
        builtins.__import__ = before  # Detectron2 leaves its own if the file fails


def _change(node: DictConfig, key: str, value: Any, where: str) -> None:
    """Set a value by its dotted path; a LazyCall may get a new argument, other nodes may not."""
    above, _, last = key.rpartition(".")
    inside: Any = node
    for part in above.split(".") if above else ():
        inside = inside.get(part) if isinstance(inside, DictConfig) and part in inside else None
    names = list(inside) if isinstance(inside, DictConfig) else list(node)
    if not isinstance(inside, DictConfig) or (last not in inside and "_target_" not in inside):
        wrong = last if isinstance(inside, DictConfig) else key.partition(".")[0]
        raise UserError(f"{where}: no key {key}{nearest(wrong, map(str, names))}")
    OmegaConf.update(node, key, value, merge=True)


def _plain(value: Any) -> Any:
    """Return a value of a LazyConfig in JSON's types, the same in every process."""
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=True)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, functools.partial):
        return {"partial": _plain(value.func), "args": _plain(value.args), **_plain(value.keywords)}
    if inspect.isclass(value) or inspect.isroutine(value):
        value = f"{value.__module__}.{value.__qualname__}"
    return _BY_CHANCE.sub("", value if isinstance(value, str) else repr(value))
