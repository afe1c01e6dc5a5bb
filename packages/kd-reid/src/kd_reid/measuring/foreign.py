"""Weights of others in a network of torchreid: all but the classifier, and their neck."""

from collections.abc import Mapping

import torch
from kd_core.errors import UserError
from kd_core.files.best_match import Match, choose, matches, state_dicts
from kd_core.files.mismatch import Mismatch, few
from kd_core.files.weight_files import split_choice
from kd_core.files.weights import check_values, read_contents, read_state_dict
from kd_core.runtime import distributed
from torch import Tensor, nn

from kd_reid.neck import CLASSIFIER, attach, neck_of

_NECK = ("weight", "bias", "running_mean", "running_var")


def load_body(network: nn.Module, path: str) -> None:
    """Load all but the classifier from a file, whatever comes before the names in it.

    The classifier of other people, or another library's, is left out, which is printed. A
    BatchNorm of the embedding's width beside the body is a neck (`bottleneck` of the strong
    baseline, `classifier.bn` of a run of ours): the search takes the embedding behind it.

    Args:
        network: Of torchreid, with a classifier.
        path: The file, `FILE#PLACE` of several; see `load_weights`.

    Raises:
        UserError: If the body does not fit, or the file has more that is neither.
    """
    own = network.state_dict()
    body = {name: value for name, value in own.items() if not name.startswith(CLASSIFIER)}
    state, beside = _found(path, body)
    given = {name: state[name] for name in body if name in state}
    if wrong := str(Mismatch.between(given, body)):
        raise UserError(
            f"{path}: does not fit {type(network).__name__}: {wrong}; name the network that the "
            "file was made for: --network NAME, --network-options KEY=VALUE"
        )
    check_values(path, given, own)
    network.load_state_dict(given, strict=False)
    others = {name: value for name, value in state.items() if name not in body} | beside
    _take_neck(network, path, others)


def _found(path: str, body: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what has the body's names, with all after their prefix, and what is beside that."""
    file, choice = split_choice(path)
    contents = read_contents(file)
    if isinstance(contents, Mapping) and isinstance(contents.get("distiller"), Mapping):
        return read_state_dict(path), {}  # a checkpoint of our trainer
    match = choose(matches(contents, body), body, choice)
    if match is None:
        return read_state_dict(path), {}
    if match.place:
        distributed.print_note(f"{file}: took the weights under {match.place!r}")
    return match.state, _left_in(contents, match)


def _left_in(contents: object, match: Match) -> dict[str, Tensor]:
    """Return the tensors of a match's own dict that are not under its prefix."""
    for keys, tensors in state_dicts(contents):
        place = ".".join(keys)
        if match.place.startswith(place) and all(name in tensors for name in match.left):
            return {name: tensors[name] for name in match.left}
    return {}


def _take_neck(network: nn.Module, path: str, others: Mapping[str, Tensor]) -> None:
    """Put the neck of a file into the network, and print what else is left out."""
    normed = sorted({n.rpartition(".")[0] for n in others if n.endswith(".running_mean")})
    width = _width(network)
    necks = [name for name in normed if others[f"{name}.running_mean"].shape == (width,)]
    if len(necks) > 1 or len(necks) < len(normed):
        raise UserError(
            f"{path}: has BatchNorms that are not of this network: {few(normed)}; "
            "name the network that the file was made for: --network NAME"
        )
    rest = [name for name in others if name.rpartition(".")[0] not in normed]
    strange = [name for name in rest if not _is_of_classifier(name, others, width)]
    if strange and not split_choice(path)[1]:
        raise UserError(
            f"{path}: has {few(strange)} beside the network's own; name the network that the file "
            "was made for, --network NAME, or say which of its weights are meant, FILE#PLACE"
        )
    if necks:
        _attach(network, path, necks[0], others)
    if necks or rest:
        used = f"the embedding is taken behind its neck {necks[0]!r}" if necks else ""
        left = f"left out, as evaluation needs no classifier: {few(rest)}" if rest else ""
        distributed.print_note(f"{path}: {'; '.join(filter(None, (used, left)))}")


@torch.no_grad()
def _attach(network: nn.Module, path: str, name: str, others: Mapping[str, Tensor]) -> None:
    attach(network)
    neck = neck_of(network)
    assert neck is not None
    values = {part: others[f"{name}.{part}"] for part in _NECK if f"{name}.{part}" in others}
    own = {part: value for part, value in neck.bn.state_dict().items() if part in _NECK}
    values.setdefault("bias", torch.zeros_like(own["bias"]))  # a neck may have no shift
    if wrong := str(Mismatch.between(values, own)):
        raise UserError(f"{path}: {name} is not a BatchNorm of the embedding: {wrong}")
    check_values(path, values, own)
    neck.bn.load_state_dict(values, strict=False)


def _width(network: nn.Module) -> int | None:
    """Return the width of the embedding before the only classifier."""
    head = getattr(network, CLASSIFIER, None)
    return head.in_features if isinstance(head, nn.Linear) else None


def _is_of_classifier(name: str, others: Mapping[str, Tensor], width: int | None) -> bool:
    """Return whether a tensor is of a linear layer that takes the embedding."""
    module, _, part = name.rpartition(".")
    weight = others.get(f"{module}.weight")
    if weight is None or weight.dim() != 2 or part not in ("weight", "bias"):
        return False
    if part == "bias" and others[name].shape != weight.shape[:1]:
        return False
    return name.startswith(CLASSIFIER) if width is None else weight.shape[1] == width
