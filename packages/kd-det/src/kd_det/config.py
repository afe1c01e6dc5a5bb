"""A Detectron2 config with the KD node: read strictly, and that of its teacher."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from kd_core.errors import UserError, located, nearest
from kd_core.files.weight_files import main_file, split_choice

from kd_det.anchors_text import without_expressions
from kd_det.imports import default_config
from kd_det.keys import remember, teacher_defaults
from kd_det.zoo import find_config


def add_kd_config(cfg: CfgNode) -> None:
    """Add the KD node to a Detectron2 config, without a teacher and without terms.

    `KD.TERMS.<name>` has CRITERION (an import path) and, if the defaults do not suit, ARGS (its
    constructor's arguments), STUDENT and TEACHER (taps; `@fpn`, all maps of the FPN, by default),
    WEIGHT and WARMUP_ITERS. The loss is logged as `loss_<name>`.

    Call it before anything is merged: keys of your own then have their defaults in the teacher's
    config too.
    """
    remember(cfg)
    cfg.KD = CfgNode()
    cfg.KD.TEACHER = CfgNode()
    cfg.KD.TEACHER.CONFIG = ""  # YAML, relative to the working directory
    cfg.KD.TEACHER.WEIGHTS = ""  # .pth or .pkl of a whole detector; `random` leaves it untrained
    cfg.KD.TEACHER.OPTS = []  # KEY VALUE pairs that change the teacher's config
    cfg.KD.TERMS = CfgNode(new_allowed=True)
    # Seconds after which a data worker without a batch counts as lost; 0 waits forever
    cfg.KD.WORKER_TIMEOUT = 300.0
    cfg.KD.TASK_WEIGHT = 1.0  # factor of the detector's own losses
    # Prefixes of weights that are copied from the teacher at the start: head., backbone.fpn_output
    cfg.KD.INHERIT = []


def read_config(
    file: str | Path, options: Sequence[str] = (), *, defaults: CfgNode | None = None
) -> CfgNode:
    """Read a YAML file over defaults and the KD node's, then KEY VALUE options.

    `KD.TEACHER.CONFIG` may be relative to the YAML file; it becomes an absolute path.

    Args:
        file: A path, or a name of Detectron2's model zoo.
        options: Pairs that change the config.
        defaults: By default Detectron2's, with the keys of imported modules. It is changed.

    Raises:
        UserError: If a file is missing or unsafe, or a key does not exist or has another type.
    """
    path = find_config(str(file))
    cfg = default_config() if defaults is None else defaults
    add_kd_config(cfg)
    if path.suffix == ".py":
        raise UserError(f"{file}: a config of detection is a YAML file, such as configs/det/*.yaml")
    _check_bases(path, ())
    _merge(cfg, str(file), lambda: cfg.merge_from_file(str(path), allow_unsafe=False))
    _merge(cfg, "options", lambda: cfg.merge_from_list(list(options)))
    beside = path.parent / Path(cfg.KD.TEACHER.CONFIG).expanduser()
    if cfg.KD.TEACHER.CONFIG and beside.is_file():
        cfg.KD.TEACHER.CONFIG = str(beside.resolve())
    return cfg


def teacher_config(cfg: CfgNode) -> CfgNode:
    """Return the teacher's config, on the student's device.

    It starts from Detectron2's defaults, and from those of the keys that the student's config has
    beside them; see `kd_det.keys`.

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
    with located("KD.TEACHER.CONFIG"):
        try:
            teacher = read_config(node.CONFIG, node.OPTS, defaults=teacher_defaults(cfg))
        except UnknownKeyError as error:
            if not _has(cfg, error.key):
                raise
            raise UserError(
                f"{error}; the student's config has it, but its default is not known: call "
                "add_kd_config(cfg) right after get_cfg()"
            ) from error
    teacher.MODEL.DEVICE = cfg.MODEL.DEVICE
    return teacher


def check_teacher(cfg: CfgNode) -> None:
    """Reject a teacher whose config is wrong or whose weights are missing, before any work.

    Raises:
        UserError: See `teacher_config`; or if there is no such file of weights.
    """
    teacher_config(cfg)
    weights = cfg.KD.TEACHER.WEIGHTS
    if weights != "random" and "://" not in weights:
        with located("KD.TEACHER.WEIGHTS"):
            main_file(split_choice(weights)[0])


class UnknownKeyError(UserError):
    """A file or an option has a key that the config does not have."""

    key = ""


def _check_bases(file: Path, above: tuple[Path, ...]) -> None:
    """Reject a `_BASE_` that is not a local file: Detectron2 would wait at a pipe, or download."""
    try:
        node = yaml.safe_load(without_expressions(file.read_text(encoding="utf-8")))
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
            unknown = UnknownKeyError(f"{where}: no key {match[1]}{_nearest_key(cfg, match[1])}")
            unknown.key = match[1]
            raise unknown from error
        raise UserError(f"{where}: {text}") from error


def _nearest_key(cfg: CfgNode, path: str) -> str:
    """Return a hint about the first part of a path that a config lacks."""
    node: Any = cfg
    for part in path.split("."):
        if not isinstance(node, dict) or part not in node:
            return nearest(part, node) if isinstance(node, dict) else ""
        node = node[part]
    return ""


def _has(cfg: CfgNode, path: str) -> bool:
    node: Any = cfg
    for part in path.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True
