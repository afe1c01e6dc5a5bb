"""Categories of student and teacher by name: the teacher's logits are put into the data's order."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, ROIHeads
from kd_core.distill.term import Term
from kd_core.errors import UserError, nearest
from kd_core.networks.roles import tap_list
from torch import Tensor, nn

from kd_det.data.register import CLASS_KEYS

_WAY_ON = (
    "if both mean the same, KD.TEACHER.OPTS \"['DATASETS.TRAIN', ()]\" leaves its names out of "
    "account"
)


_CHANNELS = {"sem_seg_head.": "stuff_classes", "keypoint_head.": "keypoint_names"}
"""Parts of a detector whose channels have names in the data, by their key there."""


def known_categories(cfg: CfgNode | None) -> list[str] | None:
    """Return the names of a detector's classes, by the data that its config is trained on.

    Returns:
        None if the data set is not registered here, or has no names, or another number of them than
        the detector has classes: configs are often reused with other data.
    """
    names = _names(cfg, "thing_classes")
    key = CLASS_KEYS.get(cfg.MODEL.META_ARCHITECTURE) if cfg is not None else None
    return names if names and cfg and key and len(names) == _number(cfg, key) else None


def align_categories(teacher: nn.Module, wanted: Sequence[str] | None, cfg: CfgNode | None) -> str:
    """Give a teacher's classes the order of the student's, where only that differs.

    The rows of its last layers are moved. So whatever is tapped, or inherited by the student, has
    the student's order.

    Args:
        teacher: The network, with its weights.
        wanted: Names of the student's classes; None if they are not known.
        cfg: The teacher's config; None for one that is not of Detectron2.

    Returns:
        How the categories differ; empty if they are equal now, or not known.

    Raises:
        UserError: If the order differs in a network whose layers are not known.
    """
    known = known_categories(cfg)
    if wanted is None or known is None or list(wanted) == known:
        return ""
    if len(set(known)) < len(known) or sorted(wanted) != sorted(known):
        return (
            f"the teacher learned {len(known)} categories ({_shown(known)}), the student's data "
            f"has {len(wanted)} ({_shown(wanted)}); {_first_difference(wanted, known)}"
        )
    reorder_classes(teacher, [known.index(name) for name in wanted])
    return ""


def _first_difference(wanted: Sequence[str], known: Sequence[str]) -> str:
    missing = [name for name in wanted if name not in known]
    if missing:
        return f"{missing[0]!r} is not among the teacher's{nearest(missing[0], known)}"
    more = [name for name in known if name not in wanted]
    return f"{more[0]!r} is the teacher's alone" if more else "a name is repeated"


def require_same(terms: Mapping[str, Term], difference: str) -> None:
    """Reject a term that compares classes of different names.

    Args:
        terms: By the names in `KD.TERMS`.
        difference: See `align_categories`.

    Raises:
        UserError: If there is a difference, and such a term.
    """
    for name, term in terms.items():
        if difference and term.criterion.compares_classes():
            raise UserError(
                f"KD.TERMS.{name}: {type(term.criterion).__name__} compares classes, but "
                f"{difference}; take a teacher of these, or a criterion on maps; {_WAY_ON}"
            )


def require_same_channels(terms: Mapping[str, Term], cfg: CfgNode, teacher: CfgNode | None) -> None:
    """Reject terms on semantic logits, or maps of keypoints, whose channels have other names.

    Args:
        terms: By the names of their losses, with paths as taps.
        cfg: The student's config.
        teacher: The teacher's; None for one that is not of Detectron2.

    Raises:
        UserError: If both sides' names are known and differ, also if only in their order.
    """
    for name, term in terms.items():
        for part, key in _CHANNELS.items():
            taps = [*tap_list(term.student), *tap_list(term.teacher)]
            mine, theirs = _names(cfg, key), _names(teacher, key)
            if not (mine and theirs) or mine == theirs or not any(part in tap for tap in taps):
                continue
            raise UserError(
                f"KD.TERMS.{name.removeprefix('loss_')}: the channels of {part} are "
                f"{_shown(mine)} in the student and {_shown(theirs)} in the teacher ({key} of the "
                f"data); take a teacher of the same, or a criterion on @fpn; {_WAY_ON}"
            )


def reorder_classes(network: nn.Module, places: Sequence[int]) -> None:
    """Move the rows of a detector's last layers: class `i` becomes the old class `places[i]`.

    Raises:
        UserError: If it has no layers with a row, or several, for each class.
    """
    layers = list(_class_layers(network, len(places)))
    if not layers or _has_other_masks(network):
        raise UserError(
            f"the teacher's categories have another order than the data's, and the last layers of "
            f"{type(network).__name__} are not known: register its data with the categories in "
            f"the order of the student's data; {_WAY_ON}"
        )
    for layer, rows in layers:
        for tensor in layer.parameters(recurse=False):
            tensor.data = tensor.data[_moved(places, len(tensor), rows).to(tensor.device)]


def _moved(places: Sequence[int], length: int, rows: int) -> Tensor:
    """Return the old row of each row of a layer.

    Args:
        places: Old class of each class.
        length: Number of all rows: the classes, repeated for every anchor of a position, and at
            last those of the background.
        rows: Of one class, side by side.
    """
    size = len(places) * rows
    order = torch.arange(size).view(len(places), rows)[list(places)].flatten()
    index = torch.arange(length)
    for start in range(0, length - size + 1, size):
        index[start : start + size] = order + start
    return index


def _class_layers(network: nn.Module, classes: int) -> Iterable[tuple[nn.Module, int]]:
    """Yield the layers whose rows are classes, with the rows that one class has."""
    dense = getattr(getattr(network, "head", None), "cls_score", None)
    if isinstance(dense, nn.Conv2d) and dense.out_channels % classes == 0:
        yield dense, 1
    for module in network.modules():
        if isinstance(module, FastRCNNOutputLayers):
            yield module.cls_score, 1
            if classes > 1 and len(module.bbox_pred.weight) == 4 * classes:
                yield module.bbox_pred, 4
        if isinstance(module, ROIHeads):
            masks = getattr(getattr(module, "mask_head", None), "predictor", None)
            if isinstance(masks, nn.Conv2d) and masks.out_channels == classes:
                yield masks, 1


def _has_other_masks(network: nn.Module) -> bool:
    """Return whether it has a mask head, of a user's own or PointRend's, with other last layers."""
    heads = [getattr(m, "mask_head", None) for m in network.modules() if isinstance(m, ROIHeads)]
    return any(h and not isinstance(getattr(h, "predictor", None), nn.Conv2d) for h in heads)


def _names(cfg: CfgNode | None, key: str) -> list[str] | None:
    """Return names in the metadata of the first data set that a config is trained on."""
    for name in cfg.DATASETS.TRAIN if cfg is not None else ():
        if name in DatasetCatalog and (names := MetadataCatalog.get(name).get(key)):
            return list(names)
    return None


def _number(cfg: CfgNode, key: str) -> int:
    node, _, leaf = key.removeprefix("MODEL.").partition(".")
    return int(cfg.MODEL[node][leaf])


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
