"""The network that is measured: of a finished run, or of anybody's file of weights."""

import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_core.config.node import parse_call
from kd_core.errors import UserError
from kd_core.experiment import identity
from kd_core.files.artifacts import FILE
from kd_core.files.weight_facts import metadata_of
from kd_core.files.weight_files import (
    NOT_FINISHED,
    described_by,
    is_unfinished_run,
    main_file,
    split_choice,
)
from kd_core.runtime.console import err

from kd_reid.data.options import Options
from kd_reid.data.statistics import IMAGENET_MEAN, IMAGENET_STD
from kd_reid.embedder import Embedder
from kd_reid.measuring.foreign import load_body
from kd_reid.models import build_model, model_names
from kd_reid.roles import network_roles
from kd_reid.student import load_student
from kd_reid.weights import load_checkpoint

_SAID_ELSEWHERE = {
    "name": "--network NAME says it",
    "num_classes": "evaluation needs no classifier",
    "pretrained": "MODEL has the weights",
}
"""Arguments of `build_model` that are not options, and why."""


@dataclass
class Measured:
    """A network that is measured.

    Args:
        embedder: Prepares images for it.
        image_size: Height and width that images are read at.
        evaluation: Settings of the run's own evaluation, where it has any.
        source: The run's own data, where they are known.
        camera: How the run finds a camera in a path, where its config says it.
    """

    embedder: Embedder
    image_size: tuple[int, int]
    evaluation: Mapping[str, Any]
    source: str | None = None
    camera: str | None = None


def measured_model(args: Namespace) -> Measured:
    """Return the network of the arguments, in evaluation mode on the CPU.

    Raises:
        UserError: If there is none, its file does not fit, or an option has no effect on it.
    """
    path, choice = split_choice(args.model)
    described = None if choice else _student_file(path)
    return _foreign(args) if described is None else _finished(args, path, described)


def _student_file(path: Path) -> Path | None:
    """Return the file of a finished run that says what network a path is of, or None."""
    if path.is_dir():
        return path / FILE if (path / FILE).is_file() else None
    if path.suffix == ".safetensors":
        return path if "network" in metadata_of(path) else None
    return next(iter(described_by(path)), None)


def _finished(args: Namespace, path: Path, described: Path) -> Measured:
    for option in ("network", "network_options", "mean", "std"):
        if getattr(args, option):
            flag = f"--{option.replace('_', '-')}"
            raise UserError(f"{flag}: {described} says it already; leave it out")
    embedder = load_student(described)
    if path.is_file() and path != described:
        load_checkpoint(embedder.network, path)
    size = tuple(args.size or _pair(embedder.size))
    evaluation, source, camera = _own_settings(described.parent)
    made = type(embedder)(
        embedder.network,
        mean=embedder.mean.flatten().tolist(),
        std=embedder.std.flatten().tolist(),
        size=size,
        roles=embedder.roles,
        heads=embedder.heads,
    )
    return Measured(made.eval(), size, evaluation, source, camera)


def _own_settings(folder: Path) -> tuple[dict[str, Any], str | None, str | None]:
    """Return a run's `evaluation`, as far as it is of the features, its images and cameras."""
    kept = identity.read(folder) if (folder / identity.FILE).is_file() else None
    config = kept["config"] if kept else {}
    node, data = (config.get(name) for name in ("evaluation", "data"))
    known = {"distance": ("euclidean", "cosine"), "flip": (True, False)}
    found = {}
    for name, values in known.items():
        if isinstance(node, dict) and name in node and node[name] in values:
            found[name] = node[name]
    own = [data.get(name) if isinstance(data, dict) else None for name in ("source", "camera")]
    source, camera = (text if isinstance(text, str) else None for text in own)
    return found, source, camera


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _foreign(args: Namespace) -> Measured:
    """Return a network of torchreid with anybody's weights, without their classifier."""
    file = main_file(split_choice(args.model)[0])
    for option, instead in _SAID_ELSEWHERE.items():
        if option in args.network_options:
            raise UserError(f"--network-options {option}: leave it out; {instead}")
    name = args.network or _named_in(file)
    node = {"name": name, **args.network_options}
    call = parse_call(build_model, node, "--network-options", provided=("num_classes",))
    network = build_model(num_classes=1, **call)
    load_body(network, args.model)
    size = tuple(args.size or Options().image_size)
    embedder = Embedder(
        network,
        mean=args.mean or IMAGENET_MEAN,
        std=args.std or IMAGENET_STD,
        size=size,
        roles=network_roles(network),
    )
    return Measured(embedder.eval(), size, {})


def _named_in(file: Path) -> str:
    """Return the network that the name of a file starts with, as torchreid's files do."""
    fitting = [
        name for name in model_names() if re.match(rf"{re.escape(name)}(?![a-z0-9])", file.name)
    ]
    if not fitting and is_unfinished_run(file.parent):
        raise UserError(
            f"{file}: {NOT_FINISHED}, and its folder is the MODEL then; or add --network NAME"
        )
    if not fitting:
        raise UserError(
            f"{file}: does not say of which network it is; add --network NAME, such as osnet_x1_0 "
            "(kd_reid.models.model_names() lists them)"
        )
    name = max(fitting, key=len)
    err.print(f"{file}: its name says {name}")
    return name
