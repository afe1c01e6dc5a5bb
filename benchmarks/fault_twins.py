"""Two identical commands, started together or soon after one another: no result lost or mixed."""

import time
from pathlib import Path

from fault_place import Need, Outcome, Place, Reference, Trial, undisturbed
from fault_process import LONGEST, Child, Command, Ended
from fault_runs import TWINS
from fault_state import State, difference, state_of

DELAYS = (0.0, 0.5, 2.0)  # seconds
KIND = "two at once"


def run_of(trial: Trial) -> str:
    """Return the name of the command that a trial starts twice."""
    return list(TWINS)[trial.number // len(DELAYS) % len(TWINS)]


def needs(trial: Trial) -> list[Need]:
    """Return what a trial starts from."""
    name = run_of(trial)
    return [undisturbed(_kept(name), TWINS[name])]


def _kept(name: str) -> str:
    return f"twins {name}"


def start_two(trial: Trial, place: Place, folder: Path) -> Outcome:
    """Start a command twice, the second some time after the first."""
    name, delay = run_of(trial), DELAYS[trial.number % len(DELAYS)]
    twin, reference = TWINS[name], place.reference(_kept(name))
    ended = both(twin, folder, delay)
    resumes = "--resume" in twin.arguments or twin.tool == "cls_compare"
    folders = None if "run" not in twin.arguments else 2 if resumes else 1
    came = unlike(ended, state_of(folder), reference, most_in_one=folders)
    said = "; ".join(one.error or f"status {one.status}" for one in ended)
    return Outcome(f"{name}, {delay} s apart", not came, came or said)


def both(command: Command, folder: Path, delay: float) -> list[Ended]:
    """Run a command twice; return how both ended."""
    children = [Child(command, folder)]
    children[0].wait(delay)
    children.append(Child(command, folder))
    deadline = time.monotonic() + LONGEST
    while any([child.wait(0.02) is None for child in children]) and time.monotonic() < deadline:
        pass
    return [child.kill() for child in children]


def unlike(
    ended: list[Ended], found: State, reference: Reference, *, most_in_one: int | None = None
) -> str:
    """Return "" if every run that ended well left what the undisturbed one left, or what is wrong.

    Args:
        ended: How both ended.
        found: What they left.
        reference: What one left, undisturbed.
        most_in_one: Where both were given the same folder, how many may end well; else every one
            has a folder of its own.
    """
    for one in ended:
        if one.status and not one.error:
            return one.said
    good = sum(one.status == 0 for one in ended)
    if not good:
        return f"both refused: {ended[0].error}"
    (own,) = {run_folder(path) for path in reference.state} - {""}
    wanted = part(reference.state, own)
    folders = {run_folder(path) for path in found} - {""}
    if len(folders) != (1 if most_in_one else good) or good > (most_in_one or good):
        return f"{good} ended well, but there are the folders {sorted(folders)}"
    for run in folders:
        if wrong := difference(wanted, part(found, run)):
            return f"{run}: {wrong}"
    return difference(part(reference.state, ""), part(found, ""))


def run_folder(path: str) -> str:
    """Return the folder of the run that a path lies in, "" for what runs share."""
    first, *inner = path.split("/")
    if first != "runs" or not inner:
        return "run" if first == "run" else ""
    return "" if inner[0] == "teachers" or len(inner) < 2 else f"runs/{inner[0]}"


def part(state: State, run: str) -> State:
    """Return the state of one run's folder, or of what runs share, by paths inside it."""
    return {path.removeprefix(run): v for path, v in state.items() if run_folder(path) == run}
