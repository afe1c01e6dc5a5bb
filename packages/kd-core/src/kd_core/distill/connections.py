"""Which taps of which networks each term reads, checked when a distiller is made."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from kd_core.distill.tap_kinds import maps_of, paths_for
from kd_core.distill.teacher import Teacher
from kd_core.distill.term import Term, tap_tuple
from kd_core.errors import UserError, located, nearest
from kd_core.networks.roles import tap_list
from kd_core.networks.task import network_of

Terms = Mapping[str, Term]
Teachers = Mapping[str, Teacher]


def source_of(name: str, term: Term, teachers: Teachers) -> str:
    """Return the name of the teacher that a term learns from.

    Raises:
        UserError: If there is no such teacher, or several and the term names none.
    """
    wanted = term.source
    if wanted is None and len(teachers) == 1:
        return next(iter(teachers))
    if wanted is None or wanted not in teachers:
        problem = "names no teacher (source=...)" if wanted is None else f"wants {wanted!r}"
        raise UserError(f"term {name!r} {problem}{nearest(wanted or '', teachers)}")
    return wanted


def connect(terms: Terms, student: nn.Module, teachers: Teachers) -> dict[str, Term]:
    """Return the terms with paths in the place of roles.

    Raises:
        UserError: If a teacher or a role does not exist.
    """
    connected = {}
    for name, term in terms.items():
        teacher = teachers[source_of(name, term, teachers)].model
        paths = {}
        for side, taps, model in (
            ("student", term.student, student),
            ("teacher", term.teacher, teacher),
        ):
            with located(f"term {name!r}: {side}"):
                paths[side] = paths_for(term.criterion, taps, model)
        connected[name] = replace(term, student=paths["student"], teacher=paths["teacher"])
    return connected


def maps_in(terms: Iterable[Term], side: Literal["student", "teacher"]) -> list[str]:
    """Return the paths of a side that criteria take as maps."""
    pairs = [(term.criterion, tap_list(getattr(term, side))) for term in terms]
    return [path for criterion, paths in pairs for path in maps_of(criterion, paths)]


def bind(terms: Terms, student: nn.Module, teachers: Teachers) -> None:
    """Let every criterion read of the networks themselves what it needs; see `Criterion.bind`."""
    for name, term in terms.items():
        teacher = teachers[source_of(name, term, teachers)]
        taps = tap_list(term.student), tap_list(term.teacher)
        with located(f"term {name!r}"):
            term.criterion.bind(network_of(student), teacher.network, taps)


def check_shapes(
    terms: Terms, tap_shapes: Mapping[str, Mapping[str, Any]], teachers: Teachers
) -> None:
    """Check what the taps gave against what every criterion takes.

    Args:
        terms: With paths.
        tap_shapes: Shapes by path, of the "student" and of each teacher by name.
        teachers: By name.

    Raises:
        UserError: If they do not suit a criterion.
    """
    for name, term in terms.items():
        teacher = tap_shapes[source_of(name, term, teachers)]
        with located(f"term {name!r}"):
            term.criterion.check_shapes(
                tap_tuple(tap_shapes["student"], term.student), tap_tuple(teacher, term.teacher)
            )
