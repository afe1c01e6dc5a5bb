"""Pretrained weights that cannot be downloaded: one line that says why, and what to do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kd_core.errors import UserError
from kd_core.runtime.failures import first_line

_OF_CONNECTIONS = {
    *("ConnectionError", "TimeoutError", "gaierror", "URLError", "TransportError"),
    *("LocalEntryNotFoundError", "OfflineModeIsEnabled"),
}
"""Names of exceptions of Python, urllib, requests, httpx and the Hugging Face Hub."""


def why_not_reached(error: BaseException) -> str | None:
    """Return why a server was not reached, if an exception, or what led to it, is about that."""
    reason, seen = None, set[int]()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        if {kind.__name__ for kind in type(one).__mro__} & _OF_CONNECTIONS:
            reason = str(getattr(one, "reason", "")) or first_line(one) or type(one).__name__
        one = one.__cause__ or one.__context__
    return reason


@contextmanager
def download_explained(node: Mapping[str, Any], where: str) -> Iterator[None]:
    """Turn a failed connection inside into one line that says what to do without it.

    Args:
        node: Of the network, which asks its library for pretrained weights.
        where: Place in the config of the student or teacher.

    Raises:
        UserError: If a server was not reached.
    """
    try:
        yield
    except Exception as error:  # each library raises its own
        reason = why_not_reached(error)
        if reason is None:
            raise
        switch = "pretrained=False" if node.get("pretrained") else "weights=None"
        random, file = f"{where}.network.{switch}", f"{where}.weights=FILE"
        remedy = f"name a file: {random} {file}"
        if where.partition(".")[0] in ("student", "peers"):
            remedy = f"train from random weights with {random}, or name a file as well: {file}"
        raise UserError(
            f"{where}.network: weights of {_title(node)} could not be downloaded "
            f"({reason:.200}); {remedy}"
        ) from error


def _title(node: Mapping[str, Any]) -> str:
    if name := node.get("model_name"):
        return name if ":" in str(name) else f"timm:{name}"
    kind = node.get("type")
    return str(node.get("name") or getattr(kind, "__name__", kind))
