"""The rules of every criterion's constructor."""

import sys
from typing import Any

from kd_core.criteria.criterion import Criterion
from kd_core.testing.samples import FILLED_IN, parameters


def arguments_are_documented(cls: type[Criterion], **overrides: Any) -> None:
    """The class has a docstring that names every argument not filled in."""
    for name in parameters(cls):
        if name not in FILLED_IN and f"{name}:" not in (cls.__doc__ or ""):
            raise AssertionError(f"argument {name} is not documented")
    if not cls.__doc__:
        raise AssertionError("no docstring")


def class_and_function_share_their_defaults(cls: type[Criterion], **overrides: Any) -> None:
    """`DKD(beta=...)` and `dkd(beta=...)` have the same default, if there is such a function."""
    function = getattr(sys.modules.get(cls.__module__), cls.__name__.lower(), None)
    shared = parameters(function) if function else {}
    for name, parameter in parameters(cls).items():
        default = shared.get(name, parameter).default
        if default != parameter.default:
            raise AssertionError(f"{name} is {parameter.default}, in the function {default}")
