"""What a file of weights is that is not Detectron2's, and what can be done with it."""

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from kd_det.networks.architectures import ARCHITECTURES

_TEACH = (
    "as a teacher, KD.TEACHER.NETWORK names the code that builds it (configs/det/README.md, "
    "'Teachers that are not of Detectron2')"
)
_BACKBONE = (
    "for MODEL.WEIGHTS, tools/det_convert.py --arch NAME --weights FILE --out OUT.pth makes a "
    f"backbone of it, where NAME is one of {', '.join(ARCHITECTURES)}"
)
_BOTH = f"{_BACKBONE}; {_TEACH}"


class Kind(NamedTuple):
    """A kind of file: names that it has, all of them, what it is, and what to do."""

    names: tuple[str, ...]  # regular expressions, each found in a name
    what: str
    advice: str


KINDS = (
    Kind((r"^(module\.)?query_embed\.", r"transformer\."), "a DETR", _BOTH),
    Kind((r"\bbackbone\.body\.", r"\b(rpn|head|roi_heads)\."), "a detector of torchvision", _BOTH),
    Kind((r"\bmodel\.\d+\.(conv|cv1|m)\.",), "a YOLO of ultralytics", _TEACH),
    Kind(
        (r"\bbackbone\.layer1\.", r"\b(neck|bbox_head|rpn_head)\."),
        "a detector of mmdetection",
        _BOTH,
    ),
    Kind((r"^(module\.)?layer1\.0\.conv1", r"\bbn1\."), "a classifier (ResNet)", _BACKBONE),
    Kind((r"^(module\.)?features\.\d+\.conv\.",), "a classifier (MobileNetV2)", _BACKBONE),
    Kind((r"\bpatch_embed\.", r"\bblocks?\.\d+\."), "a vision transformer", _TEACH),
)
"""Kinds that are known by their names; the first that has all is meant."""


def advice(names: Collection[str]) -> str:
    """Return what a file is, by the names of its weights, and what to do; "" if it is unknown."""
    for kind in KINDS:
        if all(_any(pattern, names) for pattern in kind.names):
            return f"this looks like {kind.what}, not a detector of Detectron2; {kind.advice}"
    return ""


def advice_of_class(text: str) -> str:
    """Return the advice for a file that holds Python objects, by the refusal's text."""
    if re.search(r"holds an? (ultralytics|models\.(yolo|common))\b", text):
        return (
            "a YOLO of ultralytics pickles its whole network, so reading it runs code of the "
            "file; where you trust it, save the state_dict() of its model with torch.save in a "
            f"program of ultralytics. It cannot be a student; {_TEACH}"
        )
    return ""


def _any(pattern: str, names: Iterable[str]) -> bool:
    return any(re.search(pattern, name) for name in names)
