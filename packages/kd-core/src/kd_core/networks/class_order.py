"""Classes by name: which of a network's logits are kept, and in which order."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from kd_core.errors import UserError, nearest

TOLERANCE = 1e-3  # of the largest value; another order of rows differs by rounding, some 1e-6

_SIZES = ("out_features", "out_channels", "num_features", "num_classes")
"""Attributes in which modules say how many classes they give."""


def places_of(wanted: Sequence[str], known: Sequence[str]) -> list[int]:
    """Return the place of every wanted class among those that a network knows.

    Raises:
        UserError: If some are missing, or a name that is wanted is there twice.
    """
    places = {name: place for place, name in enumerate(known)}
    missing = [name for name in wanted if name not in places]
    if missing:
        listed = ", ".join(map(repr, missing[:3])) + (", ..." if len(missing) > 3 else "")
        raise UserError(
            f"{len(missing)} of {len(wanted)} classes are not among the {len(known)} that it "
            f"knows: {listed}{nearest(missing[0], known)}"
        )
    twice = [name for name in wanted if known.count(name) > 1]
    if twice:
        raise UserError(f"two of the classes that it knows have the name {twice[0]!r}")
    return [places[name] for name in wanted]


def renamed(wanted: Sequence[str], class_map: Mapping[str, str] | None) -> list[str]:
    """Return the names that a network has for the classes that are wanted.

    Args:
        wanted: Names that the data has.
        class_map: From these, where the network's differ, to the network's.

    Raises:
        UserError: If a name is none of the data's, or two classes would become one.
    """
    names = class_map or {}
    for name in names:
        if name not in wanted:
            raise UserError(f"class_map: the data has no class {name!r}{nearest(name, wanted)}")
    found = [names.get(name, name) for name in wanted]
    twice = [name for name in found if found.count(name) > 1] if names else []
    if twice:
        raise UserError(f"class_map: two classes of the data become {twice[0]!r}")
    return found


def select_classes(
    network: nn.Module, chosen: Sequence[int], run: Callable[[nn.Module], Tensor]
) -> None:
    """Keep some logits of a network, in another order: logit `i` becomes the old `chosen[i]`.

    The rows of its classifier are moved, whatever layer that is; so taps inside the network, its
    borrowed classifier and copies of it have the new order too. The outputs are compared, and
    nothing is changed unless they are the old ones in the new order.

    Args:
        network: In eval mode; its classifier's tensors are replaced in place.
        chosen: Old places of the logits that are kept, each once.
        run: Runs the network on a sample, and returns its logits [N, C].

    Raises:
        UserError: If no layers are found whose rows are the logits.
    """
    with torch.no_grad():
        before = run(network)
        classes = before.shape[1]
        if list(chosen) == list(range(classes)):
            return
        owners = _owners(network, classes)
        # The last alone; with other heads; at last all, as where a BatchNorm follows the logits.
        for count in dict.fromkeys((*range(1, min(4, len(owners)) + 1), len(owners))):
            moved = _move(owners[len(owners) - count :], chosen, classes) if count else ()
            if moved and _agree(before[:, list(chosen)], network, run):
                return
            for undo in moved:
                undo()
    raise UserError(
        f"the order of the {classes} logits of {type(network).__name__} cannot be changed: they "
        "are not the rows of its last layers; wrap it in a network that picks them by index"
    )


def _owners(network: nn.Module, classes: int) -> list[nn.Module]:
    """Return the modules that own a tensor with a row for each class, in their order."""
    return [module for module in network.modules() if _tensors(module, classes)]


def _tensors(module: nn.Module, classes: int) -> list[Tensor]:
    own = chain(module.parameters(recurse=False), module.buffers(recurse=False))
    return [tensor for tensor in own if tensor.dim() and tensor.shape[0] == classes]


def _move(
    owners: Sequence[nn.Module], chosen: Sequence[int], classes: int
) -> list[Callable[[], None]]:
    """Move the rows of these modules' tensors; return what undoes it."""
    undo: list[Callable[[], None]] = []
    done: set[int] = set()
    for module in owners:
        for tensor in _tensors(module, classes):
            if id(tensor) not in done:  # two modules may share one
                done.add(id(tensor))
                undo.append(_kept(tensor))
                tensor.data = tensor.data[torch.tensor(chosen, device=tensor.device)]
        for name in _SIZES:
            if getattr(module, name, None) == classes:
                undo.append(lambda module=module, name=name: setattr(module, name, classes))  # type: ignore[misc]
                setattr(module, name, len(chosen))
    return undo


def _kept(tensor: Tensor) -> Callable[[], None]:
    data = tensor.data

    def restore() -> None:
        tensor.data = data

    return restore


def _agree(wanted: Tensor, network: nn.Module, run: Callable[[nn.Module], Tensor]) -> bool:
    try:
        found = run(network)
    except (RuntimeError, ValueError, IndexError):  # rows of an inner layer were moved
        return False
    gap = (found - wanted).abs().max() if found.shape == wanted.shape else torch.tensor(torch.inf)
    return bool(gap <= TOLERANCE * wanted.abs().max())
