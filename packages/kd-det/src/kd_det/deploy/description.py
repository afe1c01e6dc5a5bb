"""The JSON beside an exported detector: what the file takes and gives."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kd_core.errors import UserError
from kd_core.experiment.deploy.description import describe, place_of
from kd_core.files.artifacts import SIZE, Check
from kd_core.files.checkpoint import load_json
from kd_core.files.fingerprint import hash_of_file

from kd_det.deploy.categories import Categories, read_categories
from kd_det.deploy.scaling import Scaling
from kd_det.deploy.traceable import OUTPUTS

_REMEDY = "export the detector again; a file and its JSON belong together"
FORMATS = {"torchscript": ".ts", "onnx": ".onnx"}
"""Kinds of files, by the names that they end in."""


class Description(NamedTuple):
    """What an exported detector takes and gives.

    Attributes:
        detector: Class of the network, such as RetinaNet.
        scaling: How a picture becomes an input.
        outputs: Names, in order.
        categories: Of its classes.
        score_threshold: Objects below it are left out by the file itself.
    """

    detector: str
    scaling: Scaling
    outputs: list[str]
    categories: Categories
    score_threshold: float


def write_description(what: Description, file: Path, more: Mapping[str, Any]) -> Path:
    """Write what an exported file takes and gives beside it; return the path.

    Args:
        what: The description.
        file: The file, which is there already.
        more: What else is worth knowing of it.
    """
    scaling = what.scaling
    height, width = scaling.fixed or ("any", "any")
    content = {
        "detector": what.detector,
        "input": {
            "name": "image",
            "type": "float32",
            "layout": "[3, height, width], one image",
            "range": "0 to 255",
            "channels": scaling.channels,
            "normalization": "inside the file",
            "height": height,
            "width": width,
            "shorter_side": scaling.shorter_side,
            "longest_side": scaling.longest_side,
            "padding": list(scaling.padding),
        },
        "outputs": {name: OUTPUTS[name] for name in what.outputs},
        "categories": what.categories._asdict(),
        "score_threshold": what.score_threshold,
        **more,
    }
    return describe(file, content)


def read_description(file: Path) -> Description:
    """Return what the JSON beside an exported file says.

    Raises:
        UserError: If there is none, or it is damaged or of another file.
    """
    place = place_of(file)
    found = load_json(place, remedy=_REMEDY)
    if found.get("file_sha256") != hash_of_file(file):
        raise UserError(f"{file}: its hash is not that in {place.name}; {_REMEDY}")
    taken = _part(found, "input", place)
    for key, (wanted, is_so) in _CHECKS.items():
        value = taken.get(key)
        if not is_so(value):
            raise UserError(f"{place}: input.{key}: wanted {wanted}, got {value!r:.60}; {_REMEDY}")
    sides = taken.get("height"), taken.get("width")
    if sides != ("any", "any") and not SIZE[1](list(sides)):
        raise UserError(f"{place}: input: height and width: wanted {SIZE[0]}, or any; {_REMEDY}")
    fixed = None if "any" in sides else (taken["height"], taken["width"])
    scaling = Scaling(
        taken["channels"],
        taken["shorter_side"],
        taken["longest_side"],
        tuple(taken["padding"]),
        fixed,
    )
    outputs = list(_part(found, "outputs", place))
    if outputs[:3] != list(OUTPUTS)[:3] or not set(outputs) <= set(OUTPUTS):
        raise UserError(f"{place}: outputs: wanted {', '.join(OUTPUTS)}, got {outputs}; {_REMEDY}")
    categories = read_categories(f"{place}: categories", found.get("categories"))
    threshold = found.get("score_threshold")
    if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise UserError(
            f"{place}: score_threshold: wanted 0 to 1, got {threshold!r:.60}; {_REMEDY}"
        )
    return Description(str(found.get("detector")), scaling, outputs, categories, float(threshold))


def _part(found: Mapping[str, Any], key: str, place: Path) -> Mapping[str, Any]:
    part = found.get(key)
    if not isinstance(part, Mapping):
        raise UserError(f"{place}: wanted an object as {key!r}, got {part!r:.60}; {_REMEDY}")
    return part


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 2**20


def _are_colours(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) == 3
        and all(type(number) in (int, float) and -1e6 < number < 1e6 for number in values)
    )


_CHECKS: dict[str, Check] = {
    "channels": ("RGB or BGR", lambda value: value in ("RGB", "BGR")),
    "shorter_side": ("pixels, or 0", _is_side),
    "longest_side": ("pixels, or 0", _is_side),
    "padding": ("three numbers", _are_colours),
}
