"""Build nodes for nothing but their checks: some values are judged only by what takes them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kd_core.config.node import Node
from kd_core.errors import UserError


def try_out(node: Node, make: Callable[[Node], Any]) -> None:
    """Build a node for nothing but its checks; name the argument without which it can be built."""

    def fails_without(name: str) -> bool:
        others = {key: value for key, value in node.arguments.items() if key != name}
        try:
            make(replace(node, arguments=others))
        except UserError:
            return True
        return False

    try:
        make(node)
    except UserError as error:
        wrong = next((name for name in node.arguments if not fails_without(name)), None)
        if wrong is None or wrong in str(error).partition(":")[0]:
            raise
        reason = str(error).removeprefix(f"{node.where}: ")
        raise UserError(f"{node.where}.{wrong}: {reason}") from error
