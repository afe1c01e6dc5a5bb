"""Losses on embeddings as a config names them: a name, an import path, or a node."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from kd_core.config.kinds import MODULE
from kd_core.config.node import Node, parse
from kd_core.errors import UserError, located, nearest
from kd_core.runtime import distributed
from torch import nn

from kd_reid.data.sampler import IdentitySampler
from kd_reid.data.splits import DataSplits

Written = str | Sequence[str] | Mapping[str, Any]

FILLED_IN = ("num_classes", "embedding_size", "descriptors_dim")
"""Arguments of losses that are known from data and network."""

_OURS = {"triplet": "kd_reid.losses.BatchHardTriplet"}
_OTHERS = "pytorch_metric_learning.losses"
_OF_OTHERS = ("Base", "GenericPair", "Multiple", "CrossBatchMemory", "SelfSupervised")
"""How the names begin of what is made of other losses."""


def nodes_of(written: Written, where: str) -> dict[str, Any]:
    """Return the nodes of losses by name.

    Args:
        written: `triplet`, a list of names, or a dict by name of nodes, of names and paths, or of
            the arguments of the loss that has this name.
        where: Its place, for messages.

    Raises:
        UserError: If there is no loss of a name.
    """
    items = _listed(written)
    if items is None:
        raise UserError(
            f"{where}: wanted a loss by name such as 'triplet', several, each once, or a dict of "
            f"nodes by name, got {written!r:.200}"
        )
    return {str(name): _node(str(name), value, f"{where}.{name}") for name, value in items.items()}


def _node(name: str, value: Any, where: str) -> Any:
    if not name.isidentifier():
        raise UserError(f"{where}: {name!r} is not a name; use letters, digits and underscores")
    if value is None:
        value = {}
    if isinstance(value, str):
        value = {"type": value}
    if isinstance(value, Node) or not isinstance(value, Mapping):
        return value
    named = "type" in value
    kind = value["type"] if named else name
    if not isinstance(kind, str) or "." in kind:
        return value
    with located(f"{where}.type" if named else where):
        return {**value, "type": _path(kind)}


def _listed(written: Any) -> Mapping[Any, Any] | None:
    """Return what was written as a dict by name; None if it is something else."""
    if isinstance(written, Mapping):
        return None if "type" in written else written
    texts: Any = written
    if isinstance(written, str):  # on a command line perhaps several, as in [triplet,circle]
        texts = [text.strip() for text in written.strip("[]() ").split(",")]
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        return None
    items = {text.rpartition(".")[2]: text for text in texts}
    return items if len(items) == len(texts) else None


def _path(name: str) -> str:
    """Return the import path of a loss by its name, with or without `Loss` at its end.

    Raises:
        UserError: If there is none.
    """
    key = _plain(name)
    if key in _OURS:
        return _OURS[key]
    others = _others()
    if key in others:
        return f"{_OTHERS}.{others[key]}"
    hint = nearest(key, [*_OURS, *others])
    more = "" if others else "; others: pip install 'kd-reid[metric]'"
    raise UserError(f"no loss on embeddings is called {name!r}{hint}{more}; or an import path")


@cache
def _others() -> dict[str, str]:
    """Return the classes of pytorch-metric-learning by their plain names; none without it."""
    try:
        from pytorch_metric_learning import losses
    except ImportError:
        return {}
    return {
        _plain(name): name
        for name, found in vars(losses).items()
        if name.endswith("Loss") and isinstance(found, type) and not name.startswith(_OF_OTHERS)
    }


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").removesuffix("loss")


def build_losses(
    nodes: Mapping[str, Any], where: str, numbers: Callable[[], Mapping[str, int]]
) -> dict[str, nn.Module]:
    """Build losses, with the numbers that they need and their nodes do not give.

    Args:
        nodes: By name.
        where: Their place, for messages.
        numbers: Returns those of `FILLED_IN`; called only if one is needed.

    Raises:
        UserError: If one cannot be built, or is not a module.
    """
    built = {}
    for name, node in nodes.items():
        place = f"{where}.{name}"
        call = parse(node, place, kind=MODULE, provided=FILLED_IN)
        needed = _needed(call.function) & {*FILLED_IN} - {*call}
        filled = {key: value for key, value in numbers().items() if key in needed} if needed else {}
        built[name] = call.changed(**filled).build()
        if not isinstance(built[name], nn.Module):
            kind = type(built[name]).__name__
            raise UserError(f"{place}: {node['type']} gave a {kind}, not a module")
    return built


def _needed(function: Any) -> set[str]:
    """Return the arguments without a default, of a class and of those that it passes **kwargs."""
    kinds = function.__mro__ if isinstance(function, type) else ()
    calls = [vars(kind)["__init__"] for kind in kinds if "__init__" in vars(kind)] or [function]
    return {
        name
        for call in calls
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.default is parameter.empty
    }


def check_batches(data: DataSplits, where: str) -> None:
    """Reject batches without pairs of one person and pairs of two; note batches by chance.

    Raises:
        UserError: If no batch can have both.
    """
    if data.num_classes < 2:
        raise UserError(f"{where}: the training set has one identity alone")
    sampler = data.train.sampler
    if not isinstance(sampler, IdentitySampler):
        distributed.print_note(
            f"{where}: data.instances is not set, so a batch has several images of a person by "
            "chance alone; set it, such as data.instances=4"
        )
        return
    if sampler.people < 2 or sampler.instances < 2:
        raise UserError(
            f"{where}: a batch has {sampler.people} people of {sampler.instances} images each; "
            "wanted at least two of both: change data.batch_size or data.instances"
        )
