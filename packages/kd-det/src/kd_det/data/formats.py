"""Other formats of annotations, known by the start of a file, so that a refusal names them."""

import json
import re
from typing import Any

_CONVERT = "convert it to a COCO instances file"
_YOLO = re.compile(rb"\A(\s*\d+( -?[\d.]+(e-?\d+)?){4,}\s*\n?)+\Z")
_BY_KEYS = {
    ("shapes", "imagePath"): "labelme",
    ("_via_img_metadata",): "the VGG Image Annotator",
    ("shapes", "imageData"): "labelme",
    ("names", "train"): "the data.yaml of YOLO",
    ("label", "asset"): "VoTT",
}


def of_another_format(text: bytes, content: Any = None) -> str:
    """Return what a file seems to be, and what to do; "" if it is unknown.

    Args:
        text: The start of the file.
        content: What JSON gave; None if it is not JSON.
    """
    kind = _of_text(text) if content is None else _of_json(content)
    return f"; this looks like {kind}: {_CONVERT}" if kind else ""


def _of_text(text: bytes) -> str:
    start = text.lstrip()
    if start.startswith(b"<"):
        return "XML of Pascal VOC or CVAT"
    if _YOLO.match(text[: text.rfind(b"\n") + 1] or text):
        return "a label file of YOLO"
    if start.startswith(b"{") and b"}\n{" in text.replace(b"\r", b""):
        return "JSON Lines, an object in each line"
    return ""


def _of_json(content: Any) -> str:
    if isinstance(content, list):
        return _of_list(content[0] if content else None)
    if not isinstance(content, dict):
        return ""
    found = next((kind for keys, kind in _BY_KEYS.items() if {*keys} <= content.keys()), "")
    values = list(content.values())[:1]
    if not found and values and isinstance(values[0], dict) and "regions" in values[0]:
        return "the VGG Image Annotator"
    return found


def _of_list(first: Any) -> str:
    if not isinstance(first, dict):
        return ""
    if {"image_id", "score"} <= first.keys():
        return "COCO's results, which are predictions"
    if {"file_name", "annotations"} <= first.keys():
        return "Detectron2's own records"
    if {"image", "annotations"} <= first.keys():
        return "CreateML"
    if "data" in first and {"annotations", "predictions", "completions"} & first.keys():
        return "Label Studio"
    return ""


def is_utf8(text: bytes) -> bool:
    """Return whether JSON is in UTF-8 without a byte-order mark, which pycocotools needs."""
    return json.detect_encoding(text) == "utf-8"
