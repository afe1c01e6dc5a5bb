"""Weights files: number of identities, and loading into networks with or without a neck."""

from pathlib import Path

from kd_core.errors import UserError
from kd_core.files.weights import check_values, differences, load_weights, read_state_dict
from torch import nn

from kd_reid.neck import CLASSIFIER, neck_of, with_neck


def identities_in(path: str) -> int | None:
    """Return the number of identities of the classifier in a weights file, if it has one."""
    # A classifier's weight is a matrix; the normalisation of a neck has vectors and comes first.
    heads = (
        len(value)
        for name, value in read_state_dict(path).items()
        if name.startswith(CLASSIFIER) and name.endswith("weight") and value.dim() == 2
    )
    return next(heads, None)


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
    shapes, wanted = ({k: v.shape for k, v in state.items()} for state in (whole, own))
    odd = [name for name in {**wanted, **shapes} if shapes.get(name) != wanted.get(name)]
    if odd:
        raise UserError(
            f"{path}, with {neck.name}: does not fit {type(network).__name__}: {len(odd)} weights "
            f"differ, such as {odd[0]}; build the network that the file was made for"
        )
    network.load_state_dict(whole)


def load_backbone(network: nn.Module, path: str) -> None:
    """Load a file into everything but the classifier.

    Raises:
        UserError: If the file lacks other weights, or a shape differs.
    """
    own, state = network.state_dict(), read_state_dict(path)
    body = {name for name in own if not name.startswith(CLASSIFIER)}
    body -= {name for name in body if name.endswith("num_batches_tracked") and name not in state}
    missing = sorted(body - state.keys())
    shapes = [
        f"{name} is {list(state[name].shape)} in the file, {list(own[name].shape)} in the network"
        for name in sorted(body & state.keys())
        if state[name].shape != own[name].shape
    ]
    if missing or shapes:
        raise UserError(
            f"{path}: does not fit {type(network).__name__}: {differences(missing, [], shapes)}; "
            "backbone_weights needs a file of the same network; only the classifier's "
            "weights may differ"
        )
    body_state = {name: state[name] for name in body}
    check_values(path, body_state, own)
    network.load_state_dict(body_state, strict=False)
