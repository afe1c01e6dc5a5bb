"""What a campaign found: as data, as a table, and in the page on faults."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fault_place import Outcome

BEGIN, END = "<!-- table of benchmarks/faults.py -->", "<!-- end of the table -->"


def report(
    outcomes: Sequence[Outcome], environment: dict[str, Any], **facts: float
) -> dict[str, Any]:
    """Return the counts of every kind, and every trial.

    Args:
        outcomes: In the order of their kinds.
        environment: Of the run, as `kd_core.experiment.report.environment` has it.
        facts: Seed, scale, minutes.
    """
    kinds: dict[str, dict[str, float]] = {}
    for outcome in outcomes:
        counts = kinds.setdefault(outcome.kind, {"tried": 0, "held": 0, "seconds": 0.0})
        counts["tried"] += 1
        counts["held"] += outcome.held
        counts["seconds"] = round(counts["seconds"] + outcome.seconds, 2)
    trials = [asdict(outcome) for outcome in outcomes]
    return {**facts, "environment": environment, "kinds": kinds, "trials": trials}


def table(found: dict[str, Any]) -> str:
    """Return the counts as a table in Markdown, with what is to be known of the run."""
    rows = [("", "tried", "held", "seconds a trial"), ("---",) * 4]
    for kind, counts in found["kinds"].items():
        each = counts["seconds"] / counts["tried"]
        rows.append((kind, str(counts["tried"]), str(counts["held"]), f"{each:.1f}"))
    counts = [sum(c[name] for c in found["kinds"].values()) for name in ("tried", "held")]
    rows.append(("**all**", *(f"**{count}**" for count in counts), ""))
    lines = [f"| {' | '.join(row)} |" for row in rows]
    commit = str(found["environment"]["commit"])[:7]
    said = f"Seed {found['seed']}, {found['jobs']} trials at a time, {found['minutes']} minutes"
    return "\n".join([*lines, "", f"{said}; {found['environment']['device']}, commit {commit}."])


def write_into(page: Path, text: str) -> None:
    """Replace the table of a page.

    Raises:
        ValueError: If the page has no place for it.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no lines {BEGIN!r} and {END!r}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
