"""One call of a GPU run: parts one after the other, each with its own JSON; see `gpu.sh`.

A part that is finished is left out by the next call, one that had no time is run by it. The call
ends itself after `--seconds`, and every part after its own limit: its processes are asked to end,
and ended 10 s later. `summary.json` says what is there, and what is missing.

Ends with 0 if all parts are there, 1 if one failed, 3 if another call is needed.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree

from gpu_plan import CALLS, ROOT, Part
from kd_core.files.checkpoint import save_json
from kd_core.files.checksum import opened_json

SECONDS = 350.0
GRACE = 10.0  # from being asked to end to being ended
LEAST = 15.0  # a part is not started with less time
MISSING = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing of a call; return the exit status."""
    parser = _Parser(description=__doc__.partition("\n")[0])
    parser.add_argument("call", choices=CALLS)
    parser.add_argument("--out", type=Path, required=True, help="folder of the JSON files")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the whole call")
    parser.add_argument("--only", nargs="+", metavar="PART", help="names of the parts to run")
    parser.add_argument("--dry", action="store_true", help="tiny sizes; figures mean nothing")
    args = parser.parse_args(argv)
    if not args.seconds > 0:
        parser.error(f"--seconds is {args.seconds}; wanted a number above 0")
    args.out = args.out.resolve()  # the parts run elsewhere
    if not args.dry and (why := no_gpu()):
        parser.error(f"{why}: run this where there is one; --dry tries it in tiny sizes")
    end = time.monotonic() + args.seconds
    args.out.mkdir(parents=True, exist_ok=True)
    parts = CALLS[args.call]()
    if unknown := set(args.only or ()) - {part.name for part in parts}:
        parser.error(f"--only: no part {min(unknown)!r}; there are {[p.name for p in parts]}")
    states: dict[str, str] = {}
    for part in parts:
        if args.only and part.name not in args.only:
            continue
        states[part.name] = run_part(part, args.out, end, dry=args.dry)
        print(f"{part.name}: {states[part.name]}", flush=True)
    return print_states(args.call, states, args.out)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def no_gpu() -> str:
    """Return why there is nothing to measure here; "" if torch finds a GPU."""
    asked = "import torch; print(torch.cuda.is_available(), torch.__version__)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", asked], capture_output=True, text=True, check=False
    )
    found, _, version = done.stdout.strip().partition(" ")
    if done.returncode:
        return f"torch cannot be imported ({(done.stderr.strip().splitlines() or [''])[-1]})"
    return "" if found == "True" else f"torch {version} finds no GPU"


def run_part(part: Part, out: Path, end: float, *, dry: bool) -> str:
    """Run a part unless it is done or there is no time; return what became of it."""
    done = out / f"{part.name}.json"
    known = read_json(done, opened_json)  # whole, as it was saved
    if isinstance(known, dict) and (known.get("dry"), known.get("status")) == (dry, 0):
        return "done before"
    left = min(part.seconds, end - time.monotonic() - GRACE)
    if left < min(LEAST, part.seconds):
        return "no time"
    result, xml = out / f"{part.name}.result.json", out / f"{part.name}.xml"
    for old in (result, xml):
        old.unlink(missing_ok=True)
    words = {"out": out, "json": result, "xml": xml, "workers": min(12, os.cpu_count() or 1)}
    command = [word.format(**words) for word in part.command(dry=dry)]
    began = time.monotonic()
    status = start([sys.executable, *command], out / f"{part.name}.txt", left)
    found = read_result(result, xml)
    if status is None:
        return "ended by its limit; the next call continues" if part.resumes else "too long"
    if (status != 0 and not xml.is_file()) or found is None:
        return f"failed ({status}): {out / part.name}.txt"
    record = {
        "part": part.name,
        "dry": dry,
        "status": status,
        **machine(),
        "command": " ".join(command),
        "seconds": round(time.monotonic() - began, 1),
        "result": found,
    }
    save_json(record, done)
    result.unlink(missing_ok=True)
    return "done" if status == 0 else f"done, with failures: {out / part.name}.txt"


def start(command: Sequence[str], log: Path, seconds: float) -> int | None:
    """Run a command with its processes; return its status, None if its time was over."""
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        for ask in (signal.SIGTERM, signal.SIGKILL):
            try:
                status = process.wait(seconds)
                return status if ask == signal.SIGTERM else None
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, ask)
                seconds = GRACE
        process.wait()
    return None


def read_result(result: Path, xml: Path) -> Any:
    """Return what a part wrote: its JSON, or what its tests came to; None if it cannot be read."""
    if not xml.is_file():
        return read_json(result)
    try:
        cases = list(ElementTree.parse(xml).iter("testcase"))
    except ElementTree.ParseError:
        return None
    failed = [case.get("name") for case in cases if {"failure", "error"} & _tags(case)]
    skipped = sum("skipped" in _tags(case) for case in cases)
    return {"tests": len(cases), "skipped": skipped, "failed": failed}


def read_json(file: Path, read: Callable[[str], Any] = json.loads) -> Any:
    """Return what a file says; None if it is not there, or is damaged."""
    try:
        return read(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def machine() -> dict[str, str]:
    """Return what the figures are marked with: device and commit, as far as they are known."""
    asked = {
        "device": ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
        "commit": ["git", "-C", str(ROOT), "rev-parse", "HEAD"],
    }
    found = {}
    for name, command in asked.items():
        try:
            said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
            found[name] = said.stdout.strip() or "unknown"
        except (OSError, subprocess.TimeoutExpired):
            found[name] = "unknown"
    return found


def _tags(case: ElementTree.Element) -> set[str]:
    return {re.sub(r"\W", "", child.tag) for child in case}


def print_states(call: str, states: dict[str, str], out: Path) -> int:
    """Write and print what became of all parts; return the exit status."""
    save_json({"call": call, "parts": states}, out / f"{call}.summary.json")
    if any("fail" in state for state in states.values()):
        return 1
    if left := [name for name, state in states.items() if not state.startswith("done")]:
        print(f"still missing: {', '.join(left)}; the same call again runs them", flush=True)
        return MISSING
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
