"""Runs killed at random moments, or on a full disk: all end like one that is undisturbed."""

import math
from pathlib import Path
from random import Random

from fault_place import NOT_CAUGHT, Need, Outcome, Place, Trial, resumed, undisturbed
from fault_process import Child, run
from fault_runs import CLASSIFICATION, DETECTION, REID, RUNS, Run

TWICE = 3  # one in so many runs is killed again after it resumes
SMALLEST = 100  # bytes of a file on a full disk
FULL = "full disks"
RUNS_OF = {
    "kills, classification": list(CLASSIFICATION),
    "kills, re-ID": list(REID),
    "kills, detection": list(DETECTION),
    FULL: [
        "KD",
        "teacher by recipe",
        "teacher cache",
        "RetinaNet, CrossKD",
        "seeds",
        "image files, decoded, a worker",
        "comparison",
        "re-ID, BNNeck and triplets",
        "shared phase",
        "validation split, TensorBoard",
    ],
}
"""By kind, the runs that its trials disturb in turns."""


def run_of(trial: Trial) -> str:
    """Return the name of the run that a trial disturbs."""
    names = RUNS_OF[trial.kind]
    return names[trial.number % len(names)]


def needs(trial: Trial) -> list[Need]:
    """Return what a trial starts from."""
    name = run_of(trial)
    return [undisturbed(name, RUNS[name].command)]


def kill(trial: Trial, place: Place, folder: Path) -> Outcome:
    """Kill a run once or twice, at moments drawn over its whole length, and let it end."""
    name, rng = run_of(trial), trial.rng()
    training, reference = RUNS[name], place.reference(name)
    moments = [_killed(training, place, folder, rng, reference.seconds)]
    if rng.randrange(TWICE) == 0:
        moment = rng.uniform(0, reference.seconds)
        child = Child(training.resumed, folder)
        if child.wait(moment) is None and child.kill().status < 0:
            moments.append(moment)
    came = resumed(training, folder, reference)
    when = " and ".join(f"{moment:.2f}" for moment in moments)
    what = f"{name}: killed after {when} of {reference.seconds:.2f} s"
    return Outcome(what, not came, came or "equal")


def fill(trial: Trial, place: Place, folder: Path) -> Outcome:
    """Let no file of a run grow beyond a random size; then resume without that limit."""
    name, rng = run_of(trial), trial.rng()
    training, reference = RUNS[name], place.reference(name)
    largest = max(file.stat().st_size for file in place.kept(name).rglob("*") if file.is_file())
    limit = int(math.exp(rng.uniform(math.log(SMALLEST), math.log(0.9 * largest))))
    what = f"{name}: no file above {limit:,} of {largest:,} bytes"
    ended = run(training.command, folder, largest_file=limit)
    if not ended.error:
        return Outcome(what, False, ended.said)
    came = resumed(training, folder, reference)
    return Outcome(what, not came, f"{ended.error} Resumed: {came or 'equal'}")


def _killed(training: Run, place: Place, folder: Path, rng: Random, seconds: float) -> float:
    """Start a run and kill it; return when. One that ended before that is started again."""
    for _ in range(NOT_CAUGHT):
        moment = rng.uniform(0, seconds)
        child = Child(training.command, folder)
        if child.wait(moment) is None and child.kill().status < 0:
            return moment
        place.new(folder.name)
        seconds *= 0.9
    raise AssertionError(f"not caught in {NOT_CAUGHT} tries: {training.command}")
