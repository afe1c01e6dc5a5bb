"""Terms with several teachers: in a config one node, which becomes a term for each teacher."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from kd_core.distill.term_spec import TermSpec
from kd_core.errors import UserError


def listed_sources(value: Any, where: str) -> tuple[str, ...]:
    """Return the teachers that the `source` of a term's node lists; nothing if it is not a list.

    Raises:
        UserError: If the list is empty, repeats a name, or holds anything but names.
    """
    if not isinstance(value, list | tuple):
        return ()
    wrong = [name for name in value if not isinstance(name, str)]
    repeated = [name for name in value if value.count(name) > 1]
    if wrong or repeated or not value:
        problem = f"{(wrong or repeated)[0]!r} is repeated" if repeated else f"got {value!r:.80}"
        raise UserError(f"{where}: wanted the name of each teacher once; {problem}")
    return tuple(value)


def of_each_teacher(
    specs: Mapping[str, TermSpec], others: Collection[str], where: str
) -> dict[str, TermSpec]:
    """Return for each term that lists several teachers a term of every one of them.

    They are named TERM_TEACHER, and joined under the name of the term, unless it says another.

    Args:
        specs: By name.
        others: Names of the other terms.
        where: Their place in the config, for messages.

    Raises:
        UserError: If a term has the name that another gets, or weights are for several.
    """
    found: dict[str, TermSpec] = {}
    for name, spec in specs.items():
        if spec.has_weights:
            raise UserError(
                f"{where}.{name}.weights: each of {', '.join(spec.sources)} has a criterion, so "
                f"one file does not fit; write a term for each, with joint={name!r}"
            )
        joint = spec.call.get("joint")
        call = spec.call.changed(joint=name if joint is None else joint)
        for source in spec.sources:
            if "." in source:
                raise UserError(
                    f"{where}.{name}.source: a term is named after teacher {source!r}, and names "
                    "of modules have no dots; rename the teacher"
                )
            if (own := f"{name}_{source}") in {*found, *others}:
                raise UserError(f"{where}.{name}: another term is named {own!r}; rename it")
            found[own] = replace(spec, call=call.changed(source=source), sources=())
    return found
