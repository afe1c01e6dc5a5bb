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
from kd_core.networks.probe import first_pass
from kd_core.networks.roles import tap_list
from torch import nn

from kd_reid.embedder import Embedder
from kd_reid.heads import Heads, batch_of, find_heads
from kd_reid.images import refuse_others
from kd_reid.known_networks import KNOWN
from kd_reid.neck import attach, neck_of
from kd_reid.roles import network_roles
from kd_reid.teacher_features import FeatureEmbedder
from kd_reid.weights import load_checkpoint

FACTS = {
    "network": artifacts.NODE,
    "identities": artifacts.COUNT,
    "mean": artifacts.MEAN,
    "std": artifacts.STD,
    "image_size": artifacts.SIZE,
    "bnneck": artifacts.FLAG,
}
OPTIONAL = {"features": artifacts.COUNT, "embedding": artifacts.KEY}
"""Width of the embedding of a student without identities, and its tap where that must be said."""
INSTEAD = {"identities": "features"}
HEADLESS = "kd_core.criteria.headless.without_head"


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
    facts = facts_in(file)
    make = partial(_build, facts, file)
    network = artifacts.rebuild(make, lambda network: load_checkpoint(network, file))
    shown = {"mean": facts["mean"], "std": facts["std"], "size": facts["image_size"]}
    embedder = _without_identities if "features" in facts else _with_identities
    made = embedder(network, facts, shown)
    refuse_others(made)
    return made.eval()


def facts_in(file: Path) -> dict[str, Any]:
    """Return what a student's file says of it; `identities`, or `features` where it has none."""
    return read_facts(file, FACTS, OPTIONAL, INSTEAD)


def _with_identities(
    network: nn.Module, facts: Mapping[str, Any], shown: Mapping[str, Any]
) -> Embedder:
    images = batch_of(2, len(facts["mean"]), height_and_width(facts["image_size"]))
    heads = find_heads(network, images)
    return Embedder(network, **shown, roles=network_roles(network, heads.paths), heads=heads)


def _without_identities(
    network: nn.Module, facts: Mapping[str, Any], shown: Mapping[str, Any]
) -> Embedder:
    """Return what ends in an embedding: its tap is in the file, or its classifier was left out."""
    if "embedding" in facts:
        path = str(facts["embedding"])
        roles: dict[str, Any] = {"logits": (), "embedding": (path,), "pooled": (path,)}
        return FeatureEmbedder(network, **shown, roles=roles)
    node = facts["network"]
    paths = tuple(node["paths"]) if node["type"] == HEADLESS else ()
    roles = {**network_roles(network, paths), "logits": ()}
    return Embedder(network, **shown, roles=roles, heads=Heads(paths, paths))


def embeddings(folder: Path) -> Timed:
    """Return the network of a finished run, and the shape of its images, to be measured."""
    file = find_student(folder)
    facts = facts_in(file)
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
        num_classes=facts.get("identities", 1),
        use_gpu=False,
    )
    if facts["bnneck"]:
        attach(network)
    return network


def facts_of(
    network: Mapping[str, Any], identities: int, embedder: Embedder, image_size: tuple[int, int]
) -> dict[str, str]:
    """Return the facts that `load_student` needs, each value as JSON.

    Args:
        network: Its node.
        identities: Of the data; 0 if these have none.
        embedder: The student.
        image_size: Height and width of the data's images.
    """
    facts = {
        "network": network,
        **_ends_in(embedder, identities, image_size),
        "mean": embedder.mean.flatten().tolist(),
        "std": embedder.std.flatten().tolist(),
        "image_size": embedder.size or image_size,
        "bnneck": neck_of(embedder.network) is not None,
    }
    return {name: json.dumps(value) for name, value in facts.items()}


def _ends_in(embedder: Embedder, identities: int, image_size: tuple[int, int]) -> dict[str, Any]:
    """Return the number of identities; of a student without, the width and tap of its embedding."""
    if isinstance(embedder, FeatureEmbedder):
        tap = {"embedding": tap_list("@embedding[0]", embedder)[0]}
    elif identities:
        return {"identities": identities}
    else:
        tap = {}
    images = batch_of(2, len(embedder.mean.flatten()), image_size).to(embedder.mean.device)
    found = first_pass(embedder, {"image": images}).embedding
    return {"features": found.shape[1], **tap}
