"""Identity of a result: the config of its run, kept beside it and compared before reuse."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kd_core.errors import RunError, UserError
from kd_core.experiment.differences import EPOCHS, differences, digest, flat, moved, refuse
from kd_core.experiment.results import FILE as RESULT
from kd_core.experiment.results import REMEDY, read_result
from kd_core.files import checkpoint
from kd_core.runtime import distributed
from kd_core.runtime.console import err

FILE = "config.json"
_NOT_COMPARED = ("data", "task", "metric")
_TRACES = (RESULT, "last.pth", "config.py")


def read(folder: Path) -> dict[str, Any] | None:
    """Return the identity of a folder, as `keep` wrote it; None if it has no run.

    Raises:
        UserError: If the file is damaged, or missing beside a run.
    """
    file = folder / FILE
    if not file.is_file():
        if trace := next((name for name in _TRACES if (folder / name).exists()), None):
            raise UserError(
                f"{folder} has a {trace}, but no {FILE} with its config, like runs of older "
                "versions; start again in another folder"
            )
        return None
    remedy = "it has the config of the run; without it, start again in another folder"
    kept = checkpoint.load_json(file, remedy=remedy)
    if not isinstance(kept.get("config"), dict):
        raise UserError(f"{file}: damaged (it has no `config`); {remedy}")
    return kept


def check(
    folder: Path,
    config: Mapping[str, Any],
    remedy: str = "name another --work-dir, or the old values",
) -> bool:
    """Reject a folder of another config; return whether the data may have moved.

    The number of epochs may have grown: then the run resumes from its checkpoint.

    Args:
        folder: Of a run, a phase or a teacher; it need not exist.
        config: As `kd_core.experiment.differences.with_contents` returns it.
        remedy: What the user can do.

    Raises:
        UserError: If keys that count differ, fewer epochs are asked for than were trained, or the
            folder has no identity.
    """
    kept = read(folder)
    if kept is None:
        return False
    found, places = differences(kept["config"], config), moved(kept["config"], config)
    found = {path: text for path, text in found.items() if path not in places}
    epochs = found.pop(EPOCHS, None)
    refuse(folder, found, remedy)
    if epochs:
        _check_epochs(folder, flat(kept["config"]).get(EPOCHS), flat(config).get(EPOCHS))
    return bool(places)


def keep(folder: Path, config: Mapping[str, Any], about: Mapping[str, str] | None = None) -> None:
    """Write the identity of a folder, before anything else is in it; call `check` first.

    Args:
        folder: Of a run, a phase or a teacher.
        config: See `check`.
        about: What `kd list runs` shows besides: `task` and `metric`. It is not compared.
    """
    distributed.wait_for_all()  # all have checked
    if distributed.rank() == 0:
        kept = read(folder) or {}
        # The config of the start; a later one may contain defaults explicitly.
        made_by = _made_by(kept) if kept else digest(config)
        more = {name: kept[name] for name in _NOT_COMPARED if name in kept} | dict(about or {})
        now = {"kd": version("kd-core"), "made_by": made_by, "config": dict(config), **more}
        checkpoint.save_json(now, folder / FILE)
        before, after = (flat(each).get(EPOCHS) for each in (kept.get("config", {}), config))
        if before != after and (folder / "last.pth").is_file():
            err.print(
                f"{folder}: resumes for {after} epochs, started with {before}; the schedule is "
                f"that of {after} from here on, so the result is that of a run of {after} from the "
                "start only if both schedules agree so far, as constant ones do"
            )
    distributed.wait_for_all()


@contextmanager
def begun(
    folder: Path, config: Mapping[str, Any], about: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Write the identity of a folder, see `keep`, for the block that fills it.

    If the block fails before anything else is in the folder, the identity is removed too.
    """
    keep(folder, config, about)
    try:
        yield
    except UserError as error:
        if distributed.rank() == 0 and not isinstance(error, RunError):
            _forget(folder)
        raise


def finished(folder: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the result of a config in a folder, after `check`; None if it has none yet."""
    if not (folder / RESULT).is_file():
        return None
    result = read_result(folder)
    if result.get("epochs") != flat(config).get(EPOCHS):
        return None  # the run resumes for more
    if result.get("made_by") != digest_of(folder):
        raise UserError(
            f"{folder / RESULT} is not of the run that {FILE} beside it describes; {REMEDY}"
        )
    return result


def digest_of(folder: Path) -> str | None:
    """Return a short hash of a folder's identity; None if it has none."""
    kept = read(folder)
    return None if kept is None else _made_by(kept)


def check_config_of_all(config: Mapping[str, Any]) -> None:
    """Reject processes that were started with different configs; the place of data may differ.

    Args:
        config: See `check`.

    Raises:
        UserError: Names a process whose config is not that of the first, and a key.
    """
    if not distributed.is_distributed():
        return
    first, *others = distributed.values_of_all(config)
    for rank, its in enumerate(others, 1):
        places = moved(first, its)
        if found := [text for path, text in differences(first, its).items() if path not in places]:
            raise UserError(
                f"rank 0 and rank {rank} have different configs: {found[0]} (there is rank 0); "
                "start all processes by the same command"
            )


def check_data_of_all(fingerprint: str) -> None:
    """Reject processes that read different data, as of machines with copies of their own.

    Args:
        fingerprint: See `check_data`.

    Raises:
        UserError: Names a process whose data is not that of the first.
    """
    found = distributed.values_of_all(fingerprint)
    if apart := [rank for rank, its in enumerate(found) if its != found[0]]:
        raise UserError(
            f"rank {apart[0]} has other data than rank 0 ({len(apart):,} of {len(found):,} ranks "
            "have): labels, images or names of files; give every machine the same"
        )


def check_data(folder: Path, fingerprint: str) -> None:
    """Reject data other than that of the run's start; record it for a new run.

    Args:
        folder: Of the run.
        fingerprint: Of its data; see `kd_core.data.split_loader.data_fingerprint`.

    Raises:
        UserError: If the data is different.
    """
    kept = read(folder)
    if kept is None:
        return  # not a run of the tools
    if kept.get("data", fingerprint) != fingerprint:
        raise UserError(
            f"{folder} was made from other data: the config's `data` now has other "
            "labels, images or names of files; bring back the old data, or name another --work-dir"
        )
    distributed.wait_for_all()  # all have checked
    if distributed.rank() == 0 and "data" not in kept:
        checkpoint.save_json({**kept, "data": fingerprint}, folder / FILE)


def _made_by(kept: Mapping[str, Any]) -> str:
    return str(kept.get("made_by") or digest(kept["config"]))


def _forget(folder: Path) -> None:
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if names == {FILE}:
        (folder / FILE).unlink()
        with suppress(OSError):  # it is claimed, and goes with the claim
            folder.rmdir()


def _check_epochs(folder: Path, kept: Any, asked: Any) -> None:
    """Reject a number of epochs at or below the position of the training."""
    last, done = folder / "last.pth", (folder / RESULT).is_file()
    if done and read_result(folder).get("epochs") == asked:
        return
    if not last.is_file():
        if not done:
            return  # nothing was trained yet
        raise UserError(
            f"{folder} has no last.pth, from which it could resume for {asked} epochs; start again "
            "in another folder"
        )
    state = checkpoint.load(last)
    epoch, step = state.get("epoch"), state.get("step_in_epoch")
    if not (isinstance(epoch, int) and isinstance(asked, int) and epoch < asked):
        part = f" and {step} steps" if step else ""
        raise UserError(
            f"{EPOCHS} is {asked}, but {folder} has trained for {epoch} epochs{part}, started with "
            f"{kept}; set more than are trained, or {kept}, or another --work-dir"
        )
