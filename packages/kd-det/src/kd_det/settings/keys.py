"""The class of a config with a KD node, which remembers what a user's own keys began with."""

import copy
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode

from kd_det.settings.anchors_text import without_expressions
from kd_det.settings.imports import default_config, shared_defaults
from kd_det.terms import whole_term

_MEMORY = "__kd_memory__"  # in `__dict__`, beside yacs' own state: copied with the config
Path = tuple[str, ...]

_ANY_TYPE = ("CRITERION", "STUDENT", "TEACHER", "WEIGHT", "WARMUP_ITERS")


class KDConfig(CfgNode):
    """Detectron2's config with a KD node.

    Before the first merge it remembers the values of keys that Detectron2 does not have: from these
    its teacher's config starts. Terms have all their keys after every merge, so that the next one
    can change each of them.
    """

    def merge_from_other_cfg(self, cfg_other: CfgNode) -> Any:
        """Merge another config."""
        self._before_merge()
        for term, given in _both(self, cfg_other):
            for key in given:
                if key in _ANY_TYPE:
                    term[key] = None
            for key in given["ARGS"] if isinstance(given.get("ARGS"), Mapping) else ():
                term.ARGS.pop(key, None)
        result = super().merge_from_other_cfg(cfg_other)
        complete_terms(self)
        return result

    def merge_from_list(self, cfg_list: Sequence[Any]) -> Any:
        """Merge KEY, VALUE pairs."""
        self._before_merge()
        for path in list(cfg_list)[::2]:
            _take_any_type(self, str(path).split("."))
        result = super().merge_from_list(cfg_list)
        complete_terms(self)
        return result

    @classmethod
    def _open_cfg(cls, filename: str) -> Any:
        with super()._open_cfg(filename) as file:
            return io.StringIO(without_expressions(file.read()))

    @classmethod
    def _decode_cfg_value(cls, value: Any) -> Any:
        return CfgNode._decode_cfg_value(value)  # nodes inside are plain ones

    def _before_merge(self) -> None:
        memory = self.__dict__.get(_MEMORY)
        if memory and not memory["merged"]:
            if memory["sure"]:
                memory["keys"] = {**own_keys(self, shared_defaults()), **memory["keys"]}
            memory["merged"] = True
        complete_terms(self)  # perhaps they were set without a merge


def remember(cfg: CfgNode) -> None:
    """Let a config remember what its own keys are now; see `KDConfig`.

    If its other keys are not Detectron2's defaults any more, something was merged before, and the
    defaults of its own keys are not known.
    """
    if type(cfg) is CfgNode:
        object.__setattr__(cfg, "__class__", KDConfig)  # a node's own takes values alone
    defaults = shared_defaults()
    sure = not _is_changed(cfg, defaults)
    keys = own_keys(cfg, defaults) if sure else {}
    cfg.__dict__[_MEMORY] = {"keys": keys, "sure": sure, "merged": False}


def teacher_defaults(cfg: CfgNode) -> CfgNode:
    """Return what the teacher's config starts from.

    These are Detectron2's defaults, and the keys of a user's own in the student's config, with the
    values that they had before anything was merged.
    """
    defaults = default_config()
    for path, value in cfg.__dict__.get(_MEMORY, {}).get("keys", {}).items():
        node = defaults
        for part in path[:-1]:
            node = node.setdefault(part, CfgNode())
        node.setdefault(path[-1], copy.deepcopy(value))
    _allow_new(defaults, cfg)
    return defaults


def own_keys(cfg: CfgNode, defaults: Mapping[str, Any], path: Path = ()) -> dict[Path, Any]:
    """Return the values of a config whose keys the defaults do not have, but KD's, by their path.

    An empty node is a value too.
    """
    found: dict[Path, Any] = {}
    for key, value in cfg.items():
        here = (*path, key)
        if isinstance(value, CfgNode) and value and here != ("KD",):
            inside = defaults.get(key)
            found |= own_keys(value, inside if isinstance(inside, CfgNode) else {}, here)
        elif key not in defaults and here != ("KD",):
            found[here] = copy.deepcopy(value)
    return found


def complete_terms(cfg: CfgNode) -> None:
    """Give every term of a config all its keys.

    Raises:
        UserError: If a term has another key, or a value of another type.
    """
    terms = cfg["KD"]["TERMS"] if "KD" in cfg and not cfg.is_frozen() else {}
    for name in terms:
        node = CfgNode(whole_term(f"KD.TERMS.{name}", terms[name]))
        node.ARGS.set_new_allowed(True)  # a criterion says itself which it takes
        terms[name] = node


def _is_changed(cfg: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool:
    for key, value in defaults.items():
        if isinstance(value, CfgNode) and isinstance(cfg.get(key), CfgNode):
            if _is_changed(cfg[key], value):
                return True
        elif key not in cfg or cfg[key] != value:
            return True
    return False


def _allow_new(cfg: CfgNode, like: CfgNode) -> None:
    """Allow new keys in the nodes where another config allows them."""
    if like.is_new_allowed():
        cfg.set_new_allowed(True)
    for key, value in cfg.items():
        if isinstance(value, CfgNode) and isinstance(like.get(key), CfgNode):
            _allow_new(value, like[key])


def _both(cfg: CfgNode, other: Any) -> Iterator[tuple[CfgNode, Mapping[str, Any]]]:
    """Yield the terms that two configs have, of each."""
    for part in ("KD", "TERMS"):
        other = other.get(part, {}) if isinstance(other, Mapping) else {}
    terms = cfg["KD"]["TERMS"] if "KD" in cfg else {}
    for name in terms.keys() & (other.keys() if isinstance(other, Mapping) else set()):
        if isinstance(other[name], Mapping):
            yield terms[name], other[name]


def _take_any_type(cfg: CfgNode, path: Sequence[str]) -> None:
    """Let a value of a term be replaced by one of another type: yacs takes no 2 for a 1.0.

    `complete_terms` checks it afterwards. A criterion's argument may be new.
    """
    match path:
        case ["KD", "TERMS", name, key] if key in _ANY_TYPE:
            node = cfg["KD"]["TERMS"].get(name, {})
        case ["KD", "TERMS", name, "ARGS", key]:
            node = cfg["KD"]["TERMS"].get(name, {}).get("ARGS", {})
        case _:
            return
    node[key] = None
