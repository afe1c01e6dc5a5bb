"""Identity of a detector: its config, kept in OUTPUT_DIR and compared on --resume."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from kd_core.errors import UserError
from kd_core.experiment import identity
from kd_core.experiment.differences import differences, digest, flat, refuse, with_contents
from kd_core.experiment.results import FILE as RESULT
from kd_core.experiment.results import read_result
from kd_core.files import checkpoint

from kd_det.config import teacher_config
from kd_det.data.unlabelled import unlabelled_mark
from kd_det.lazy.files import lazy_of
from kd_det.resume.last_checkpoint import read_last

LENGTH = "SOLVER.MAX_ITER"
MAY_DIFFER = (
    "OUTPUT_DIR",
    "MODEL.DEVICE",
    "DATALOADER.NUM_WORKERS",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_PERIOD",
    "VIS_PERIOD",
    "VERSION",
    "KD.WORKER_TIMEOUT",
    "KD.ACTIVATION_CHECKPOINTING",  # they compute the same again
)
"""Keys that cannot change the trained detector, also of the teacher. All others count."""

_TEACHER = "KD.TEACHER.CONFIG."


def recorded(cfg: CfgNode) -> dict[str, Any]:
    """Return the identity of a detector in JSON types: the config with the contents of its files.

    The teacher's YAML is replaced by its contents; data sets count by their JSON files.
    """
    config: dict[str, Any] = with_contents(_whole(cfg))
    if cfg.KD.TERMS and not cfg.KD.TEACHER.NETWORK:  # of a network, the keys say all
        config["KD"]["TEACHER"]["CONFIG"] = with_contents(_whole(teacher_config(cfg)))
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    files = {
        name: unlabelled_mark(name) or getattr(MetadataCatalog.get(name), "json_file", None)
        for name in names
    }
    return {**config, "seed": cfg.SEED, "annotations": with_contents(files)}


def check(cfg: CfgNode, remedy: str = "name another OUTPUT_DIR, or the old values") -> None:
    """Reject an OUTPUT_DIR of another config; MAX_ITER may have grown.

    Args:
        cfg: The config of this run.
        remedy: What the user can do.

    Raises:
        UserError: If keys that count differ, or MAX_ITER is below the iterations trained.
    """
    folder, asked = Path(cfg.OUTPUT_DIR), recorded(cfg)
    kept = identity.read(folder)
    if kept is None:
        if (folder / "last_checkpoint").exists():
            raise UserError(
                f"OUTPUT_DIR {str(folder)!r} has checkpoints, but no {identity.FILE} with "
                "their config, like runs of older versions; start again in another folder, with "
                "MODEL.WEIGHTS if you like"
            )
        return
    found = differences(kept["config"], asked, _may_differ)
    length = found.pop(LENGTH, None)
    refuse(folder, _terms_first(found, kept["config"], asked), remedy)
    if length:
        _check_length(folder, cfg.SOLVER.MAX_ITER)


def check_model(cfg: CfgNode) -> None:
    """Reject an evaluation of a folder's checkpoint as another detector than was trained there.

    What only a prediction depends on, such as `MODEL.ROI_HEADS.SCORE_THRESH_TEST`, may differ.

    Raises:
        UserError: If the model's keys differ.
    """
    folder = Path(cfg.OUTPUT_DIR)
    kept = identity.read(folder)
    if kept is None:
        return
    found = differences(kept["config"], with_contents(_whole(cfg)), _not_of_model)
    refuse(folder, found, "evaluate it with its own config, or name its file as MODEL.WEIGHTS")


def keep(cfg: CfgNode) -> None:
    """Write the identity of a detector, before it is trained; call `check` first."""
    identity.keep(Path(cfg.OUTPUT_DIR), recorded(cfg), {"task": "det"})


def digest_of(cfg: CfgNode) -> str:
    """Return a short hash of the identity of a config."""
    counts = {path: leaf for path, leaf in flat(recorded(cfg)).items() if not _may_differ(path)}
    return digest(counts)


def finished(cfg: CfgNode, weights: str = "model_final.pth") -> dict[str, Any] | None:
    """Return the result of a config in its OUTPUT_DIR, or None if it has none yet.

    Raises:
        UserError: If the folder is of another config, is damaged, or lacks its weights.
    """
    folder = Path(cfg.OUTPUT_DIR)
    remedy = f"move {folder} elsewhere, and it is created again"
    check(cfg, remedy)
    if not (folder / RESULT).is_file():
        return None
    result = read_result(folder)
    if result["last"].get("iteration") != cfg.SOLVER.MAX_ITER:
        return None  # it is resumed for more
    if result.get("made_by") != digest_of(cfg):
        raise UserError(f"{folder / RESULT} is not of the run in its folder; {remedy}")
    if not (folder / weights).is_file():
        raise UserError(f"{folder} is finished, but its {weights} is missing; {remedy}")
    return result


def _may_differ(path: str) -> bool:
    return path.removeprefix(_TEACHER) in MAY_DIFFER


def _not_of_model(path: str) -> bool:
    of_model = path.startswith(("MODEL.", "LAZY.model.")) or path == "INPUT.FORMAT"
    return not of_model or path in (*MAY_DIFFER, "MODEL.WEIGHTS") or "_TEST" in path


def _terms_first(
    found: Mapping[str, str], kept: Mapping[str, Any], asked: Mapping[str, Any]
) -> dict[str, str]:
    """Return differences with those of the terms first; a whole term is named, not its keys."""
    there, here = (set(config.get("KD", {}).get("TERMS", {})) for config in (kept, asked))
    changed = dict(sorted(found.items(), key=lambda pair: not pair[0].startswith("KD.TERMS.")))
    if there == here:
        return changed
    whole = tuple(f"KD.TERMS.{name}." for name in there ^ here)
    whole += () if there and here else ("KD.TEACHER.",)
    names = [", ".join(sorted(names)) or "empty" for names in (there, here)]
    rest = {path: text for path, text in changed.items() if not path.startswith(whole)}
    return {"KD.TERMS": f"KD.TERMS is {names[0]} there and {names[1]} here", **rest}


def _check_length(folder: Path, asked: int) -> None:
    """Reject a MAX_ITER below the iteration that was reached."""
    if not (folder / "last_checkpoint").exists():
        return
    state = checkpoint.load(read_last(folder))
    done = state.get("iteration")
    if not isinstance(done, int) or asked <= done:
        trained = done + 1 if isinstance(done, int) else "an unknown number of"
        raise UserError(
            f"{LENGTH} is {asked}, but {folder} has trained for {trained} iterations; set that or "
            "more, or another OUTPUT_DIR"
        )


def _whole(cfg: CfgNode) -> dict[str, Any]:
    """Return a config in plain types, with the LazyConfig that it stands for."""
    lazy = lazy_of(cfg)
    return {**_plain(cfg), **({"LAZY": lazy.identity()} if lazy else {})}


def _plain(value: Any) -> Any:
    """Return a config node as dicts, lists and texts."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
