"""Terms of a config: the nodes of `KD.TERMS`."""

import copy
import math
from typing import Any

from detectron2.config import CfgNode
from kd_core.config.names import named
from kd_core.config.trust import DEPLOYED, check_types, known_modules
from kd_core.distill.term import parse_term
from kd_core.distill.term_spec import TermSpec
from kd_core.errors import UserError, nearest

from kd_det.settings.imports import imported_modules

KNOWN = known_modules("kd_core.criteria", "kd_det.criteria")
"""Packages whose objects a YAML file may name without `--trust`."""

DEFAULTS: dict[str, Any] = {
    "STUDENT": ["@fpn"],
    "TEACHER": ["@fpn"],
    "WEIGHT": 1.0,
    "WARMUP_ITERS": 0,
    "ARGS": {},
}
"""Values of a term whose node has only CRITERION."""

_YAML_NAMES = {
    "criterion.type": "CRITERION",
    "criterion": "ARGS",
    "student": "STUDENT",
    "teacher": "TEACHER",
    "weight": "WEIGHT",
    "warmup_epochs": "WARMUP_ITERS",
}
"""Names of a term's parts in messages of kd_core, and in the YAML file."""


def parse_terms(cfg: CfgNode) -> dict[str, TermSpec]:
    """Check the nodes of `KD.TERMS`, and return what `kd_core.distill.term.build_terms` takes.

    Raises:
        UserError: If a key is unknown, a term has no CRITERION, or one is neither ours nor trusted
            (the author of a YAML file may be anybody).
    """
    specs = {}
    known = [KNOWN, *([known_modules(*own)] if (own := imported_modules()) else [])]
    for name, node in named(cfg.KD.TERMS, "KD.TERMS").items():
        where = f"KD.TERMS.{name}"
        term = whole_term(where, node)
        check_types({"type": term["CRITERION"]}, f"{where}.CRITERION", known)
        check_types(term["ARGS"], f"{where}.ARGS", [*known, DEPLOYED])
        written = {
            "criterion": {"type": term["CRITERION"], **term["ARGS"]},
            "student": term["STUDENT"],
            "teacher": term["TEACHER"],
            "weight": float(term["WEIGHT"]),
            "warmup_epochs": float(term["WARMUP_ITERS"]),  # an iteration counts as an epoch
        }
        try:
            specs[name] = parse_term(written, where)
        except UserError as error:
            raise UserError(_in_yaml(str(error), where)) from error
    return specs


def _in_yaml(message: str, where: str) -> str:
    """Return a message about a term with the place in its node of the YAML file."""
    for ours, theirs in _YAML_NAMES.items():
        if message.startswith(f"{where}.{ours}"):
            return f"{where}.{theirs}" + message.removeprefix(f"{where}.{ours}")
    return message


def whole_term(where: str, node: Any) -> dict[str, Any]:
    """Return a term's node with all its keys."""
    if not isinstance(node, dict):
        raise UserError(f"{where} is {node!r}; wanted a node with CRITERION")
    for key in node:
        if key not in ("CRITERION", *DEFAULTS):
            raise UserError(f"{where} has no key {key!r}{nearest(key, ('CRITERION', *DEFAULTS))}")
    if "CRITERION" not in node:
        raise UserError(f"{where}: no CRITERION, such as kd_core.criteria.reviewkd.ReviewKD")
    term = {**copy.deepcopy(DEFAULTS), **node}
    if not isinstance(term["ARGS"], dict):
        raise UserError(f"{where}.ARGS is {term['ARGS']!r:.80}; wanted a node of arguments by name")
    for key in ("WEIGHT", "WARMUP_ITERS"):
        if not _is_number(term[key]):
            raise UserError(f"{where}.{key} is {term[key]!r:.80}; wanted a finite number")
    return {
        **term,
        **{side: _taps(f"{where}.{side}", term[side]) for side in ("STUDENT", "TEACHER")},
    }


def _taps(where: str, value: Any) -> list[str]:
    """Return one tap or several as a list."""
    taps = [value] if isinstance(value, str) else value
    if not isinstance(taps, list | tuple) or not all(isinstance(tap, str) for tap in taps):
        raise UserError(f"{where} is {taps!r:.80}; wanted a tap, or a list of taps")
    return list(taps)


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))  # 1e-3 is a text in YAML
    except (TypeError, ValueError):
        return False
