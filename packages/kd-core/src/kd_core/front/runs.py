"""What the files of a run say of it; nothing of it is called, or shown without its checksum."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kd_core.errors import UserError
from kd_core.experiment import identity
from kd_core.experiment.differences import digest, flat
from kd_core.experiment.results import FILE as RESULT
from kd_core.experiment.results import read_history
from kd_core.files import checkpoint
from kd_core.files.claim import is_claimed
from kd_core.runtime.console import in_one_line
from kd_core.training.resuming.forms import is_number

LOG = "log.jsonl"
BESIDE = (RESULT, "last.pth", "last_checkpoint", LOG)
"""Files beside a run's `config.json`."""

_LENGTHS = ("trainer.epochs", "SOLVER.MAX_ITER")
_BOX_AP = "bbox/AP"  # of a detector, whose result names no metric


@dataclass(frozen=True)
class Run:
    """A run with one seed.

    Attributes:
        folder: Where it is.
        task: "cls", "det", "reid"; None if its files do not say.
        terms: What the student learns from teachers, by the names of the config.
        seed: Of the run.
        state: "finished", "running", "stopped" or "damaged".
        done: Epochs, of a detector iterations; None where nothing is written yet.
        of: Those that the config wants.
        metric: Its name.
        last: Of the last epoch that was evaluated.
        best: Of the best one.
        date: When its newest file was written, in ISO 8601.
        problem: What is damaged.
        key: Hash of the config without the seed.
    """

    folder: str
    task: str | None = None
    terms: tuple[str, ...] = ()
    seed: int | None = None
    state: str = "damaged"
    done: int | None = None
    of: int | None = None
    metric: str | None = None
    last: float | None = None
    best: float | None = None
    date: str = ""
    problem: str | None = None
    key: str = ""


def read_run(folder: Path) -> Run:
    """Return what the files of a run say; of one with damaged files, what is wrong."""
    date = _date(folder)
    try:
        return _read(folder, date)
    except UserError as error:
        return Run(str(folder), date=date, problem=str(error))
    except RecursionError:
        problem = f"{folder / identity.FILE}: damaged (too many levels)"
        return Run(str(folder), date=date, problem=problem)


def _read(folder: Path, date: str) -> Run:
    kept = identity.read(folder) or {}
    config = kept["config"]
    result = _result(folder, kept)
    leaves = flat(config)
    wanted = next((leaves[name] for name in _LENGTHS if _is_count(leaves.get(name))), None)
    done = result.get("stopped_in_epoch", result.get("epochs", result.get("iterations")))
    finished = bool(result) and (done == wanted or "stopped_in_epoch" in result)
    if finished:
        scores = _scores(result)
    else:
        done, scores = _so_far(folder, kept.get("metric"))
    owned = not finished and any(map(is_claimed, (folder, folder.parent)))
    return Run(
        str(folder),
        task=_name(kept.get("task")),
        terms=_terms(config),
        seed=config["seed"] if _is_count(config.get("seed")) else None,
        state="finished" if finished else "running" if owned else "stopped",
        done=done if _is_count(done) else None,
        of=wanted,
        **scores,
        date=date,
        key=digest({name: value for name, value in config.items() if name != "seed"}),
    )


def _result(folder: Path, kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result that is of this config; empty if there is none."""
    if not (folder / RESULT).is_file():
        return {}
    result = checkpoint.load_json(folder / RESULT)
    is_detector = "iterations" in result or "SOLVER" in kept["config"]  # hashed in another way
    if not is_detector and result.get("made_by") != identity.digest_of(folder):
        raise UserError(f"{folder / RESULT} is not of the run that {identity.FILE} describes")
    return result


def _scores(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metric of a result with its last and best value."""
    last, best = (result.get(name) for name in ("last", "best"))
    metric = _name(result.get("metric"))
    if metric is None and isinstance(last, Mapping) and _BOX_AP in last:
        metric = _BOX_AP
    return {"metric": metric, "last": _number(last, metric), "best": _number(best, metric)}


def _so_far(folder: Path, metric: object) -> tuple[int | None, dict[str, Any]]:
    """Return the epochs that a log has, and the scores in it."""
    name = _name(metric)
    if not (folder / LOG).is_file():
        return None, {"metric": name}
    if (folder / LOG).stat().st_size == 0:
        return 0, {"metric": name}  # no epoch has ended
    history = read_history(folder)
    values = [
        value
        for record in history
        for key in (name, f"val_{name}")
        if (value := _number(record, key)) is not None
    ]
    found = {"last": values[-1], "best": max(values)} if values else {}
    return history[-1]["epoch"], {"metric": name, **found}


def _terms(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of terms: of a config, or of a detector's."""
    for parent, child in (("distiller", "terms"), ("KD", "TERMS")):
        terms = config.get(parent)
        terms = terms.get(child) if isinstance(terms, Mapping) else None
        if isinstance(terms, Mapping):
            return tuple(in_one_line(str(name)) for name in terms)
    return ()


def _number(scores: object, name: str | None) -> float | None:
    value = scores.get(name) if isinstance(scores, Mapping) else None
    return value if is_number(value) else None


def _name(value: object) -> str | None:
    return in_one_line(value) if isinstance(value, str) else None


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _date(folder: Path) -> str:
    """Return when the newest of a run's files was written; empty if it is gone."""
    times = []
    for name in (identity.FILE, *BESIDE):
        with suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return datetime.fromtimestamp(max(times)).isoformat(timespec="seconds") if times else ""
