"""Tensors of a file under other names than a network's: the first for the first, and so on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from kd_core.errors import UserError
from kd_core.files.best_match import Match, matches, same_tensors, state_dicts
from kd_core.files.mismatch import COUNTER
from kd_core.files.weight_files import CHOICE, IN_ORDER, is_index

_HEADS = 2  # modules; a distilled transformer has two


def match_in_order(file: Path, contents: Any, own: Mapping[str, Tensor]) -> tuple[Match, str]:
    """Return a file's tensors under a network's names, by their order, and what was done.

    A file of the same architecture from another library has other names, but its modules were
    built in the same order. So number, shapes, the ends of names (`weight`, `running_mean`) and
    which tensors are of one module must all agree. What cannot be seen is whether two modules of
    equal shapes were built in another order: whoever asks for this says that they were not. The
    head, the last module or two, may be of other classes, as in files that are found by name.

    Args:
        file: The file, or the index of its shards.
        contents: What it holds.
        own: The network's tensors by name.

    Raises:
        UserError: If the file does not keep the order, no state dict fits, several fit and differ,
            or the names fit as they are.
    """
    if not _keeps_order(file):
        raise UserError(
            f"safetensors files and shards do not keep the order of tensors, which #{IN_ORDER} "
            "needs; name the original file of torch.save, or rename the tensors"
        )
    if any(match.fits(own) for match in matches(contents, own)):
        raise UserError(f"has the network's names; leave #{IN_ORDER} out")
    tried = {keys: (tensors, _difference(tensors, own)) for keys, tensors in state_dicts(contents)}
    if not tried:
        raise UserError("wanted a state dict (tensors by name), found none")
    found = {keys: tensors for keys, (tensors, wrong) in tried.items() if not wrong}
    if not found:
        _, wrong = max(tried.values(), key=lambda one: len(one[0]))
        raise UserError(
            f"does not fit in order: {wrong}; build the network that the file was made for, or "
            "rename its tensors and save them again"
        )
    several = [Match(".".join(keys), _renamed(tensors, own)) for keys, tensors in found.items()]
    if not all(same_tensors(several[0], other) for other in several[1:]):
        places = ", ".join(match.place or "(the whole file)" for match in several)
        raise UserError(
            f"holds several weights that fit this network in order, and they differ: {places}; "
            "save one of them alone"
        )
    return several[0], _text(next(iter(found.values())), several[0].state)


def in_order_hint(file: Path, contents: Any, own: Mapping[str, Tensor]) -> str:
    """Return what to do with a file that fits except for its names; "" for others."""
    try:
        match, _ = match_in_order(file, contents, own)
    except UserError:
        return ""
    but = "" if match.fits(own) else " except for another number of classes"
    return (
        f"; its tensors have the network's shapes{but}, in the same order: if only the names "
        f"differ, write weights='FILE{CHOICE}{IN_ORDER}'"
    )


def _keeps_order(file: Path) -> bool:
    return file.suffix != ".safetensors" and not is_index(file)  # safetensors sorts by kind, name


def _renamed(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    values = _counted(tensors, own).values()
    return dict(zip(_counted(own, tensors), values, strict=True))


def _text(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    old, new = list(_counted(tensors, state)), list(state)
    ends = ", ..., ".join(f"{old[n]} as {new[n]}" for n in (0, -1))
    return f"took the {len(new)} tensors in their order: {ends}"


def _counted(state: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave the counters of BatchNorms out where the other side has none: old files lack them."""
    has_counters = any(name.endswith(COUNTER) for name in other)
    return {k: v for k, v in state.items() if has_counters or not k.endswith(COUNTER)}


def _difference(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Return in what way the order, or what is in it, differs; "" if it does not."""
    file, network = _counted(tensors, own), _counted(own, tensors)
    heads = list(dict.fromkeys(name.rpartition(".")[0] for name in network))[-_HEADS:]
    modules: dict[str, str] = {}
    for (old, value), (new, wanted) in zip(file.items(), network.items(), strict=False):
        alike = value.shape[1:] == wanted.shape[1:] and value.dim() == wanted.dim()
        if value.shape != wanted.shape and not (alike and new.rpartition(".")[0] in heads):
            return f"{old} is {list(value.shape)}, in its place is {new} {list(wanted.shape)}"
        (old_module, _, old_end), (module, _, end) = old.rpartition("."), new.rpartition(".")
        if old_end != end or modules.setdefault(old_module, module) != module:
            return f"in the place of {old} is {new}"
        if old != new and old in own:
            return f"the network has {old} too, but in its place is {new}"
    if len(file) != len(network):
        return f"{len(file)} tensors in the file, {len(network)} in the network"
    if len(set(modules.values())) < len(modules):
        return "tensors of several modules are those of one module in the network"
    return ""
