"""What a callable takes, by name."""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from torch import nn

# Model zoos hide this name in **kwargs (torchvision.models.resnet18); no other is offered there.
OFFERED_THROUGH_KWARGS = frozenset({"num_classes"})


class Parameters(NamedTuple):
    """What a callable takes by name; `open` if it takes any name."""

    names: tuple[str, ...]
    required: tuple[str, ...]
    open: bool

    def takes_offer(self, name: str) -> bool:
        """Return whether a provided argument of this name is passed on."""
        return name in self.names or (self.open and name in OFFERED_THROUGH_KWARGS)


def parameters_of(function: Callable[..., Any]) -> Parameters:
    """Return what a callable takes; of the last few hundred it is remembered."""
    try:
        return _parameters_of(function)
    except TypeError:  # it has no hash
        return _parameters_of.__wrapped__(function)


def call_problem(owner: type, name: str, *given: str) -> str:
    """Return why a method cannot be called with such arguments, without names; "" if it can.

    Args:
        owner: A class that has it.
        name: Of the method.
        given: What it will be given besides `self`, for the message.
    """
    if not isinstance(inspect.getattr_static(owner, name), staticmethod | classmethod):
        given = ("self", *given)
    try:
        signature = inspect.signature(getattr(owner, name))
    except ValueError:  # written in C, without a signature
        return ""
    except TypeError:
        return "is not a method"
    try:
        signature.bind(*given)
    except TypeError:
        return f"takes {signature}; wanted ({', '.join(given)})"
    return ""


@lru_cache(maxsize=512)
def _parameters_of(function: Callable[..., Any]) -> Parameters:
    # A module without constructor inherits `(*args, **kwargs)`, and then refuses all of them.
    if getattr(function, "__init__", None) is nn.Module.__init__:
        return Parameters((), (), open=False)
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # written in C, without a signature
        return Parameters((), (), open=True)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return Parameters(
        names=tuple(p.name for p in named),
        required=tuple(p.name for p in named if p.default is p.empty),
        open=any(p.kind is p.VAR_KEYWORD for p in parameters),
    )
