"""Build the teacher of `KD.TEACHER.NETWORK`, its levels paired with those that terms tap."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

from detectron2.config import CfgNode
from kd_core.distill.term_spec import TermSpec
from kd_core.errors import UserError
from kd_core.networks.layouts import in_layout
from kd_core.networks.probe import calibrate_batchnorm
from kd_core.networks.roles import tap_list
from kd_core.networks.task import Batch
from torch import Tensor, nn

from kd_det.data.loader import drawn_from
from kd_det.networks.detector import Detector
from kd_det.roles import has_part
from kd_det.teachers.factory import build, call_of, check_call
from kd_det.teachers.inputs import input_format, multiple_of
from kd_det.teachers.levels import Stride, measure, pair, shown, sizes_for, strides_of
from kd_det.teachers.maps import failing, find_maps, runner_of
from kd_det.teachers.network import Geometry, Level, LevelNetwork, MapTeacher
from kd_det.teachers.nodes import RANDOM, check_teacher_node

_LAYOUT = re.compile(r":(\w+)$")
_PLACE = re.compile(r"own\[(\d+)\]")


def check_teacher(cfg: CfgNode) -> None:
    """Reject keys of `KD.TEACHER` that do not go together, and a network that is not trusted.

    Raises:
        UserError: If it is so; nothing is built.
    """
    if cfg.KD.TERMS:
        check_teacher_node(cfg)
        if cfg.KD.TEACHER.NETWORK:
            check_call(cfg.KD.TEACHER)


def map_teacher(
    cfg: CfgNode, student: Detector, specs: Mapping[str, TermSpec], sample: Batch
) -> tuple[MapTeacher, dict[str, TermSpec]]:
    """Return the teacher, on `MODEL.DEVICE`, and the terms with taps of it.

    Args:
        cfg: Its `KD.TEACHER.NETWORK` is set.
        student: Whose maps are paired with the teacher's by their strides.
        specs: The terms; `@fpn` of the teacher stands for the maps that have the strides of the
            student's taps.
        sample: Statistics of an untrained teacher are those of this batch.

    Raises:
        UserError: If the network, its images or its maps do not suit.
    """
    node = cfg.KD.TEACHER
    with drawn_from(0):  # the same when a run is resumed, and the student's do not depend on it
        net, asked = build(node)
    images = input_format(net, call_of(node), node.INPUT)
    net = net.eval().requires_grad_(False).to(cfg.MODEL.DEVICE)
    geometry = _geometry(cfg, multiple_of(net, node.INPUT))
    sizes = sizes_for(geometry.multiple, geometry.fixed)
    net, taps = find_maps(net, sizes[0], node.MAPS, asked)
    own = _own_strides(net, taps, sizes, node.MAPS)
    levels = Levels(own, _factor(cfg, geometry), resize=node.RESIZE_MAPS)
    specs = _paired(specs, student, levels)
    levels.check_used(node.MAPS)
    backbone: Any = getattr(student.network, "backbone", None)
    teacher = MapTeacher(
        LevelNetwork(net, geometry, levels.named),
        images,
        cfg.INPUT.FORMAT,
        multiple=getattr(backbone, "size_divisibility", 0),
        square=getattr(backbone, "padding_constraints", {}).get("square_size", 0),
    ).to(cfg.MODEL.DEVICE)
    if node.WEIGHTS == RANDOM:
        calibrate_batchnorm(teacher, sample)
    return teacher, specs


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


def _paired(
    specs: Mapping[str, TermSpec], student: Detector, levels: Levels
) -> dict[str, TermSpec]:
    """Return terms whose taps of the teacher are levels of the student's strides."""
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


def student_strides(student: Detector, taps: Sequence[str]) -> dict[str, Stride]:
    """Return the strides of a detector's maps, without those of taps that give none."""
    network: Any = student.network
    of_backbone = has_part(network, "backbone") and all(tap.startswith("backbone") for tap in taps)

    def run(image: Tensor) -> Any:
        if of_backbone:
            return network.backbone(image)
        return network([{"image": 255 * image[0], "height": 128, "width": 128}])

    sizes = sizes_for(1)
    return strides_of(measure(network, run, taps, sizes), sizes)


def _own_strides(
    net: nn.Module, taps: Sequence[str], sizes: Sequence[int], named: Sequence[str]
) -> dict[str, Stride]:
    """Return the strides of a network's maps, large maps first."""
    run: Callable[[Tensor], Any] = runner_of(net)
    with failing(net, sizes[0]):
        lengths = measure(net, run, taps, sizes)
    strides = strides_of(lengths, sizes)
    for tap in named:
        if tap not in strides:
            seen = lengths.get(tap, "no map [N, C, H, W]")
            raise UserError(
                f"KD.TEACHER.MAPS: {tap!r} gives {seen} for images of {sizes}, which has no "
                "stride; name a module that gives maps"
            )
    if not strides:
        raise UserError(
            f"KD.TEACHER.NETWORK: {type(net).__name__} gives no map that grows with the image; "
            "name modules that do as KD.TEACHER.MAPS"
        )
    return dict(sorted(strides.items(), key=lambda item: item[1]))


def _geometry(cfg: CfgNode, multiple: int) -> Geometry:
    """Return how images are brought to the network's size."""
    node = cfg.KD.TEACHER.INPUT
    resize = Fraction(node.RESIZE).limit_denominator(64)
    if not node.RESIZE > 0 or abs(float(resize) - node.RESIZE) > 1e-6:
        raise UserError(
            f"KD.TEACHER.INPUT.RESIZE is {node.RESIZE}; wanted a simple ratio above 0, such as "
            "0.875, 1.5 or 2.0"
        )
    if node.SIZE < 0 or (node.SIZE and (node.RESIZE != 1 or node.MULTIPLE)):
        raise UserError(
            f"KD.TEACHER.INPUT: SIZE is {node.SIZE}, RESIZE {node.RESIZE:g}, MULTIPLE "
            f"{node.MULTIPLE}; give SIZE alone, or the other two"
        )
    if node.SIZE and not cfg.KD.TEACHER.RESIZE_MAPS:
        raise UserError(
            f"KD.TEACHER.INPUT.SIZE is {node.SIZE}: with images of one size the strides change "
            "from batch to batch, so maps must be resized: set KD.TEACHER.RESIZE_MAPS True"
        )
    return Geometry(resize, multiple, node.SIZE)


def _factor(cfg: CfgNode, geometry: Geometry) -> Fraction:
    """Return the factor from the student's pixels; that of the largest images if it varies."""
    if not geometry.fixed:
        return geometry.resize
    return Fraction(geometry.fixed, max(cfg.INPUT.MAX_SIZE_TRAIN, 1))


def _without_layout(texts: Sequence[str]) -> list[str]:
    return [_LAYOUT.sub("", text) for text in texts]
