"""The program broken on purpose: kills, flipped bits, cut files, full disks, hostile files, twins.

Tiny runs of every task are disturbed at random, in processes of their own, and what they leave is
compared with what undisturbed runs left, bit for bit; docs/faults.md says what is promised. All
choices follow from the seed (but not the moment at which a process is where). Prints how many of
each kind were tried and how many held; exits with 1 if one did not.

python benchmarks/faults.py --out faults.json                    # all of it, on two cores
python benchmarks/faults.py --only "flipped bits" --scale 0.1    # a tenth of one kind
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import fault_files
import fault_hostile
import fault_kills
import fault_twins
import torch
from fault_place import CampaignError, Do, Need, Outcome, Place, Trial, attempt
from fault_process import preload, run
from fault_table import report, table, write_into
from kd_core.experiment.report import environment
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Kind(NamedTuple):
    """A kind of trial: how many are in a whole campaign, what does one, and what that needs."""

    count: int
    do: Do
    needs: Callable[[Trial], list[Need]]


_KILL = fault_kills.kill, fault_kills.needs
_DAMAGE = fault_files.damage, fault_files.needs
_GIVE = fault_hostile.give, fault_hostile.needs
KINDS = {
    "kills, classification": Kind(60, *_KILL),
    "kills, re-ID": Kind(20, *_KILL),
    "kills, detection": Kind(20, *_KILL),
    fault_files.FLIP: Kind(50, *_DAMAGE),
    fault_files.CUT: Kind(25, *_DAMAGE),
    fault_kills.FULL: Kind(10, fault_kills.fill, fault_kills.needs),
    **{f"{fault_hostile.PREFIX}{kind}": Kind(30, *_GIVE) for kind in fault_hostile.COMMANDS},
    fault_twins.KIND: Kind(30, fault_twins.start_two, fault_twins.needs),
}
PHASES = ("undisturbed runs", "undisturbed reading")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaign; return the exit status."""
    args = parse(argv)
    began = time.monotonic()
    folder = Path(args.work_dir or tempfile.mkdtemp(prefix="faults-"))
    if folder.exists() and any(folder.iterdir()):
        print(f"error: --work-dir {folder} is not empty; name a new folder", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    preload()
    trials = chosen(args)
    try:
        outcomes = campaign(trials, Place(folder), args.jobs)
    except CampaignError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    minutes = round((time.monotonic() - began) / 60, 1)
    facts = {"seed": args.seed, "scale": args.scale, "jobs": args.jobs, "minutes": minutes}
    found = report(outcomes, environment(torch.device("cpu")), **facts)
    out = Path(args.out or folder / "faults.json")
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))
    if args.markdown:
        write_into(Path(args.markdown), table(found))
    for outcome in outcomes:
        if not outcome.held:
            place = f"{outcome.kind} {outcome.number}"
            print(f"NOT HELD: {place}: {outcome.what}: {outcome.came}", file=sys.stderr)
    print(
        f"every trial is in {out}; folders of those that did not hold in {folder}", file=sys.stderr
    )
    return int(not all(outcome.held for outcome in outcomes))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the trials of each kind")
    parser.add_argument("--numbers", nargs="+", type=int, help="these trials alone, to repeat them")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time")
    parser.add_argument("--work-dir", help="new folder; by default a temporary one")
    parser.add_argument("--out", help="JSON file of every trial")
    parser.add_argument("--markdown", help="page whose table is replaced by this run's")
    return parser.parse_args(argv)


def chosen(args: argparse.Namespace) -> list[Trial]:
    """Return the trials that are asked for, at least one of each kind."""
    trials = []
    for kind in args.only:
        count = max(1, round(KINDS[kind].count * args.scale))
        numbers = range(count) if args.numbers is None else args.numbers
        trials += [Trial(kind, number, args.seed) for number in numbers]
    return trials


def campaign(trials: Sequence[Trial], place: Place, jobs: int) -> list[Outcome]:
    """Prepare what the trials start from, and do them; return their outcomes in order."""
    made = run(partial(_make, place.root / "configs"), place.root)
    if made.status:
        raise CampaignError(made.err)
    wanted = {need.name: need for trial in trials for need in KINDS[trial.kind].needs(trial)}
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork")) as pool:
        for phase, title in enumerate(PHASES):
            needs = [need for need in wanted.values() if need.phase == phase]
            list(shown(pool, title, [partial(need.make, place) for need in needs]))
        attempts = [partial(attempt, trial, KINDS[trial.kind].do, place) for trial in trials]
        outcomes = list(shown(pool, "trials", attempts))
    order = {kind: number for number, kind in enumerate(KINDS)}
    return sorted(outcomes, key=lambda outcome: (order[outcome.kind], outcome.number))


def shown(pool: Executor, title: str, jobs: Sequence[Callable[[], Any]]) -> Iterator[Any]:
    """Do jobs, yield their results as they come, and show how many are done and the time left."""
    waiting = [pool.submit(job) for job in jobs]
    times = TimeElapsedColumn(), TimeRemainingColumn()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *times
    console, began = Console(stderr=True), time.monotonic()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=len(waiting))
        try:
            for number, done in enumerate(as_completed(waiting), start=1):
                yield done.result()
                bar.advance(task)
                if number % 10 == 0 and not console.is_terminal:  # where a bar is not shown
                    left = (time.monotonic() - began) * (len(waiting) / number - 1)
                    print(
                        f"{title}: {number} of {len(waiting)}, {left:.0f} s left", file=sys.stderr
                    )
        finally:
            for one in waiting:
                one.cancel()  # where one failed, the others are for nothing


def _make(folder: Path) -> int:
    from fault_materials import make  # only once everything is imported by `preload`

    return make(folder)


if __name__ == "__main__":
    sys.exit(main())
