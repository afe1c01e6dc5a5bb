"""A Detectron2 config with the KD node: read strictly, and that of its teacher."""

from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from kd_core.config.trusted import trusted_names
from kd_core.errors import UserError, located, nearest
from kd_core.files.weight_files import main_file, split_choice

from kd_det.lazy.files import lazy_of
from kd_det.lazy.reading import read_lazy
from kd_det.settings.choices import check_pixels
from kd_det.settings.imports import default_config
from kd_det.settings.keys import remember, teacher_defaults
from kd_det.settings.merging import UnknownKeyError, has_key, merge
from kd_det.settings.yaml_text import read_mapping
from kd_det.settings.zoo import find_config, is_of_zoo
from kd_det.teachers.nodes import add_network_keys


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
    add_network_keys(cfg.KD.TEACHER)
    cfg.KD.TERMS = CfgNode(new_allowed=True)
    # Seconds after which a data worker without a batch counts as lost; 0 waits forever
    cfg.KD.WORKER_TIMEOUT = 300.0
    # Blocks of the student run again in the backward pass rather than keep their activations
    cfg.KD.ACTIVATION_CHECKPOINTING = False
    cfg.KD.TASK_WEIGHT = 1.0  # factor of the detector's own losses
    # Prefixes of weights that are copied from the teacher at the start: head., backbone.fpn_output
    cfg.KD.INHERIT = []


def read_config(
    file: str | Path, options: Sequence[str] = (), *, defaults: CfgNode | None = None
) -> CfgNode:
    """Read a YAML file, or a LazyConfig, over defaults and the KD node's, then KEY VALUE options.

    `KD.TEACHER.CONFIG` may be relative to the file; it becomes an absolute path.

    Args:
        file: A path, or a name of Detectron2's model zoo. A python file is run.
        options: Pairs that change the config.
        defaults: By default Detectron2's, with the keys of imported modules. It is changed.

    Raises:
        UserError: If a file is missing or unsafe, or a key does not exist or has another type.
    """
    path = find_config(str(file))
    cfg = default_config() if defaults is None else defaults
    add_kd_config(cfg)
    if path.suffix == ".py":
        read_lazy(cfg, str(path), options)
    else:
        _check_bases(path, ())
        merge(cfg, str(file), lambda: cfg.merge_from_file(str(path), allow_unsafe=False))
        merge(cfg, "options", lambda: cfg.merge_from_list(list(options)))
    beside = path.parent / Path(cfg.KD.TEACHER.CONFIG).expanduser()
    if cfg.KD.TEACHER.CONFIG and beside.is_file():
        cfg.KD.TEACHER.CONFIG = str(beside.resolve())
    return cfg


def teacher_config(cfg: CfgNode) -> CfgNode:
    """Return the teacher's config, on the student's device.

    It starts from Detectron2's defaults, and from those of the keys that the student's config has
    beside them; see `kd_det.settings.keys`.

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
        if lazy_of(cfg) is None:
            _require_data(node.CONFIG)
        try:
            teacher = read_config(node.CONFIG, node.OPTS, defaults=teacher_defaults(cfg))
        except UnknownKeyError as error:
            if not has_key(cfg, error.key):
                raise
            raise UserError(
                f"{error}; the student's config has it, but its default is not known: call "
                "add_kd_config(cfg) right after get_cfg()"
            ) from error
        check_pixels(teacher)
    teacher.MODEL.DEVICE = cfg.MODEL.DEVICE
    return teacher


def _require_data(name: str) -> None:
    """Reject a python file that a YAML file names, unless it is Detectron2's own or trusted."""
    path = find_config(name).resolve()
    trusted = {Path(one).expanduser().resolve() for one in trusted_names() if one.endswith(".py")}
    if path.suffix == ".py" and path not in trusted and not is_of_zoo(path):
        raise UserError(
            f"{name} is code, which is not run just because a config names it; if you trust its "
            f"author, add --trust {name}"
        )


def check_teacher(cfg: CfgNode) -> None:
    """Reject a teacher whose config is wrong or whose weights are missing, before any work.

    Raises:
        UserError: See `teacher_config`; or if there is no such file of weights.
    """
    if cfg.KD.TEACHER.NETWORK:  # see `kd_det.teachers.building.check_network`
        return
    teacher_config(cfg)
    weights = cfg.KD.TEACHER.WEIGHTS
    if weights != "random" and "://" not in weights:
        with located("KD.TEACHER.WEIGHTS"):
            main_file(split_choice(weights)[0])


def _check_bases(file: Path, above: tuple[Path, ...]) -> None:
    """Reject a `_BASE_` that is not a local file: Detectron2 would wait at a pipe, or download."""
    bases = read_mapping(file).get("_BASE_", [])
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
