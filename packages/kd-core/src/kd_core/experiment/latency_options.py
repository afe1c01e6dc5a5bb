"""The options of tools that measure latencies; nothing here imports torch before it is needed."""

import os
from argparse import ArgumentTypeError, Namespace
from typing import TYPE_CHECKING

from kd_core.errors import UserError
from kd_core.experiment.parsers import ToolParser

if TYPE_CHECKING:
    from kd_core.networks.latency import Plan

_VALUES = ("batch_sizes", "repeats", "seconds", "threads")


def add_latency(parser: ToolParser, *, asked: bool = False, batches: bool = True) -> None:
    """Add the options.

    Args:
        parser: Of the tool.
        asked: Whether latencies are measured only with `--latency`; else `--no-latency` stops it.
        batches: Whether what is measured takes batches of any size; else one image a call.
    """
    if asked:
        parser.add_argument("--latency", action="store_true", help="measure the time of an image")
    else:
        parser.add_argument(
            "--no-latency", action="store_true", help="write the files, measure no time"
        )
    if batches:
        parser.add_argument(
            "--batch-sizes",
            metavar="N",
            nargs="+",
            type=_count,
            help="images a call (default: 1 32)",
        )
    parser.add_argument(
        "--repeats", metavar="N", type=_count, help="calls of each, at most (default: 100)"
    )
    parser.add_argument(
        "--seconds",
        metavar="S",
        type=_seconds,
        help="each of what is measured may take about so long (default: 10)",
    )
    parser.add_argument(
        "--threads", metavar="N", type=_threads, help="of the CPU (default: as many as PyTorch's)"
    )


def check_latency(args: Namespace) -> None:
    """Reject options that have no effect, since no latency is measured."""
    given = _given(args)
    if given and not _wanted(args):
        option = "--" + given[0].replace("_", "-")
        way = (
            f"without --latency; add it, or leave {option} out"
            if hasattr(args, "latency")
            else "beside --no-latency; leave one of them out"
        )
        raise UserError(f"{option} has no effect {way}")


def latency_plan(args: Namespace) -> "Plan | None":
    """Return how latencies are to be measured; None if they are not."""
    if not _wanted(args):
        return None
    from kd_core.networks.latency import Plan

    values = {name: getattr(args, name) for name in _given(args)}
    if not hasattr(args, "batch_sizes"):
        values["batch_sizes"] = (1,)
    elif "batch_sizes" in values:
        values["batch_sizes"] = tuple(dict.fromkeys(values["batch_sizes"]))
    return Plan(**values)


def _wanted(args: Namespace) -> bool:
    return bool(args.latency if hasattr(args, "latency") else not args.no_latency)


def _given(args: Namespace) -> list[str]:
    return [name for name in _VALUES if getattr(args, name, None) is not None]


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r}: wanted a whole number, 1 or more")
    return int(text)


def _threads(text: str) -> int:
    most = os.cpu_count() or 1
    if _count(text) > most:
        raise ArgumentTypeError(f"{text!r}: this machine has {most} of them")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ArgumentTypeError(f"{text!r}: wanted seconds, above 0")
    return seconds
