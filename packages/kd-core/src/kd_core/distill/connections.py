"""Which taps of which networks each term reads, checked when a distiller is made."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from kd_core.config.names import named
from kd_core.criteria.criterion import Borrowed, Side
from kd_core.criteria.guarded import is_multi_label
from kd_core.distill.joint_terms import check_joint
from kd_core.distill.stored_outputs import require_output
from kd_core.distill.tap_kinds import maps_of, paths_for
from kd_core.distill.teacher import Teacher
from kd_core.distill.term import Term, tap_tuple
from kd_core.errors import UserError, located, nearest
from kd_core.networks.probe import untouched
from kd_core.networks.roles import Taps, tap_list
from kd_core.networks.sharding import refuse_parts
from kd_core.networks.task import Batch, Task, network_of

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
        UserError: If a teacher or a role does not exist, or terms cannot be joined.
    """
    check_joint(terms)
    connected = {}
    for name, term in named(terms, "terms").items():
        teacher = teachers[source_of(name, term, teachers)].model
        paths = {}
        sides: Sequence[tuple[Side, Taps, nn.Module]]
        sides = ("student", term.student, student), ("teacher", term.teacher, teacher)
        for side, taps, model in sides:
            with located(f"term {name!r}: {side}"):
                require_output(taps, model)
                paths[side] = paths_for(term.criterion, taps, model, side)
        connected[name] = replace(term, student=paths["student"], teacher=paths["teacher"])
    return connected


def maps_in(terms: Iterable[Term], side: Side) -> list[str]:
    """Return the paths of a side that criteria take as maps."""
    pairs = [(term.criterion, tap_list(getattr(term, side))) for term in terms]
    return [path for criterion, paths in pairs for path in maps_of(criterion, paths, side)]


def bind(terms: Terms, student: nn.Module, teachers: Teachers) -> None:
    """Let every criterion read of the networks themselves what it needs; see `Criterion.bind`."""
    for name, term in terms.items():
        teacher = teachers[source_of(name, term, teachers)]
        taps = tap_list(term.student), tap_list(term.teacher)
        with located(f"term {name!r}"):
            term.criterion.bind(network_of(student), teacher.network, taps)
            refuse_parts(_borrowed_by(term.criterion))


def _borrowed_by(criterion: nn.Module) -> Iterator[nn.Module]:
    for value in vars(criterion).values():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Borrowed):
                yield one.module


def deployed_node(terms: Terms, node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config node of what is exported, from that of the student's network.

    Raises:
        UserError: If several terms add to it, since each knows the taps of the student alone.
    """
    made = {name: term.criterion.deploy_node(node) for name, term in terms.items()}
    changed = [name for name in made if made[name] is not node]
    if len(changed) > 1:
        raise UserError(
            f"terms {', '.join(map(repr, changed))} each export more than the student (a kept "
            "head, or the teacher's classifier); let one of them do so: keep_head=False, or "
            "without SimKD"
        )
    return dict(made[changed[0]] if changed else node)


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
        source = source_of(name, term, teachers)
        teacher = tap_shapes[source]
        with located(f"term {name!r}"):
            if term.criterion.compares_classes():
                _refuse_other_classes(source, teachers[source].model, term.criterion)
            term.criterion.check_shapes(
                tap_tuple(tap_shapes["student"], term.student), tap_tuple(teacher, term.teacher)
            )


def check_sample(model: nn.Module, sample: Batch) -> None:
    """Let a task look at a batch and at what its network makes of it; see `Task.check_sample`."""
    if isinstance(model, Task):
        model.check_sample(sample)


def check_labels(
    terms: Terms,
    sample: Batch,
    student_features: Mapping[str, Any],
    teacher_features: Mapping[str, Mapping[str, Any]],
    teachers: Teachers,
) -> None:
    """Try copies of the criteria on a batch without labels, or with several an image.

    Only a call shows whether a criterion reads labels. Detection's batches get theirs later.

    Raises:
        UserError: If one cannot do with these labels.
    """
    if "image" not in sample:
        return
    unusual = "label" not in sample or is_multi_label(sample)
    start = sample["image"].new_zeros((), dtype=torch.float32)
    sample = {**sample, "epoch": start, "progress": start}
    for name, term in terms.items():
        if not unusual and not term.criterion.multi_label:
            continue
        tried = replace(term, criterion=copy.deepcopy(term.criterion).to(sample["image"].device))
        with located(f"term {name!r}"), untouched(tried.criterion):
            tried.loss(student_features, teacher_features[source_of(name, term, teachers)], sample)


def _refuse_other_classes(name: str, teacher: nn.Module, criterion: nn.Module) -> None:
    """Reject a teacher whose logits are of other classes, for a criterion that compares them.

    Raises:
        UserError: If it says so; their number may happen to be that of the data's.
    """
    if why := getattr(teacher, "other_classes", ""):
        raise UserError(
            f"teacher {name!r} {why}; {type(criterion).__name__} compares classes: name a teacher "
            "of these, set its `classes` if only the names differ, or take a criterion on features"
        )
