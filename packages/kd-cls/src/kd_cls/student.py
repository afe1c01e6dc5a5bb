"""A finished student: the classifier that a run exported, rebuilt from its file alone."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kd_core import finished
from kd_core.build import build
from kd_core.errors import UserError
from kd_core.finished import find_student
from kd_core.weights import load_weights, read_state_dict
from torch import Tensor, nn

from kd_cls.classifier import Classifier
from kd_cls.networks import replace_head, without_pretrained

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


def read_facts(file: Path) -> dict[str, Any]:
    """Return what the file of a student says about itself.

    Returns:
        `network` (its config node), `classes` (names), `mean` and `std` (of each channel, in
        [0, 1]), `image_size` (pixels).

    Raises:
        UserError: If the file is damaged or says nothing of the kind.
    """
    return finished.read_facts(file, FACTS)


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
