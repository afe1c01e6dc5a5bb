"""Rebuild the embedder of a finished run from its exported files."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kd_core.config.trust import build_from_file
from kd_core.files import artifacts
from kd_core.files.artifacts import find_student, read_facts
from kd_core.networks.image_task import height_and_width
from kd_core.networks.latency import Timed
from torch import nn

from kd_reid.embedder import Embedder
from kd_reid.heads import batch_of, find_heads
from kd_reid.images import refuse_others
from kd_reid.known_networks import KNOWN
from kd_reid.neck import attach, neck_of
from kd_reid.roles import network_roles
from kd_reid.weights import load_checkpoint

FACTS = {
    "network": artifacts.NODE,
    "identities": artifacts.COUNT,
    "mean": artifacts.MEAN,
    "std": artifacts.STD,
    "image_size": artifacts.SIZE,
    "bnneck": artifacts.FLAG,
}


def load_student(path: str | Path) -> Embedder:
    """Rebuild the embedder of a finished run, in evaluation mode on the CPU.

    Called with `{"image": images}`, uint8 or floats in [0, 1] of any size, it returns an
    `Embedding`; other images are refused. A network that is not of torchreid needs
    `trusting(NAME)` of `kd_core.config.trusted` around.

    Args:
        path: Folder of the run, or its `student.safetensors`.

    Raises:
        UserError: If there is no such file, or the network is neither known nor trusted, cannot be
            built or does not fit.
    """
    file = find_student(path)
    facts = read_facts(file, FACTS)
    make = partial(_build, facts, file)
    network = artifacts.rebuild(make, lambda network: load_checkpoint(network, file))
    images = batch_of(2, len(facts["mean"]), height_and_width(facts["image_size"]))
    heads = find_heads(network, images)
    embedder = Embedder(
        network,
        mean=facts["mean"],
        std=facts["std"],
        size=facts["image_size"],
        roles=network_roles(network, heads.paths),
        heads=heads,
    )
    refuse_others(embedder)
    return embedder.eval()


def embeddings(folder: Path) -> Timed:
    """Return the network of a finished run, and the shape of its images, to be measured."""
    file = find_student(folder)
    facts = read_facts(file, FACTS)
    size = facts["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return Timed(load_student(file).network, (len(facts["mean"]), height, width))


def _build(facts: Mapping[str, Any], file: Path) -> nn.Module:
    largest = artifacts.largest_tensor(file)
    network = build_from_file(
        facts["network"],
        f"{file}: network",
        KNOWN,
        largest=largest,
        num_classes=facts["identities"],
        use_gpu=False,
    )
    if facts["bnneck"]:
        attach(network)
    return network


def facts_of(
    network: Mapping[str, Any], identities: int, embedder: Embedder, image_size: tuple[int, int]
) -> dict[str, str]:
    """Return the facts that `load_student` needs, each value as JSON."""
    facts = {
        "network": network,
        "identities": identities,
        "mean": embedder.mean.flatten().tolist(),
        "std": embedder.std.flatten().tolist(),
        "image_size": embedder.size or image_size,
        "bnneck": neck_of(embedder.network) is not None,
    }
    return {name: json.dumps(value) for name, value in facts.items()}
