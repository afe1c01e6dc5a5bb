"""Build the teacher of `KD.TEACHER.NETWORK`, its levels paired with those that terms tap."""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from detectron2.config import CfgNode
from kd_core.distill.term_spec import TermSpec
from kd_core.errors import UserError
from kd_core.networks.probe import calibrate_batchnorm
from kd_core.networks.task import Batch
from torch import Tensor, nn

from kd_det.data.loader import drawn_from
from kd_det.networks.detector import Detector
from kd_det.teachers.factory import call_of, check_named, make_network
from kd_det.teachers.inputs import input_format, multiple_of
from kd_det.teachers.levels import Lengths, Stride, Strides, measure, sizes_for, strides_of
from kd_det.teachers.maps import find_maps
from kd_det.teachers.network import Geometry, LevelNetwork, MapTeacher
from kd_det.teachers.nodes import PRETRAINED, RANDOM, check_teacher_node
from kd_det.teachers.passes import failing, runner_of, whole
from kd_det.teachers.taps import Levels, paired_terms

_DIVISIBLE = 32  # by which students pad that do not say it


def check_network(cfg: CfgNode) -> None:
    """Reject keys of `KD.TEACHER` that do not go together, and a network that is not trusted.

    Raises:
        UserError: If it is so; nothing is built.
    """
    if cfg.KD.TERMS:
        check_teacher_node(cfg)
        if cfg.KD.TEACHER.NETWORK:
            check_named(cfg.KD.TEACHER, fetches=[PRETRAINED])


def map_strides(cfg: CfgNode) -> dict[str, Stride]:
    """Return the strides of all maps of the network, by their taps in it; in its own pixels.

    Raises:
        UserError: If the network or its maps do not suit.
    """
    check_teacher_node(cfg)
    node = cfg.KD.TEACHER
    net, asked = make_network(node)
    sizes = sizes_for(multiple_of(net, node.INPUT), node.INPUT.SIZE)
    net, taps = find_maps(net.eval(), sizes[0], node.MAPS, asked)
    return _own_strides(net, taps, sizes, node)


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
        net, asked = make_network(node)
    images = input_format(net, call_of(node), node.INPUT)
    net = net.eval().requires_grad_(False).to(cfg.MODEL.DEVICE)
    geometry = _geometry(cfg, multiple_of(net, node.INPUT))
    sizes = sizes_for(geometry.multiple, geometry.fixed)
    net, taps = find_maps(net, sizes[0], node.MAPS, asked)
    own = _own_strides(net, taps, sizes, node)
    levels = Levels(own, _factor(cfg, geometry), resize=node.RESIZE_MAPS)
    specs = paired_terms(specs, student, levels)
    levels.check_used(node.MAPS)
    backbone: Any = getattr(student.network, "backbone", None)
    teacher = MapTeacher(
        LevelNetwork(net, geometry, levels.named),
        images,
        cfg.INPUT.FORMAT,
        multiple=getattr(backbone, "size_divisibility", _DIVISIBLE),
        square=getattr(backbone, "padding_constraints", {}).get("square_size", 0),
    ).to(cfg.MODEL.DEVICE)
    if node.WEIGHTS == RANDOM:
        calibrate_batchnorm(teacher, sample)
    return teacher, specs


def _own_strides(
    net: nn.Module, taps: Sequence[str], sizes: Sequence[int], node: CfgNode
) -> dict[str, Stride]:
    """Return the strides of a network's maps, large maps first."""
    run: Callable[[Tensor], Any] = runner_of(net)
    with failing(net, sizes[0]):
        lengths = measure(net, run, taps, sizes)
    strides = strides_of(lengths, sizes)
    for tap in node.MAPS:
        if tap not in strides:
            seen = lengths.get(tap, "no map [N, C, H, W]")
            raise UserError(
                f"KD.TEACHER.MAPS: {tap!r} gives {seen} for images of {sizes}, which has no "
                "stride; name a module that gives maps"
            )
    if not strides:
        seen = "; ".join(f"{tap} {found}" for tap, found in list(lengths.items())[:3]) or "no maps"
        wanted = "divides INPUT.SIZE" if node.INPUT.SIZE else "grows with the image"
        raise UserError(
            f"KD.TEACHER.NETWORK: {type(whole(net)).__name__} gives no map that {wanted} ({seen} "
            f"for images of {sizes}); name modules that do as KD.TEACHER.MAPS"
        )
    _check_whole(strides, lengths, sizes, node)
    return dict(sorted(strides.items(), key=lambda item: item[1]))


def _check_whole(strides: Strides, lengths: Lengths, sizes: Sequence[int], node: CfgNode) -> None:
    """Reject strides that are fractions because the images are not multiples of them."""
    for tap, stride in strides.items():
        if stride.denominator > 1 < stride and not (node.INPUT.MULTIPLE or node.INPUT.SIZE):
            raise UserError(
                f"KD.TEACHER.NETWORK: {tap!r} gives {lengths[tap]} for images of {sizes}, which is "
                "the stride of no whole pixels; set KD.TEACHER.INPUT.MULTIPLE to a number that "
                f"its strides divide (patches of {int(stride)} pixels: {int(stride)})"
            )


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
