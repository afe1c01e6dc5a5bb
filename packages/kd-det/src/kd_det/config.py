"""A Detectron2 config with the KD node: read strictly, and that of its teacher."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg
from kd_core.errors import UserError, nearest

from kd_det.teachers.nodes import add_network_keys
from kd_det.terms import whole_term


def add_kd_config(cfg: CfgNode) -> None:
    """Add the KD node to a Detectron2 config, without a teacher and without terms.

    `KD.TERMS.<name>` has CRITERION (an import path) and, if the defaults do not suit, ARGS (its
    constructor's arguments), STUDENT and TEACHER (taps; `@fpn`, all maps of the FPN, by default),
    WEIGHT and WARMUP_ITERS. The loss is logged as `loss_<name>`.
    """
    cfg.KD = CfgNode()
    cfg.KD.TEACHER = CfgNode()
    cfg.KD.TEACHER.CONFIG = ""  # YAML, relative to the working directory
    cfg.KD.TEACHER.WEIGHTS = ""  # .pth or .pkl of a whole detector; `random` leaves it untrained
    cfg.KD.TEACHER.OPTS = []  # KEY VALUE pairs that change the teacher's config
    add_network_keys(cfg.KD.TEACHER)
    cfg.KD.TERMS = CfgNode(new_allowed=True)
    # Seconds after which a data worker without a batch counts as lost; 0 waits forever
    cfg.KD.WORKER_TIMEOUT = 300.0
    cfg.KD.TASK_WEIGHT = 1.0  # factor of the detector's own losses
    # Prefixes of weights that are copied from the teacher at the start: head., backbone.fpn_output
    cfg.KD.INHERIT = []


def read_config(file: str | Path, options: Sequence[str] = ()) -> CfgNode:
    """Read a YAML file over Detectron2's defaults and the KD node's, then KEY VALUE options.

    `KD.TEACHER.CONFIG` may be relative to the YAML file; it becomes an absolute path.

    Raises:
        UserError: If a file is missing or unsafe, or a key does not exist or has another type.
    """
    cfg = get_cfg()
    add_kd_config(cfg)
    path = Path(file)
    if path.suffix == ".py":
        raise UserError(f"{file}: a config of detection is a YAML file, such as configs/det/*.yaml")
    if not path.is_file():
        hint = nearest(path.name, [other.name for other in path.parent.glob("*.yaml")])
        raise UserError(f"no config file {str(file)!r}{hint}")
    _check_bases(path, ())
    _merge(cfg, str(file), lambda: cfg.merge_from_file(str(path), allow_unsafe=False))
    for name in cfg.KD.TERMS:  # whole, so that options can change keys that are not in the file
        cfg.KD.TERMS[name] = CfgNode(whole_term(f"KD.TERMS.{name}", cfg.KD.TERMS[name]))
    _merge(cfg, "options", lambda: cfg.merge_from_list(list(options)))
    beside = path.parent / cfg.KD.TEACHER.CONFIG
    if cfg.KD.TEACHER.CONFIG and beside.is_file():
        cfg.KD.TEACHER.CONFIG = str(beside.resolve())
    return cfg


def teacher_config(cfg: CfgNode) -> CfgNode:
    """Return the teacher's config, on the student's device.

    Raises:
        UserError: If `KD.TEACHER` names no config or no weights.
    """
    node = cfg.KD.TEACHER
    for key, wanted in (
        ("CONFIG", "the YAML of the teacher"),
        ("WEIGHTS", "the .pth or .pkl of a trained detector (or `random`, to try things out)"),
    ):
        if not node[key]:
            raise UserError(
                f"KD.TERMS needs a teacher, but KD.TEACHER.{key} is empty: set {wanted}"
            )
    teacher = read_config(node.CONFIG, node.OPTS)
    teacher.MODEL.DEVICE = cfg.MODEL.DEVICE
    return teacher


def _check_bases(file: Path, above: tuple[Path, ...]) -> None:
    """Reject a `_BASE_` that is not a local file: Detectron2 would wait at a pipe, or download."""
    try:
        node = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError):
        return  # reported when it is merged
    bases = node.get("_BASE_", []) if isinstance(node, dict) else []
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str) or "://" in base:
            raise UserError(f"{file}: _BASE_ {base!r}: wanted a YAML file of this machine")
        path = file.parent / Path(base).expanduser()
        if not path.is_file():
            hint = nearest(path.name, [other.name for other in path.parent.glob("*.yaml")])
            raise UserError(f"{file}: _BASE_ {base!r} is not a file{hint}")
        if path.resolve() in above or path.resolve() == file.resolve():
            raise UserError(f"{file}: _BASE_ {base!r} leads back to itself")
        _check_bases(path, (*above, file.resolve()))


def _merge(cfg: CfgNode, where: str, merge: Any) -> None:
    """Merge into a config; an error says in one line what does not fit."""
    try:
        merge()
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not plain YAML ({' '.join(str(error).split())})") from error
    except (AttributeError, TypeError, RecursionError) as error:  # of lists and texts as nodes
        raise UserError(f"{where}: not a config of Detectron2 ({error})") from error
    except OSError as error:
        place = error.filename or where
        raise UserError(f"{where}: cannot read {place} ({error.strerror or error})") from error
    except (KeyError, AssertionError, ValueError) as error:
        text = str(error.args[0] if error.args else error)
        match = re.fullmatch(r"Non-existent (?:config )?key: (\S+)", text)
        if match:
            text = f"no key {match[1]}{_nearest_key(cfg, match[1])}"
        raise UserError(f"{where}: {text}") from error


def _nearest_key(cfg: CfgNode, path: str) -> str:
    """Return a hint about the first part of a path that a config lacks."""
    node: Any = cfg
    for part in path.split("."):
        if not isinstance(node, dict) or part not in node:
            return nearest(part, node) if isinstance(node, dict) else ""
        node = node[part]
    return ""
