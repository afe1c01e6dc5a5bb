"""Short names of networks: `timm:resnet18`, `hf-hub:ORG/NAME`, for an import path and a name."""

from collections.abc import Mapping
from typing import Any

from kd_core.errors import UserError, nearest

_TIMM = ("timm.create_model", "model_name")
SCHEMES = {
    "timm": (*_TIMM, ""),
    "hf-hub": (*_TIMM, "hf-hub:"),
    "local-dir": (*_TIMM, "local-dir:"),
}
"""Of each scheme: what is called, its argument for the name, and what stays before the name."""


def expanded(value: Any, where: str, *, network: bool) -> Any:
    """Return a node with its short name written out; anything else as it is.

    Args:
        value: A node, or a text.
        where: Its place, for messages.
        network: Whether the place is for a network: there a text alone is one too.

    Raises:
        UserError: If the scheme is not known, or the name is missing or there twice.
    """
    if isinstance(value, str) and network and ":" in value:
        value, place = {"type": value}, where
    else:
        place = f"{where}.type" if where else "type"
    written = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(written, str) or ":" not in written:
        return value
    scheme, _, name = written.partition(":")
    if scheme not in SCHEMES:
        raise UserError(
            f"{place}: {written!r:.200} begins with {scheme!r:.40}, which names no source of "
            f"networks{nearest(scheme, SCHEMES)}"
        )
    path, argument, prefix = SCHEMES[scheme]
    if not name:
        raise UserError(f"{place}: {written!r} lacks a name, as in 'timm:resnet18'")
    if argument in value:
        raise UserError(f"{place}: {written!r} has the name already; leave {argument!r} out")
    others = {key: item for key, item in value.items() if key != "type"}
    return {"type": path, argument: prefix + name, **others}
