"""Checks of what a node asks of timm, before anything is built: model, tag, arguments."""

import inspect
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from kd_core.config.node import Node, parse
from kd_core.errors import UserError, nearest
from kd_core.runtime.failures import first_line

from kd_cls.libraries.hub import reach
from kd_cls.libraries.hugging_face import is_of_transformers, require_library

_OF_BUILDER = {
    *("features_only", "out_indices", "feature_cfg", "feature_cls", "pretrained_strict"),
    *("pretrained_filter_fn", "kwargs_filter", "model_cfg", "device", "dtype", "num_classes"),
}
"""Arguments that timm's builders take, whatever the model."""
_CHECK_THEMSELVES = {"ByobNet", "CspNet", "MaxxVit", "NaFlexVit", "NormFreeNet", "RegNet"}
"""Classes whose `**kwargs` are settings, of which they refuse unknown ones."""

_CLASSIFIER = "kd_cls.libraries.hugging_face.image_classifier"
_UNKNOWN = re.compile(r"unexpected keyword argument\S* \[?'(\w+)'")
_TWICE = re.compile(r"multiple values for keyword argument '(\w+)'")


def is_of_timm(network: Mapping[str, Any]) -> bool:
    """Return whether a node calls timm's `create_model`."""
    timm = sys.modules.get("timm")  # imported when the node was parsed
    create: Any = getattr(timm, "create_model", None)
    return create is not None and (
        network.function is create
        if isinstance(network, Node)
        else network.get("type") in (create, "timm.create_model")
    )


def resolved(network: Node) -> Node:
    """Return a network's node whose model exists and takes its arguments.

    Networks inside a network are checked too; those of other libraries are left alone. A name of
    the Hub or of a folder may be a model of transformers: its node is another.

    Raises:
        UserError: Naming the nearest model or argument.
    """
    for value in network.arguments.values():
        if isinstance(value, Node):
            resolved(value)
    if not is_of_timm(network):
        return network
    name = network.get("model_name")
    if not isinstance(name, str):
        raise UserError(f"{network.where}: wanted the name of a model, got {name!r:.80}")
    if ":" not in name:
        _check_name(name, network.where)
    elif is_of_transformers(_description(name, network.where, network.get("cache_dir"))):
        require_library(network.where)
        others = {k: v for k, v in network.arguments.items() if k != "model_name"}
        node = {"type": _CLASSIFIER, "name": name.partition(":")[2], **others}
        return parse(node, network.where, provided=("num_classes",))
    _check_arguments(network)
    return network


def _check_name(name: str, where: str) -> None:
    import timm

    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        known = timm.list_models()
        hint = nearest(base, known) if _near(base, known) else "; timm.list_models() lists them"
        raise UserError(f"{where}: timm has no model {base!r:.80}{hint}")
    tags = [known.partition(".")[2] for known in timm.list_models(f"{base}.*", pretrained=True)]
    if tag and tag not in tags:
        weights = nearest(tag, tags) or "; it has none"
        raise UserError(f"{where}: {base} has no pretrained weights {tag!r:.80}{weights}")


def _near(name: str, known: list[str]) -> bool:
    return "did you mean" in nearest(name, known)


def _description(name: str, where: str, cache: Any) -> dict[str, Any]:
    """Return the config.json of a model that is in a folder or on the Hugging Face Hub."""
    from timm.models import _hub as hub

    source, _, path = name.partition(":")
    try:
        folder = source == "local-dir"
        if not folder:
            reach(path, cache)
        file = f"{path}/config.json" if folder else hub.download_from_hf(path, "config.json", cache)
        facts = json.loads(Path(file).read_text(encoding="utf-8"))
        if not isinstance(facts, dict) or not {"architecture", "model_type"} & {*facts}:
            raise ValueError("it names no architecture")
        return facts
    except Exception as error:  # of the network, of the files; several libraries raise their own
        raise UserError(
            f"{where}: {name}: its config.json cannot be read or is not of timm or transformers "
            f"({type(error).__name__}: {first_line(error):.200}); is the name right, and is the "
            "Hub reached (HF_HUB_OFFLINE, HF_HOME)? A downloaded folder is named local-dir:FOLDER"
        ) from error


def _check_arguments(network: Node) -> None:
    """Build the model without memory; learn what its constructor takes if that fails."""
    import timm

    create = inspect.signature(timm.create_model).parameters
    given = {key: value for key, value in network.arguments.items() if key not in create}
    if not given or any(isinstance(value, Node) for value in given.values()):
        return
    try:
        with torch.device("meta"):
            built = timm.create_model(network["model_name"], **given)
    except TypeError as error:
        _explain(error, network, given)
    except Exception:  # what cannot be built without memory is checked when it is built
        return
    else:
        for key in given:
            if _is_ignored(key, type(built)):
                _refuse(network, key, built)


def _explain(error: TypeError, network: Node, given: Mapping[str, Any]) -> None:
    """Raise what is wrong, if the error says it; otherwise the true building's error is better."""
    import timm

    name, text = network["model_name"], str(error)
    if (twice := _TWICE.search(text)) and twice[1] in given:
        raise UserError(
            f"{network.where}: timm's {name} sets {twice[1]!r} itself; leave it out, or take "
            "another model of the family"
        ) from error
    if (wrong := _UNKNOWN.search(text)) and wrong[1] in given:
        with torch.device("meta"):
            built = timm.create_model(name)
        _refuse(network, wrong[1], built)


def _is_ignored(key: str, kind: type) -> bool:
    """Return whether a class takes any argument, and does nothing with this one."""
    taken = _taken(kind)
    takes_any = any(p is inspect.Parameter.VAR_KEYWORD for p in taken.values())
    if not takes_any or kind.__name__ in _CHECK_THEMSELVES or key in {*taken, *_OF_BUILDER}:
        return False
    settings = getattr(sys.modules[kind.__module__], "model_cfgs", {}).values()
    return not any(key in one for one in settings if isinstance(one, dict))


def _refuse(network: Node, key: str, built: torch.nn.Module) -> None:
    names = [name for name, kind in _taken(type(built)).items() if "VAR" not in kind.name]
    raise UserError(
        f"{network.where}: timm's {network['model_name']} ({type(built).__name__}) has no "
        f"parameter {key!r}{nearest(key, [n for n in names if n != 'self'])}"
    )


def _taken(kind: type) -> dict[str, Any]:
    """Return the parameters of a class and of those that it extends, with their kinds."""
    found: dict[str, Any] = {}
    for parent in kind.__mro__:
        if "__init__" in vars(parent) and parent.__module__.startswith("timm."):
            found |= {n: p.kind for n, p in inspect.signature(parent).parameters.items()}
    return found
