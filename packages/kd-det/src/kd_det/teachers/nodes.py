"""Keys of `KD.TEACHER` for a network that is not of Detectron2, and which of them go together."""

from typing import Any

from detectron2.config import CfgNode
from kd_core.errors import UserError

from kd_det.terms import whole_term

PRETRAINED = "pretrained"
"""Value of WEIGHTS that lets a factory fetch its own weights; nothing else does."""
RANDOM = "random"

_WITH_CONFIG = ("CONFIG", "OPTS")
_WITH_NETWORK = ("ARGS", "MAPS", "RESIZE_MAPS", "INPUT")


def add_network_keys(teacher: CfgNode) -> None:
    """Add the keys of a network that is not of Detectron2 to `KD.TEACHER`; all are empty."""
    # Import path of what makes it, such as torchvision.models.detection.fasterrcnn_resnet50_fpn,
    # or timm:NAME; instead of CONFIG
    teacher.NETWORK = ""
    teacher.ARGS = CfgNode(new_allowed=True)  # arguments by name
    teacher.MAPS = []  # taps of its maps, such as layer3 or norm:map; [] finds them
    teacher.RESIZE_MAPS = False  # resize its nearest map where it lacks a stride of the student
    teacher.INPUT = CfgNode()
    teacher.INPUT.FORMAT = ""  # RGB or BGR; these four are known for torchvision and timm
    teacher.INPUT.RANGE = 0  # of pixels before the mean is subtracted: 1 or 255
    teacher.INPUT.PIXEL_MEAN = []
    teacher.INPUT.PIXEL_STD = []
    teacher.INPUT.RESIZE = 1.0  # factor of the student's images, such as 0.875
    teacher.INPUT.SIZE = 0  # side of its images, for a network that takes one size
    teacher.INPUT.MULTIPLE = 0  # of which height and width must be; 0 asks the network


def check_teacher_node(cfg: CfgNode) -> None:
    """Reject keys of `KD.TEACHER` that do not go together, before anything is imported.

    Raises:
        UserError: If CONFIG and NETWORK are both given, or a key would have no effect.
    """
    node = cfg.KD.TEACHER
    if not node.NETWORK:
        _refuse_set(node, _WITH_NETWORK, "is for KD.TEACHER.NETWORK, which is empty")
        return
    if node.CONFIG:
        raise UserError(
            f"KD.TEACHER has CONFIG {node.CONFIG!r} and NETWORK {node.NETWORK!r}; keep CONFIG for "
            "a detector of Detectron2, or NETWORK for any other network"
        )
    _refuse_set(node, _WITH_CONFIG, "is for a teacher of Detectron2; write KD.TEACHER.ARGS")
    if cfg.KD.INHERIT:
        raise UserError(
            f"KD.INHERIT {list(cfg.KD.INHERIT)} copies weights of a teacher of Detectron2; those "
            "of KD.TEACHER.NETWORK have other names: leave it out"
        )
    if not node.WEIGHTS:
        raise UserError(
            f"KD.TEACHER.WEIGHTS is empty: set a file of {node.NETWORK}'s weights, {PRETRAINED!r} "
            f"to let it fetch its own, or {RANDOM!r} to try things out"
        )
    if not all(isinstance(tap, str) for tap in node.MAPS):
        raise UserError(f"KD.TEACHER.MAPS is {list(node.MAPS)}; wanted a list of taps")
    for name, term in cfg.KD.TERMS.items():
        _check_taps(f"KD.TERMS.{name}", whole_term(f"KD.TERMS.{name}", term)["TEACHER"])


def _check_taps(where: str, taps: list[str]) -> None:
    """Reject taps of heads, and of modules whose maps may have another size than the student's."""
    for tap in taps:
        path = tap.partition("[")[0].partition(":")[0]
        if path.startswith("@") and path != "@fpn":
            raise UserError(
                f"{where}.TEACHER: {tap!r}: heads of KD.TEACHER.NETWORK cannot teach, only its "
                "maps: tap @fpn, or take a teacher of Detectron2 (KD.TEACHER.CONFIG)"
            )
        if path != "@fpn":
            raise UserError(
                f"{where}.TEACHER: {tap!r}: of KD.TEACHER.NETWORK only @fpn can be tapped; name "
                f"the map in KD.TEACHER.MAPS [{tap!r}], and tap @fpn"
            )


def _refuse_set(node: CfgNode, keys: tuple[str, ...], why: str) -> None:
    """Reject keys that are not as `add_network_keys` leaves them."""
    plain = CfgNode({"CONFIG": "", "OPTS": []})
    add_network_keys(plain)
    for key in keys:
        if key in node and _written(node[key]) != _written(plain[key]):
            raise UserError(f"KD.TEACHER.{key} {why}")


def _written(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value
