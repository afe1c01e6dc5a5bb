"""Losses of the terms: one by one, or of several teachers joined image by image."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from kd_core.criteria.criterion import Criterion
from kd_core.criteria.unic import drop_teachers
from kd_core.distill.progress import Position
from kd_core.distill.term import Term
from kd_core.distill.weighing import shape_problem
from kd_core.errors import UserError, located
from kd_core.functional import batch_mean
from kd_core.networks.task import Batch
from kd_core.runtime.distributed import rank
from kd_core.runtime.seed import random_bits, random_uniform

DROP = 0.5
"""Probability of leaving a teacher out, unless the terms say it."""

_SAME = ("weight", "warmup_epochs", "warmup_by", "decay_after", "drop")
_DRAW, _RANKS = 0x756E6963, 2**24  # a number of this draw alone; more than a batch has images


def losses_of(
    terms: Mapping[str, Term],
    sources: Mapping[str, str],
    student_features: Mapping[str, Any],
    teacher_features: Mapping[str, Mapping[str, Any]],
    batch: Batch,
    position: Position,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weighted losses by name, and what is only reported.

    Terms with the same `joint` have one loss, of this name. For every image, the mean loss of each
    teacher's terms is taken, and teachers are left out at random; see `drop_teachers`. Reported is
    the mean of each of these terms before that, without weight, by the name of the term.

    Args:
        terms: By name.
        sources: Names of their teachers, by the names of the terms.
        student_features: By tap.
        teacher_features: By teacher and tap.
        batch: The batch.
        position: With the image, it decides what is left out, so that a resumed run leaves out the
            same.

    Raises:
        UserError: If a criterion returns something else than its loss.
    """
    losses: dict[str, Tensor] = {}
    joint: dict[str, dict[str, Tensor]] = {}
    for name, term in terms.items():
        fed = student_features, teacher_features[sources[name]], batch
        if term.joint is None:
            loss = _checked(name, term, term.loss(*fed))
            losses[name] = _factor(name, term, position) * loss
        else:
            of_images = _checked(name, term, term.losses_of_images(*fed))
            joint.setdefault(term.joint, {})[name] = of_images
    for name, of_terms in joint.items():
        first = next(iter(of_terms))
        of_teachers = _by_teacher(of_terms, {term: sources[term] for term in of_terms})
        drop = terms[first].drop
        joined = drop_teachers(
            of_teachers,
            probability=DROP if drop is None else drop,
            draws=random_numbers(of_teachers, batch, position),
        )
        losses[name] = _factor(first, terms[first], position) * joined
    reports = {
        name: batch_mean(of_images.detach())
        for of_terms in joint.values()
        for name, of_images in of_terms.items()
    }
    return losses, reports


def _checked(name: str, term: Term, loss: Any) -> Tensor:
    """Return what a criterion returned, which anybody may have written, if it is a loss."""
    if problem := shape_problem(loss, each_image=term.joint is not None):
        kind = type(term.criterion)
        raise UserError(f"term {name!r}: {kind.__module__}.{kind.__qualname__} {problem}")
    return cast(Tensor, loss)


def _factor(name: str, term: Term, position: Position) -> float | Tensor:
    with located(f"term {name!r}"):
        return term.factor(position.steps, position.steps_per_epoch, position.epochs)


def names_of(terms: Mapping[str, Term]) -> list[str]:
    """Return the names of the losses that terms give; several terms may have one together."""
    return list(dict.fromkeys(term.joint or name for name, term in terms.items()))


def _by_teacher(of_terms: Mapping[str, Tensor], sources: Mapping[str, str]) -> Tensor:
    """Return the losses [T, N] of teachers in the order of their names."""
    teachers: dict[str, list[Tensor]] = {source: [] for source in sorted(sources.values())}
    for name, losses in of_terms.items():
        teachers[sources[name]].append(losses)
    return torch.stack([torch.stack(each).mean(0) for each in teachers.values()])


def random_numbers(losses: Tensor, batch: Batch, position: Position) -> Tensor:
    """Return a number in [0, 1) for each teacher and image, of losses [T, N].

    It is a function of seed, step, teacher and image; of the place in the batch where images have
    no `index`. It is computed on the device.
    """
    teachers, images = losses.shape
    index = torch.arange(images, device=losses.device) + rank() * _RANKS
    own = batch.get("index")
    if own is not None and len(own) == images:
        index = own
    drawn = [
        random_uniform(random_bits(index, position.seed, teacher) ^ position.steps, _DRAW)
        for teacher in range(teachers)
    ]
    return torch.stack(drawn).to(losses.dtype)


def check_joint(terms: Mapping[str, Term]) -> None:
    """Reject terms that cannot be joined.

    Raises:
        UserError: If a criterion has no loss for every image, the terms of one joint loss have
            other weights, or it has the name of a term.
    """
    first: dict[str, str] = {}
    for name, term in terms.items():
        if term.joint is None:
            continue
        with located(f"term {name!r}"):
            if type(term.criterion).per_image is Criterion.per_image:
                raise UserError(
                    f"{type(term.criterion).__name__} has one loss for a batch, not one for every "
                    "image, so teachers cannot be left out of it image by image; take UNIC, or "
                    "write a term for each teacher, without joint"
                )
            if term.joint in terms:
                raise UserError(f"joint is {term.joint!r}, the name of a term; rename one of them")
            other = first.setdefault(term.joint, name)
            for key in _SAME:
                here, there = getattr(term, key), getattr(terms[other], key)
                if here != there:
                    raise UserError(
                        f"{key} is {here}, but {there} in term {other!r}, with which it has the "
                        f"joint loss {term.joint!r}; give both the same"
                    )
