"""A finished student: the embedder that a run exported, rebuilt from its files alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_core.build import build
from kd_core.errors import UserError, located
from kd_core.finished import find_student, read_facts
from kd_core.weights import load_weights, read_state_dict
from torch import nn

from kd_reid.embedder import Embedder
from kd_reid.neck import attach, neck_of, with_neck
from kd_reid.networks import network_roles, without_pretrained

FACTS = ("network", "identities", "mean", "std", "image_size", "bnneck")


def load_student(path: str | Path) -> Embedder:
    """Rebuild the embedder of a finished run, in evaluation mode on the CPU.

    Called with `{"image": images}`, uint8 or floats in [0, 1] of any size, it returns an
    `Embedding`.

    Args:
        path: Folder of the run, or its `student.safetensors`.

    Raises:
        UserError: If there is no such file, or the network cannot be built or does not fit.
    """
    file = find_student(path)
    facts = read_facts(file, FACTS)
    network: nn.Module = build(
        without_pretrained(facts["network"]), f"{file}: network", num_classes=facts["identities"]
    )
    if facts["bnneck"]:
        attach(network)
    load_plain(network, file)
    embedder = Embedder(
        network,
        mean=facts["mean"],
        std=facts["std"],
        size=facts["image_size"],
        roles=network_roles(network),
    )
    return embedder.eval()


def load_plain(network: nn.Module, path: Path) -> None:
    """Load any checkpoint of a run; weights of the plain network go with `neck.pth` beside them.

    Raises:
        UserError: If they do not fit, or the network has a neck and the file none.
    """
    state = read_state_dict(path)
    if neck_of(network) is None or not any(name == "classifier.weight" for name in state):
        load_weights(network, path)
        return
    neck = path.parent / "neck.pth"
    if not neck.is_file():
        raise UserError(
            f"{path} is of the plain network, and the neck is not beside it; copy the run's "
            f"neck.pth to {neck}, or name its best.pth or last.pth"
        )
    with located(str(path)):
        network.load_state_dict(with_neck(state, read_state_dict(neck)))


def facts_of(
    network: Mapping[str, Any], identities: int, embedder: Embedder, image_size: tuple[int, int]
) -> dict[str, str]:
    """Return what `load_student` must know, each value as JSON."""
    facts = {
        "network": network,
        "identities": identities,
        "mean": embedder.mean.flatten().tolist(),
        "std": embedder.std.flatten().tolist(),
        "image_size": embedder.size or image_size,
        "bnneck": neck_of(embedder.network) is not None,
    }
    return {name: json.dumps(value) for name, value in facts.items()}
