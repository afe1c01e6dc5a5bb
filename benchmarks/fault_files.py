"""Files with a flipped bit, or cut short: refused in one line, or without effect."""

import shutil
from pathlib import Path
from random import Random

from fault_place import Need, Outcome, Place, Reference, Trial, compared, undisturbed
from fault_process import Ended, run
from fault_targets import TARGETS, Target

FLIP, CUT = "flipped bits", "cut files"


def target_of(trial: Trial) -> Target:
    """Return what a trial breaks: all take turns."""
    return TARGETS[trial.number % len(TARGETS)]


def needs(trial: Trial) -> list[Need]:
    """Return what a trial starts from: the situation, and what its command does undamaged."""
    target = target_of(trial)
    read = undisturbed(target.name, target.reads, target.situation.copy, phase=1)
    return [target.situation.need, read]


def damage(trial: Trial, place: Place, folder: Path) -> Outcome:
    """Break a file, and run what reads it."""
    target, rng = target_of(trial), trial.rng()
    reference = place.reference(target.name)
    target.situation.copy(place, folder)
    files = sorted(folder.glob(target.pattern))
    if not files:
        return Outcome(f"{target.situation.run}: {target.pattern}", False, "there is no such file")
    file = rng.choice(files)
    change = (_flip if trial.kind == FLIP else _cut)(file, rng)
    what = f"{target.situation.name}: {file.relative_to(folder)}, {change}"
    ended = run(target.reads, folder)
    if ended.status == 0:
        came = unlike(ended, folder, reference, file)
        return Outcome(what, not came, came or "without effect")
    if file.name not in ended.error and file.parent.name not in ended.error:
        return Outcome(what, False, ended.said)
    came = "" if trial.kind == FLIP else deleted(target, file, folder, reference)
    return Outcome(what, not came, f"{ended.error} {came}".rstrip())


def deleted(target: Target, file: Path, folder: Path, reference: Reference) -> str:
    """Delete a file, else the folders it is in, and do all again; return "" if it ends undisturbed.

    What is printed does not count: a run that restarts evaluates once more.
    """
    came = ""
    top = (folder, folder / "teachers")
    for gone in (file, *(parent for parent in file.parents if folder in parent.parents)):
        if gone in top or not gone.exists():
            continue
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
        run(target.situation.training.resumed, folder)
        came = compared(run(target.reads, folder), folder, reference)
        if not came:
            break
    return came and f"Deleted, and run again: {came}"


def unlike(ended: Ended, folder: Path, reference: Reference, file: Path) -> str:
    """Return "" if a command left and said what the undisturbed one did, or what is wrong.

    A damaged file of a teacher that the command did not need may stay as it is; one of the run not.
    """
    path = file.relative_to(folder).as_posix()
    wrong = compared(ended, folder, reference, but="" if path.startswith("run/") else path)
    same = timeless(ended.out) == timeless(reference.out)
    return wrong or ("" if same else "without a word: it printed otherwise")


def timeless(out: str) -> str:
    """Return what was printed; of Detectron2, whose lines begin with the time, the scores alone."""
    scores = [text for line in out.splitlines() if (text := line.partition(" copypaste: ")[2])]
    return "\n".join(scores) or out


def _flip(file: Path, rng: Random) -> str:
    """Flip one bit; where most of a file is empty, of a byte that is not."""
    contents = bytearray(file.read_bytes())
    full = [place for place, byte in enumerate(contents) if byte]
    place = rng.choice(full) if 2 * len(full) < len(contents) else rng.randrange(len(contents))
    bit = rng.randrange(8)
    contents[place] ^= 1 << bit
    _overwrite(file, contents)
    return f"bit {bit} of byte {place:,} of {len(contents):,}"


def _cut(file: Path, rng: Random) -> str:
    contents = file.read_bytes()
    length = rng.randrange(len(contents))
    _overwrite(file, contents[:length])
    return f"the first {length:,} of {len(contents):,} bytes"


def _overwrite(file: Path, contents: bytes) -> None:
    file.chmod(0o644)
    file.write_bytes(contents)
