"""Taps of a teacher's maps in the place of `@fpn`, which have the strides of the student's."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

from kd_core.distill.term_spec import TermSpec
from kd_core.errors import UserError
from kd_core.networks.layouts import in_layout
from kd_core.networks.roles import tap_list
from torch import Tensor

from kd_det.networks.detector import Detector
from kd_det.networks.parts import has_backbone
from kd_det.teachers.levels import Stride, measure, pair, shown, sizes_for, strides_of
from kd_det.teachers.network import Level

_LAYOUT = re.compile(r":(\w+)$")
_PLACE = re.compile(r"own\[(\d+)\]")


class Levels:
    """Maps of a teacher that terms tap, by name.

    Args:
        own: Strides of all its maps, in pixels of its own images.
        factor: From the student's pixels to these.
        resize: Whether maps of another stride may be taken.
    """

    def __init__(self, own: Mapping[str, Stride], factor: Fraction, *, resize: bool) -> None:
        self.own = dict(own)
        self.strides = {tap: stride / factor for tap, stride in own.items()}
        self.resize = resize
        self.named: dict[str, Level] = {}

    def tap(self, tap: str, wanted: Stride) -> str:
        """Return the tap of a map, made for a stride of the student."""
        level, name = Level(tap, self.own[tap], wanted), f"stride{float(wanted):g}"
        while self.named.setdefault(name, level) != level:  # another map of this stride
            name += "_"
        return f"levels[{name}]"

    def chosen(
        self, texts: Sequence[str], student: Sequence[str], strides: Mapping[str, Stride], at: str
    ) -> list[tuple[str, Stride]]:
        """Return the maps that a term names by their places among all, as in `@fpn[0]`.

        Raises:
            UserError: If their strides differ from those of the student's taps.
        """
        holder: Any = SimpleNamespace(roles={"fpn": [f"own[{i}]" for i in range(len(self.own))]})
        paths, all_taps = tap_list(texts, holder), list(self.own)
        taps = [all_taps[int(_PLACE.findall(path)[0])] for path in paths]
        if len(taps) != len(student):
            raise UserError(f"{at}: STUDENT has {len(student)} taps, TEACHER {len(taps)}")
        wanted = [pair([tap], strides, self.strides, at, resize=True)[0][1] for tap in student]
        found = [self.strides[tap] for tap in taps]
        if found != wanted and not self.resize:
            raise UserError(
                f"{at}: TEACHER names maps of strides {shown(found)}, STUDENT of {shown(wanted)}; "
                "write @fpn alone, which takes the maps of equal strides, or set "
                "KD.TEACHER.RESIZE_MAPS True"
            )
        return list(zip(taps, wanted, strict=True))

    def check_used(self, named: Sequence[str]) -> None:
        """Reject a map that a config names, and that another of its stride replaces."""
        used = {level.tap for level in self.named.values()}
        for tap in named:
            others = [one for one in used if self.own[one] == self.own[tap]]
            if tap not in used and others:
                raise UserError(
                    f"KD.TEACHER.MAPS: {tap!r} has the stride of {others[0]!r}, which is taken; "
                    "leave one out, or name it in a term by its place, as in @fpn[0]"
                )


def paired_terms(
    specs: Mapping[str, TermSpec], student: Detector, levels: Levels
) -> dict[str, TermSpec]:
    """Return terms whose taps of the teacher are levels of the student's strides.

    Raises:
        UserError: If a tap of the student gives no map, or the teacher lacks its stride.
    """
    sides = {
        name: (tap_list(spec.call["student"]), tap_list(spec.call["teacher"]))
        for name, spec in specs.items()
    }
    paths = {name: tap_list(own, student) for name, (own, _) in sides.items()}
    plain = {name: [in_layout(path, "map") for path in found] for name, found in paths.items()}
    strides = student_strides(student, [tap for taps in plain.values() for tap in taps])
    paired = {}
    for name, spec in specs.items():
        own, texts = (_without_layout(side) for side in sides[name])
        at = f"KD.TERMS.{name}"
        if texts in (own, ["@fpn"]):
            pairs = pair(plain[name], strides, levels.strides, at, resize=levels.resize)
        else:
            pairs = levels.chosen(texts, plain[name], strides, at)
        taps = [levels.tap(tap, stride) for tap, stride in pairs]
        if layout := _LAYOUT.search((sides[name][1] or [""])[0]):
            taps = [in_layout(tap, layout[1]) for tap in taps]
        paired[name] = replace(spec, call=spec.call.changed(teacher=taps))
    return paired


def only_backbone(network: Any, taps: Sequence[str]) -> bool:
    """Return whether a detector's backbone can run alone, and has all these taps."""
    return has_backbone(network) and all(tap.startswith(("backbone.", "backbone[")) for tap in taps)


def student_strides(student: Detector, taps: Sequence[str]) -> dict[str, Stride]:
    """Return the strides of a detector's maps, without those of taps that give none."""
    network: Any = student.network
    of_backbone = only_backbone(network, taps)

    def run(image: Tensor) -> Any:
        if of_backbone:
            return network.backbone(image)
        return network([{"image": 255 * image[0], "height": 128, "width": 128}])

    sizes = sizes_for(1)
    return strides_of(measure(network, run, taps, sizes), sizes)


def _without_layout(texts: Sequence[str]) -> list[str]:
    return [_LAYOUT.sub("", text) for text in texts]
