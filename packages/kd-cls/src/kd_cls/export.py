"""Export a finished student to ONNX and to PyTorch's own archive: `tools/cls_export.py`."""

import os
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kd_core.errors import UserError
from kd_core.experiment.cli import run_main
from kd_core.experiment.parsers import ToolParser, add_general_options
from kd_core.runtime.paths import require_paths

if TYPE_CHECKING:
    from kd_core.networks.latency import Plan

_LATENCY = ("batch_sizes", "repeats", "seconds", "threads")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return run_main(_main, argv)


def _main(arguments: list[str]) -> None:
    args = _parser().parse_args(arguments)
    given = [name for name in _LATENCY if getattr(args, name) is not None]
    if args.no_latency and given:
        option = given[0].replace("_", "-")
        raise UserError(f"--{option} has no effect beside --no-latency; leave one of them out")
    require_paths("finished run", [args.student])
    from kd_cls.deployment import export_all

    normalise = args.with_normalization
    plan = None if args.no_latency else _plan(args, given)
    export_all(args.student, args.format, args.output, with_normalization=normalise, plan=plan)


def _plan(args: Namespace, given: Sequence[str]) -> "Plan":
    from kd_core.networks.latency import Plan

    values = {name: getattr(args, name) for name in given}
    if "batch_sizes" in values:
        values["batch_sizes"] = tuple(dict.fromkeys(values["batch_sizes"]))
    return Plan(**values)


def _parser() -> ToolParser:
    parser = ToolParser(description=__doc__)
    parser.add_argument("student", metavar="RUN_DIR_OR_SAFETENSORS", help="a finished run")
    parser.add_argument(
        "--format",
        nargs="+",
        choices=("onnx", "pt2"),
        default=("onnx", "pt2"),
        help="default: both",
    )
    parser.add_argument("--output", metavar="DIR", help="default: the folder of the run")
    parser.add_argument(
        "--with-normalization",
        action="store_true",
        help="the files take images in [0, 1] and normalise them, rather than normalised images",
    )
    _add_latency(parser)
    return add_general_options(parser)


def _add_latency(parser: ToolParser) -> None:
    parser.add_argument(
        "--no-latency", action="store_true", help="write the files, measure no time"
    )
    parser.add_argument(
        "--batch-sizes", metavar="N", nargs="+", type=_count, help="images a call (default: 1 32)"
    )
    parser.add_argument(
        "--repeats", metavar="N", type=_count, help="calls of each, at most (default: 100)"
    )
    parser.add_argument(
        "--seconds",
        metavar="S",
        type=_seconds,
        help="PyTorch and ONNX Runtime may take about so long each (default: 10)",
    )
    parser.add_argument(
        "--threads", metavar="N", type=_threads, help="of the CPU (default: as many as PyTorch's)"
    )


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
