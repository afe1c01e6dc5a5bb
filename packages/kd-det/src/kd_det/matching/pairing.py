"""Which map of the student learns from which of the teacher: those of one stride.

`@fpn` is all maps of a pyramid. The maps p2 to p6 of a Faster R-CNN have the strides 4 to 64
pixels, p3 to p7 of a RetinaNet 8 to 128: the first of both are not of one size.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kd_core import Distiller
from kd_core.distill.term_spec import TermSpec
from kd_core.errors import UserError
from kd_core.networks.roles import tap_list
from kd_core.runtime import distributed
from torch import nn

from kd_det.networks.detector import Detector
from kd_det.networks.parts import module_path, part_of, parts_of

ALL_MAPS = ["@fpn"]
_TOLERANCE = 1.5  # of the heights of two maps; those of neighbouring levels differ by 2

Specs = Mapping[str, TermSpec]


def pair_levels(
    specs: Specs, student: Detector, teacher: Detector, where: str = "KD.TERMS"
) -> dict[str, TermSpec]:
    """Return the terms with the maps of common strides in the place of `@fpn` on both sides.

    Nothing is changed where the strides are equal, or not known.

    Raises:
        UserError: If the two pyramids have no stride in common, or two maps of one stride.
    """
    mine, theirs = _strides(student), _strides(teacher)
    paired = {}
    for name, spec in specs.items():
        call, both = spec.call, [tap_list(spec.call.get(side, ALL_MAPS)) for side in _SIDES]
        if both == [ALL_MAPS, ALL_MAPS] and mine and theirs and _values(mine) != _values(theirs):
            taps = _common(mine, theirs, f"{where}.{name}")
            call = call.changed(**dict(zip(_SIDES, taps, strict=True)))
            distributed.print_note(
                f"{where}.{name}: @fpn has the strides {_shown(mine)} in the student, "
                f"{_shown(theirs)} in the teacher; paired by stride: {_pairs(*taps)}"
            )
        paired[name] = replace(spec, call=call)
    return paired


def check_levels(specs: Specs, distiller: Distiller, where: str = "KD.TERMS") -> None:
    """Compare the maps that terms pair, as the sample passes have shown them.

    Maps of other strides are an error where a role such as `@fpn[:4]` names them. Where both sides
    name modules, a line says so: some methods learn from a map of another resolution.

    Args:
        specs: The terms as they are written; those of `distiller` begin with `loss_`.
        distiller: With the shapes of all taps.
        where: Their place, for messages.

    Raises:
        UserError: Names the first two maps that differ.
    """
    for name, spec in specs.items():
        named = [tap for side in _SIDES for tap in tap_list(spec.call.get(side, ALL_MAPS))]
        term = distiller.terms[f"loss_{name}"]
        shapes = distiller.tap_shapes["student"], distiller.tap_shapes["teacher"]
        networks = _network(distiller.student), distiller.teachers["teacher"].network
        taps = tap_list(term.student), tap_list(term.teacher)
        if any(_on_regions(*side) for side in zip(networks, taps, strict=True)):
            continue  # sizes of pooled regions
        for tap, other in zip(*taps, strict=False):
            for first, second in zip(_maps(shapes[0][tap]), _maps(shapes[1][other]), strict=False):
                if 1 / _TOLERANCE <= first[-2] / second[-2] <= _TOLERANCE:
                    continue
                text = (
                    f"{where}.{name} pairs {tap} of the student with {other} of the teacher, whose "
                    f"maps are {_size(first)} and {_size(second)} for one image"
                )
                if any(one.startswith("@") for one in named):
                    raise UserError(
                        f"{text}; name maps of one stride, such as @fpn on both sides, which "
                        "pairs them by stride, or the modules themselves, if this is meant"
                    )
                distributed.print_note(f"{text}; as both are named, this is taken as meant")


_SIDES = ("student", "teacher")


def _strides(model: Detector) -> dict[str, int]:
    """Return the stride in pixels of every map of `@fpn`; nothing if one is not known."""
    paths = tap_list(model.roles.get("fpn", []))
    backbone: Any = getattr(model.network, "backbone", None)
    known = backbone.output_shape() if hasattr(backbone, "output_shape") else {}
    found = {path: known.get(path.partition("[")[2].rstrip("]")) for path in paths}
    strides = {path: getattr(one, "stride", None) for path, one in found.items()}
    return strides if all(strides.values()) else {}  # type: ignore[return-value]


def _values(strides: Mapping[str, int]) -> list[int]:
    return list(strides.values())


def _common(mine: Mapping[str, int], theirs: Mapping[str, int], where: str) -> list[list[str]]:
    """Return the taps of both sides that have a stride in common, in the student's order."""
    unique = all(len(set(_values(one))) == len(one) for one in (mine, theirs))
    other = {stride: path for path, stride in theirs.items()}
    taps = [path for path, stride in mine.items() if stride in other]
    if not taps or not unique:
        problem = "no stride in common" if unique else "several maps of one stride"
        raise UserError(
            f"{where}: @fpn has the strides {_shown(mine)} in the student, {_shown(theirs)} in "
            f"the teacher: {problem}; name the maps that belong together, "
            f"as STUDENT {list(mine)[:1]} and TEACHER {list(theirs)[:1]}"
        )
    return [taps, [other[mine[path]] for path in taps]]


def _shown(strides: Mapping[str, int]) -> str:
    return ", ".join(map(str, strides.values()))


def _pairs(student: Sequence[str], teacher: Sequence[str]) -> str:
    names = [[path.removeprefix("backbone[").rstrip("]") for path in s] for s in (student, teacher)]
    return ", ".join(f"{one} with {other}" for one, other in zip(*names, strict=True))


def _maps(shape: Any) -> Iterator[Sequence[int]]:
    """Yield the shapes [C, H, W] in a value of a tap; a role such as `@towers` has several."""
    if not isinstance(shape, tuple):
        return
    if all(isinstance(size, int) for size in shape):
        if len(shape) == 3:
            yield shape
        return
    for item in shape:
        yield from _maps(item)


def _size(shape: Sequence[int]) -> str:
    return f"{shape[-2]} x {shape[-1]}"


def _on_regions(network: nn.Module, taps: Sequence[str]) -> bool:
    parts = parts_of(network)
    return any(part and part.on_regions for part in (part_of(module_path(t), parts) for t in taps))


def _network(student: nn.Module) -> nn.Module:
    return student.network if isinstance(student, Detector) else student
