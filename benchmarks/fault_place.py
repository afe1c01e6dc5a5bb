"""Where the campaign works: a folder for every trial, and what undisturbed runs left."""

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

from fault_process import Child, Command, Ended, run
from fault_runs import Run
from fault_state import State, difference, state_of

NOT_CAUGHT = 20  # tries to kill a run in time


class CampaignError(Exception):
    """The campaign itself cannot work: an undisturbed run fails."""


@dataclass(frozen=True)
class Trial:
    """One try: all that it does follows from these.

    Args:
        kind: What is done to a run.
        number: Among those of its kind.
        seed: Of the campaign.
    """

    kind: str
    number: int
    seed: int

    def rng(self) -> Random:
        """Return the source of the trial's choices."""
        return Random(f"{self.seed} {self.kind} {self.number}")


@dataclass
class Outcome:
    """What came of a trial.

    Args:
        what: Was done.
        held: Whether the promise was kept.
        came: What the tool did.
    """

    what: str
    held: bool
    came: str
    kind: str = ""
    number: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: what it left and said, and how long it took."""

    state: State
    out: str
    seconds: float


class Place:
    """The campaign's folder.

    Args:
        root: The folder; all in it is the campaign's.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def new(self, name: str) -> Path:
        """Return a new working folder that has the configs and images, and nothing else."""
        path = self.root / _slug(name)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        (path / "configs").symlink_to(self.root / "configs")
        return path

    def kept(self, name: str) -> Path:
        """Return where something that trials start from is kept."""
        return self.root / "kept" / _slug(name)

    def reference(self, name: str) -> Reference:
        """Return what is known of an undisturbed run."""
        return Reference(**json.loads(self.kept(name).with_suffix(".json").read_text("utf-8")))

    def remember(self, name: str, command: Command, start: "Start | None" = None) -> None:
        """Run a command undisturbed and keep what it left.

        Args:
            name: Under which it is kept.
            command: What is run.
            start: Fills the folder before.
        """
        path = self.kept(name)
        folder = self.new(f"making {name}")
        if start:
            start(self, folder)
        ended = run(command, folder)
        if ended.status:
            raise CampaignError(f"undisturbed, and yet failed: {command}\n{ended.err}")
        found = Reference(state_of(folder), ended.out, ended.seconds)
        path.parent.mkdir(exist_ok=True)
        folder.rename(path)
        path.with_suffix(".json").write_text(json.dumps(asdict(found)))

    def interrupt(self, name: str, training: Run, sign: str) -> None:
        """Kill a run when a file matches `sign`, and keep what it has left by then."""
        path = self.kept(name)
        for _ in range(NOT_CAUGHT):
            folder = self.new(f"making {name}")
            child = Child(training.command, folder)
            while not list(folder.glob(sign)) and child.wait(0.002) is None:
                pass
            if child.kill().status < 0:
                path.parent.mkdir(exist_ok=True)
                folder.rename(path)
                return
        raise CampaignError(f"{name}: {sign} did not appear in time: {training.command}")


Start = Callable[[Place, Path], None]
"""Fills a working folder before a command runs in it."""


def copy(source: Path, target: Path) -> None:
    """Copy what a working folder has, with its times, into another, whose configs are the same."""
    leave = shutil.ignore_patterns("configs")
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=leave)


Do = Callable[[Trial, Place, Path], Outcome]
"""Does a trial in a folder of its own, which is empty but for the configs."""


class Need(NamedTuple):
    """What trials start from, made once for all of them.

    Args:
        phase: Those of lower phases are made before.
        name: Under which it is kept.
        make: Makes it.
    """

    phase: int
    name: str
    make: Callable[[Place], None]


def undisturbed(name: str, command: Command, start: Start | None = None, *, phase: int = 0) -> Need:
    """Return the need of what an undisturbed command leaves; see `Place.remember`."""
    return Need(phase, name, partial(Place.remember, name=name, command=command, start=start))


def attempt(trial: Trial, do: Do, place: Place) -> Outcome:
    """Do a trial and note its kind and time; its folder stays if the promise was not kept."""
    began = time.monotonic()
    folder = place.new(f"{trial.kind} {trial.number}")
    try:
        outcome = do(trial, place, folder)
    except Exception as error:  # a trial that cannot be made is not one that held
        outcome = Outcome("the trial itself failed", False, repr(error))
    outcome.kind, outcome.number = trial.kind, trial.number
    outcome.seconds = round(time.monotonic() - began, 2)
    if outcome.held:
        shutil.rmtree(folder)
    return outcome


def resumed(training: Run, folder: Path, reference: Reference) -> str:
    """Resume a run to its end; return "" if it ended like the undisturbed one, or what came."""
    return compared(run(training.resumed, folder), folder, reference)


def _slug(name: str) -> str:
    """Return a name of a folder, short enough for any name."""
    text = re.sub(r"\W+", "-", name)
    return (
        text if len(text) < 50 else f"{text[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    )


def compared(ended: Ended, folder: Path, reference: Reference, *, but: str = "") -> str:
    """Return "" if a command ended well and left what the undisturbed one left, or what came.

    Args:
        ended: How it ended.
        folder: Where it ran.
        reference: What the undisturbed one left.
        but: Path of a file that does not count.
    """
    if ended.status:
        return ended.said
    states = reference.state, state_of(folder)
    expected, state = ({path: v for path, v in one.items() if path != but} for one in states)
    found = difference(expected, state)
    return f"without a word: {found}" if found else ""
