"""Build objects from config nodes: `type` is an import path, every other key an argument of it."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from kd_core.config.kinds import MODULE, Kind
from kd_core.config.node import parse
from kd_core.errors import UserError


def build(
    node: Mapping[str, Any], where: str = "", *, kind: Kind | None = None, **provided: Any
) -> Any:
    """Call the `type` of a node with its other keys, building nested nodes first.

    Everything is checked before anything is called: see `kd_core.config.node.parse`.

    Args:
        node: `type` (an import path or a callable) and arguments.
        where: Path of the node in the config, for messages.
        kind: What the node itself must name.
        provided: Arguments at hand; see `kd_core.config.node.Node.build`.

    Raises:
        UserError: If the type names something else, an argument is unknown, missing or outside its
            range, or the callable raises a TypeError or ValueError.
    """
    return parse(node, where, kind=kind, provided=provided).build(**provided)


def build_network(node: Mapping[str, Any], where: str, **provided: Any) -> nn.Module:
    """Build a node that must give a module; see `build`."""
    built = build(node, where, kind=MODULE, **provided)
    if not isinstance(built, nn.Module):
        raise UserError(f"{where}: {node['type']} gave a {type(built).__name__}, not a module")
    return built
