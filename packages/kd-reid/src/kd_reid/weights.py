"""Weights files: number of identities, and loading into networks with or without a neck."""

from pathlib import Path

from kd_core.errors import UserError
from kd_core.files.mismatch import Mismatch
from kd_core.files.weights import check_values, load_weights, read_state_dict
from torch import nn

from kd_reid.heads import Heads, is_inside, named_heads
from kd_reid.neck import CLASSIFIER, neck_of, with_neck


def identities_in(path: str, head: str = "") -> int | None:
    """Return the number of identities of the classifier in a weights file, if it has one.

    Args:
        path: The file.
        head: Name of the classifier, where it is not torchreid's.
    """
    # A classifier's weight is a matrix; the normalisation of a neck has vectors and comes first.
    heads = (
        len(value)
        for name, value in read_state_dict(path).items()
        if (name == f"{head}.weight" if head else _is_of_classifier(name)) and value.dim() == 2
    )
    return next(heads, None)


def _is_of_classifier(name: str) -> bool:
    return name.startswith(CLASSIFIER) and name.endswith("weight")


def load_checkpoint(network: nn.Module, path: str | Path) -> None:
    """Load any checkpoint of a run; weights of the plain network need `neck.pth` beside them.

    Raises:
        UserError: If they do not fit, or the network has a neck and the file does not.
    """
    if neck_of(network) is None:
        load_weights(network, path)
        return
    state = read_state_dict(path)
    if f"{CLASSIFIER}.weight" not in state:
        load_weights(network, path)
        return
    neck = Path(path).expanduser().parent / "neck.pth"
    if not neck.is_file():
        raise UserError(
            f"{path} is of the plain network, and the neck is not beside it; copy the run's "
            f"neck.pth to {neck}, or name its best.pth or last.pth"
        )
    whole, own = with_neck(state, read_state_dict(neck)), network.state_dict()
    check_values(f"{path}, with {neck.name}", whole, own)
    if wrong := str(Mismatch.between(whole, own)):
        raise UserError(
            f"{path}, with {neck.name}: does not fit {type(network).__name__}: {wrong}; build the "
            "network that the file was made for"
        )
    network.load_state_dict(whole)


def load_backbone(network: nn.Module, path: str, heads: Heads | None = None) -> None:
    """Load a file into everything but the classifier.

    Args:
        network: Changed in place.
        path: The file.
        heads: Where the network's classifiers are, and what else the file may lack; None takes
            those of torchreid's name.

    Raises:
        UserError: If the file lacks other weights, or a shape differs.
    """
    own, state = network.state_dict(), read_state_dict(path)
    if heads is None:
        heads = Heads(named_heads(network), ())
    body = {name: value for name, value in own.items() if not is_inside(name, heads.paths)}
    given = {name: state[name] for name in body if name in state}
    needed = {k: v for k, v in body.items() if k in given or not is_inside(k, heads.new)}
    if wrong := str(Mismatch.between(given, needed)):
        raise UserError(
            f"{path}: does not fit {type(network).__name__}: {wrong}; backbone_weights needs a "
            "file of the same network; only the classifier's weights may differ"
        )
    check_values(path, given, own)
    network.load_state_dict(given, strict=False)
