"""Build the network that `KD.TEACHER.NETWORK` names, and load its weights."""

import sys
from collections.abc import Collection, Mapping
from typing import Any

import torchvision
from detectron2.config import CfgNode
from kd_core.config.build import build_network
from kd_core.config.locate import locate
from kd_core.config.parameters import parameters_of
from kd_core.config.short_names import expanded
from kd_core.config.trust import (
    NO_WEIGHTS,
    Known,
    build_from_file,
    check_types,
    known_modules,
)
from kd_core.config.trusted import trusted_names
from kd_core.errors import UserError, located, nearest
from kd_core.files.weights import load_weights
from kd_core.runtime.failures import explain, first_line
from torch import nn
from torchvision.models import get_model, get_model_builder, list_models

from kd_det.teachers.nodes import PRETRAINED, RANDOM

_WHERE = "KD.TEACHER.NETWORK"
_TIMM = "timm.create_model"
_LARGEST = 10**6  # of numbers in ARGS, such as a number of classes


def _is_of_torchvision(found: Any, node: Mapping[str, Any]) -> bool:
    names = list_models()
    if found is get_model:
        return node.get("name") in names
    return any(found is get_model_builder(name) for name in names)


def _is_of_timm(found: Any, node: Mapping[str, Any]) -> bool:
    return found is getattr(sys.modules.get("timm"), "create_model", None)


KNOWN = (
    known_modules("torchvision.models"),
    Known(("torchvision.models.",), _is_of_torchvision),
    Known((_TIMM,), _is_of_timm),
)
"""What a YAML file may name as a teacher without `--trust`."""


def call_of(node: CfgNode) -> dict[str, Any]:
    """Return NETWORK and ARGS as one node; a short name such as `timm:resnet50` written out."""
    arguments = _plain(node.ARGS)
    if "type" in arguments:
        raise UserError(f"KD.TEACHER.ARGS.type: write the import path as {_WHERE}")
    call: dict[str, Any] = expanded({"type": node.NETWORK, **arguments}, _WHERE, network=True)
    return call


def check_named(node: CfgNode, fetches: Collection[str] = (PRETRAINED, RANDOM)) -> None:
    """Reject a network that is neither known nor trusted, or that would fetch weights unasked.

    Args:
        node: `KD.TEACHER`.
        fetches: Values of WEIGHTS with which ARGS may name weights; a dry run makes them random.

    Raises:
        UserError: If it is so; nothing is built.
    """
    call = call_of(node)
    check_types(call, _WHERE, KNOWN)
    if call["type"] == _TIMM:
        _check_timm(call)
    asked = [key for key in NO_WEIGHTS if call.get(key)]
    if asked and node.WEIGHTS not in fetches:
        raise UserError(
            f"KD.TEACHER.ARGS.{asked[0]} {call[asked[0]]!r} would fetch weights, and "
            f"KD.TEACHER.WEIGHTS names {node.WEIGHTS!r}; leave it out, or set KD.TEACHER.WEIGHTS "
            f"{PRETRAINED}"
        )


def _check_timm(call: Mapping[str, Any]) -> None:
    """Reject a name that timm does not have, and levels that are not numbers."""
    name, names = str(call.get("model_name", "")), locate("timm.list_models")()
    plain = ":" not in name and "/" not in name  # else of a hub, which is judged later
    if plain and name.partition(".")[0] not in names:
        raise UserError(f"{_WHERE}: timm has no network {name!r}{nearest(name, names)}")
    levels = call.get("out_indices")
    if levels is not None and not (
        isinstance(levels, list) and all(type(place) is int for place in levels)
    ):
        raise UserError(f"KD.TEACHER.ARGS.out_indices is {levels!r:.80}; wanted a list of numbers")


def make_network(node: CfgNode) -> tuple[nn.Module, list[int] | None]:
    """Return the network with its weights, and which of timm's levels are asked for, if any.

    A network of timm is built whole, also with `features_only`: its weights then have the names
    that they have in files, and its maps are tapped.

    Raises:
        UserError: If it cannot be built, is neither known nor trusted, or its weights do not fit.
    """
    check_named(node)
    call = call_of(node)
    levels = None
    if call["type"] == _TIMM:
        chosen = call.pop("out_indices", None)
        call.pop("features_only", None)
        levels = chosen
    if node.WEIGHTS == PRETRAINED:
        return _pretrained(call), levels
    network = _built({key: item for key, item in call.items() if key not in NO_WEIGHTS})
    if node.WEIGHTS != RANDOM:
        with located("KD.TEACHER.WEIGHTS"):
            load_weights(network, node.WEIGHTS)
    return network, levels


def _built(call: Mapping[str, Any]) -> nn.Module:
    """Return the network without weights."""
    if call["type"] not in trusted_names():
        return build_from_file(call, _WHERE, KNOWN, largest=_LARGEST)
    names = parameters_of(locate(call["type"])).names
    none = {key: no for key, no in NO_WEIGHTS.items() if key in names}
    return _called({**call, **none}, "")


def _pretrained(call: Mapping[str, Any]) -> nn.Module:
    """Return the network with the weights that its factory fetches."""
    asked = {key: item for key, item in call.items() if key in NO_WEIGHTS}
    if call["type"] not in trusted_names():
        _built({key: item for key, item in call.items() if key not in asked})  # judges arguments
        names = parameters_of(locate(call["type"])).names
        options = {"weights": "DEFAULT", "pretrained": True}
        asked = asked or {key: value for key, value in options.items() if key in names}
    if not asked and call["type"] not in trusted_names():
        raise UserError(
            f"KD.TEACHER.WEIGHTS {PRETRAINED}: {call['type']} has no weights of its own; name a "
            "file"
        )
    return _called({**call, **asked}, "; download its weights elsewhere, and name the file")


def _called(call: Mapping[str, Any], advice: str) -> nn.Module:
    try:
        return build_network(call, _WHERE)
    except UserError as error:
        raise UserError(f"{error}{advice}") from error
    except Exception as error:  # a factory may raise anything
        if known := explain(error):
            raise UserError(f"{_WHERE}: {known}{advice}") from error
        raise UserError(
            f"{_WHERE}: {call['type']} failed ({type(error).__name__}: {first_line(error)}){advice}"
        ) from error


def _plain(value: Any) -> Any:
    """Return a config node as plain dicts and lists."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def torchvision_preset(call: Mapping[str, Any]) -> Any:
    """Return the transform of a classifier's weights in torchvision; None if there is none."""
    name = str(call["type"]).rpartition(".")[2]
    name = str(call.get("name")) if name == "get_model" else name
    if not str(call["type"]).startswith("torchvision.") or name not in list_models():
        return None
    weights = getattr(torchvision.models.get_model_weights(name), "DEFAULT", None)
    return None if weights is None else weights.transforms()
