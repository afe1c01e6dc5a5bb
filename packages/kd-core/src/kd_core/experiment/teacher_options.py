"""Options of a teacher's own training that would change nothing."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from kd_core.errors import UserError


def refuse_training(where: str, given: Iterable[str], names: Collection[str]) -> None:
    """Reject what is of a teacher's training, for one whose node has no `config` of it.

    Args:
        where: The teacher's place.
        given: Keys of its node, and options by dotted path from there.
        names: Top-level names of a config.

    Raises:
        UserError: Names the first.
    """
    wrong = next((name for name in given if name.split(".")[0] in names), None)
    if wrong:
        raise UserError(
            f"{where}: {wrong!r} is of a teacher's own training, but this one has no `config` of "
            f"it; set {where}.config, or leave {wrong!r} out"
        )


def refuse_idle(where: str, options: Iterable[str], own: Mapping[str, Any]) -> None:
    """Reject options of a training whose place weights take; those of its network are used.

    Args:
        where: The teacher's place.
        options: By dotted path from there.
        own: The teacher's node without its training.

    Raises:
        UserError: Names the first.
    """
    idle = next((option for option in options if option.split(".")[0] != "student"), None)
    if own.get("weights") and idle:
        raise UserError(
            f"{where}: {idle!r} is of a training that {where}.weights make needless; leave one of "
            "them out"
        )
