"""A finished student: the embedder that a run exported, rebuilt from its files alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_core.build import build
from kd_core.finished import find_student, read_facts
from torch import nn

from kd_reid.embedder import Embedder
from kd_reid.neck import attach, neck_of
from kd_reid.networks import network_roles, without_pretrained
from kd_reid.weights import load_checkpoint

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
    load_checkpoint(network, file)
    embedder = Embedder(
        network,
        mean=facts["mean"],
        std=facts["std"],
        size=facts["image_size"],
        roles=network_roles(network),
    )
    return embedder.eval()


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
