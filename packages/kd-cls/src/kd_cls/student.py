"""A finished student: the classifier that a run exported, rebuilt from its file alone."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kd_core.build import build
from kd_core.errors import UserError, nearest
from kd_core.weights import load_weights, read_state_dict
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kd_cls.classifier import Classifier
from kd_cls.networks import replace_head, without_pretrained

FILE = "student.safetensors"
FACTS = ("network", "classes", "mean", "std", "image_size")


def load_student(path: str | Path) -> Classifier:
    """Rebuild the classifier of a finished run, in evaluation mode on the CPU.

    Called with `{"image": images}`, uint8 or floats in [0, 1] of any size, it returns logits.

    Args:
        path: See `find_student`.

    Raises:
        UserError: If there is no such file, or the network cannot be built or does not fit.
    """
    file = find_student(path)
    facts = read_facts(file)
    network = _rebuild(facts["network"], len(facts["classes"]), file)
    load_weights(network, file)
    classifier = Classifier(network, mean=facts["mean"], std=facts["std"], size=facts["image_size"])
    return classifier.eval()


def find_student(path: str | Path) -> Path:
    """Return the file of a student: `path` itself, or `student.safetensors` in the folder `path`.

    Raises:
        UserError: If there is none.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        if (path / FILE).is_file():
            return path / FILE
        others = [str(file.parent) for file in path.glob(f"**/{FILE}")]
        hint = nearest("", others) or "; a run writes it when it is finished"
        raise UserError(f"{path} has no {FILE}{hint}")
    if not path.is_file():
        raise UserError(f"{path} is neither a run's folder nor a {FILE}")
    if path.suffix != ".safetensors":
        raise UserError(
            f"{path}: wanted a run's folder or its {FILE}, since only that file says which network "
            "and classes its weights are of"
        )
    return path


def read_facts(file: Path) -> dict[str, Any]:
    """Return what the file of a student says about itself.

    Returns:
        `network` (its config node), `classes` (names), `mean` and `std` (of each channel, in
        [0, 1]), `image_size` (pixels).

    Raises:
        UserError: If the file is damaged or says nothing of the kind.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: damaged, or no safetensors file ({error})") from error
    missing = [name for name in FACTS if name not in metadata]
    if missing:
        raise UserError(
            f"{file} does not say its {', '.join(missing)}; name a file that kd-cls-train wrote"
        )
    return {name: json.loads(metadata[name]) for name in FACTS}


def _rebuild(node: Mapping[str, Any], num_classes: int, file: Path) -> nn.Module:
    # The weights are in our file: nothing is to be downloaded.
    given = without_pretrained(node)
    network: nn.Module = build(given, f"{file}: network", num_classes=num_classes)
    if not _fits(read_state_dict(file), network.state_dict()):
        with suppress(UserError):  # no linear layer; load_weights then says what does not fit
            replace_head(network, num_classes)
    return network


def _fits(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    return all(name in own and own[name].shape == value.shape for name, value in state.items())
