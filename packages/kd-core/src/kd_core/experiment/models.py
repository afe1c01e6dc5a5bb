"""What tasks share in building a student or teacher from its node in a config."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, TypeVar

from torch import nn

from kd_core.config.build import build_network
from kd_core.errors import UserError, located
from kd_core.experiment.downloads import download_explained
from kd_core.experiment.spec import RANDOM
from kd_core.networks.image_task import ImageTask
from kd_core.networks.task import Task

Made = TypeVar("Made", bound=Task)
MadeOfImages = TypeVar("MadeOfImages", bound=ImageTask)

_NOT_PRETRAINED = {"weights": None, "pretrained": False}  # in torchvision, in timm and torchreid
_FILE = "checkpoint_path"  # of timm


def build_task(
    network: Mapping[str, Any],
    where: str,
    *,
    pretrained: bool,
    prepare: Callable[[nn.Module], nn.Module],
    wrap: Callable[[nn.Module], Made],
    reach: Callable[[], None] | None = None,
    **provided: Any,
) -> Made:
    """Build the network of a student or teacher, change and load it, and wrap it with its task.

    Args:
        network: Its node.
        where: Place in the config of the student or teacher.
        pretrained: Whether the network may load the weights that its node asks its library for.
        prepare: Changes the plain network, loads weights from a file, and returns what is wrapped.
        wrap: Returns the task of the prepared network.
        reach: Tries whether the server of pretrained weights is reached; raises if not.
        provided: Arguments that the network receives if it names them, such as `num_classes`.
    """
    node = network if pretrained else without_pretrained(network)
    with download_explained(node, where) if is_pretrained(node) else nullcontext():
        if reach is not None and is_pretrained(node):
            reach()
        built = build_network(node, f"{where}.network", **provided)
    with located(where):
        return wrap(prepare(built))


def as_teacher(
    make: Callable[..., MadeOfImages], trained: ImageTask, node: Mapping[str, Any]
) -> MadeOfImages:
    """Return a finished student as a teacher.

    Args:
        make: The student's class.
        trained: The student.
        node: Of the teacher; its `mean`, `std` and `size` hold instead of the student's, and its
            `roles` beside them.
    """
    kept = {
        "mean": trained.mean.flatten().tolist(),
        "std": trained.std.flatten().tolist(),
        "size": trained.size,
    }
    given = {key: node[key] for key in kept if key in node}
    roles = {**trained.roles, **node.get("roles", {})}
    return make(trained.network, **(kept | given), roles=roles)


def is_trained_here(where: str) -> bool:
    """Return whether a node is trained here: then the size of its images is its config's."""
    return where.partition(".")[0] in ("student", "peers")


def weights_file(weights: str | None) -> str | None:
    """Return the file that `weights` of a node names; None without one, or for "random"."""
    return None if not weights or weights == RANDOM else weights


def is_pretrained(network: Mapping[str, Any]) -> bool:
    """Return whether a network's node asks its library for pretrained weights."""
    return any(network.get(key) for key in _NOT_PRETRAINED)


def without_pretrained(network: Mapping[str, Any]) -> dict[str, Any]:
    """Return a network's node that does not ask for pretrained weights: no download, no file.

    This includes nested nodes, such as a network that a method extends.
    """
    return {
        key: without_pretrained(value)
        if isinstance(value, Mapping)
        else _NOT_PRETRAINED.get(key, value)
        for key, value in network.items()
        if key != _FILE
    }


def require_logits(count: int, num_classes: int, where: str, advice: str) -> None:
    """Reject a network whose number of logits is not that of the data's classes.

    Args:
        count: Logits that it gives.
        num_classes: Classes of the data.
        where: Place in the config.
        advice: What to do, for the message.

    Raises:
        UserError: If the two differ.
    """
    if count != num_classes:
        raise UserError(
            f"{where}: the network gives {count} logits, the data has {num_classes} {advice}"
        )
