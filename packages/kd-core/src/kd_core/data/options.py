"""Let the functions of data sets share arguments."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from kd_core.config.values import checked


def shared_arguments(options: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that replaces a function's first argument, options, by their fields.

    The fields are in its signature, so `kd_core.build` finds misspelt ones.

    Args:
        options: A dataclass.
    """
    shared = inspect.signature(options).parameters

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        own = list(inspect.signature(function).parameters.values())[1:]

        @functools.wraps(function)
        def factory(*args: Any, **arguments: Any) -> Any:
            given = {name: arguments.pop(name) for name in shared if name in arguments}
            return function(options(**given), *args, **arguments)

        factory.__signature__ = inspect.Signature([*own, *shared.values()])  # type: ignore[attr-defined]
        return checked(factory)

    return decorate
