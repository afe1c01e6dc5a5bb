"""Let the functions of data sets share arguments."""

import functools
import inspect
from collections.abc import Callable
from typing import Any


def shared_arguments(options: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator: a function that takes such options first takes their fields as keywords.

    They appear in its signature, so that `kd_core.build` knows them and a misspelt one.

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
        return factory

    return decorate
