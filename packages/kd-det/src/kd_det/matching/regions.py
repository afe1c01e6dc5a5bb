"""The regions of a student's heads, on which the heads of its teacher run."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.networks.roles import tap_list
from kd_core.networks.task import Batch
from torch import Tensor, nn

from kd_det.networks.parts import Part, module_path, part_of

Pairs = Mapping[str, str]
"""Which part of the student has the regions that a part of the teacher runs on, by keys."""

_OF_ANCHORS = re.compile(r"proposal_generator\.rpn_head\.(objectness_logits|anchor_deltas)\b")
"""Taps of an RPN's head that are of its anchors."""


@dataclass(frozen=True)
class Regions:
    """The regions of a head in a pass.

    Args:
        boxes: Detectron2's boxes of every image.
        classes: Class of every region of all images, background included, int64 [R].
    """

    boxes: Sequence[Any]
    classes: Tensor

    @classmethod
    def of(cls, instances: Sequence[Any]) -> "Regions":
        """Return those of Detectron2's instances, as they are now: a head may replace them."""
        boxes = [one.proposal_boxes for one in instances]
        return cls(boxes, torch.cat([one.gt_classes for one in instances]))


@dataclass
class RegionTerm(Term):
    """A term on regions: its criterion finds their classes as `label`.

    Args:
        part: The student's part whose regions they are.
    """

    part: str = ""

    def loss(
        self, student_features: Mapping[str, Any], teacher_features: Mapping[str, Any], batch: Batch
    ) -> Tensor:
        """Return the criterion's value; see `Term`."""
        batch = cast(Batch, {**batch, "label": batch["regions"][self.part].classes})
        return super().loss(student_features, teacher_features, batch)


@contextmanager
def watched(network: nn.Module, keys: Iterable[str]) -> Iterator[dict[str, Regions]]:
    """Note the regions that parts of a network are trained on, in the passes inside the `with`.

    Regions differ from head to head: the stages of a cascade refine them, masks are predicted for
    foreground alone, keypoints where one is visible. So they are read where a head gets them with
    their classes: a box predictor in its `losses`, other heads when they are called.
    """
    found: dict[str, Regions] = {}
    with ExitStack() as stack:
        for key in keys:
            head: Any = network.get_submodule(key)
            watch = _watched_losses if ".box_predictor" in key else _watched_calls
            stack.enter_context(watch(head, key, found))
        yield found


@contextmanager
def _watched_losses(head: Any, key: str, found: dict[str, Regions]) -> Iterator[None]:
    losses = head.losses

    def noted(predictions: Any, proposals: Any) -> Any:
        found[key] = Regions.of(proposals)
        return losses(predictions, proposals)

    head.losses = noted
    try:
        yield
    finally:
        del head.losses


@contextmanager
def _watched_calls(head: Any, key: str, found: dict[str, Regions]) -> Iterator[None]:
    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        found[key] = Regions.of(args[1])

    handle = head.register_forward_pre_hook(note)
    try:
        yield
    finally:
        handle.remove()


def paired(terms: Mapping[str, Term], student: Sequence[Part], teacher: Sequence[Part]) -> Pairs:
    """Return on which part's regions each part of a teacher runs, by keys.

    Args:
        terms: Those of this teacher, with paths.
        student: Parts of the student.
        teacher: Parts of the teacher.

    Raises:
        UserError: If a term compares regions with anything else, or one part of the teacher would
            run on the regions of several.
    """
    pairs: dict[str, str] = {}
    for name, term in terms.items():
        for one, other in zip(tap_list(term.student), tap_list(term.teacher), strict=False):
            ours, theirs = _region_part(one, student), _region_part(other, teacher)
            if ours is None and theirs is None:
                continue
            if ours is None or theirs is None:
                which = "the teacher's" if ours is None else "the student's"
                raise UserError(
                    f"term {name!r}: student {one!r}, teacher {other!r}: {which} tap is of "
                    "regions, the other is not, so that their rows are not of the same things; tap "
                    "such a head of both, as @roi_logits does"
                )
            known = pairs.setdefault(theirs.key, ours.key)
            if known != ours.key:
                raise UserError(
                    f"term {name!r}: the teacher's {theirs.key} would run on the regions of the "
                    f"student's {known} and of its {ours.key}; let all terms of a head of the "
                    "teacher learn at one of the student's"
                )
    return pairs


def _region_part(tap: str, parts: Sequence[Part]) -> Part | None:
    part = part_of(module_path(tap), parts)
    return part if part and part.on_regions else None


def check_anchors(terms: Mapping[str, Term], student: Any, teacher: Any) -> None:
    """Reject terms on what two RPNs predict for their anchors, if these are not the same.

    Args:
        terms: Those of this teacher, with paths.
        student: Network of the student.
        teacher: Network of the teacher.

    Raises:
        UserError: If sizes or shapes of the anchors differ.
    """
    for name, term in terms.items():
        if not all(map(_OF_ANCHORS.match, [*tap_list(term.student), *tap_list(term.teacher)])):
            continue
        generators = (network.proposal_generator.anchor_generator for network in (student, teacher))
        ours, theirs = (list(generator.cell_anchors) for generator in generators)
        if len(ours) != len(theirs) or not all(map(_are_close, ours, theirs)):
            raise UserError(
                f"term {name!r}: the anchors of student and teacher differ, so that their RPNs "
                "predict other things in equal places; give both the same MODEL.ANCHOR_GENERATOR, "
                "or take a criterion on maps (@fpn)"
            )


def _are_close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one.cpu(), other.cpu())


def with_labels(terms: Mapping[str, Term], student: Sequence[Part]) -> dict[str, Term]:
    """Return the terms; those whose taps are of the regions of one part know their classes."""
    made: dict[str, Term] = {}
    for name, term in terms.items():
        parts = {_region_part(tap, student) for tap in tap_list(term.student)}
        part = parts.pop() if len(parts) == 1 else None
        made[name] = term if part is None else RegionTerm(**{**vars(term), "part": part.key})
    return made
