"""Export a finished detector to TorchScript and to ONNX: `tools/det_export.py`."""

from argparse import ArgumentTypeError
from collections.abc import Sequence

from kd_core.errors import UserError
from kd_core.experiment.cli import run_main
from kd_core.experiment.latency_options import add_latency, check_latency, latency_plan
from kd_core.experiment.parsers import ToolParser, add_general_options
from kd_core.runtime.paths import require_paths

from kd_det.arguments import add_own


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return run_main(_main, argv)


def _main(arguments: list[str]) -> None:
    args = _parser().parse_args(arguments)
    check_latency(args)
    check_student(args.student, args.weights, args.opts)
    require_paths("image", args.images)
    from kd_det.deploy.deployment import run
    from kd_det.settings.imports import importing

    with importing(args.imports):
        run(args, latency_plan(args))


def check_student(student: str, weights: str | None, options: Sequence[str]) -> None:
    """Reject paths that do not exist, and KEY VALUE pairs that are not pairs."""
    require_paths("finished run", [student])
    require_paths("file of weights", [weights])
    if len(options) % 2:
        raise UserError(f"--opts: {options[-1]!r} has no value; wanted KEY VALUE pairs")


def add_student(parser: ToolParser, kinds: str) -> None:
    """Add the arguments that name a finished detector."""
    parser.add_argument("student", metavar="RUN_DIR_OR_FILE", help=kinds)
    parser.add_argument(
        "--weights", metavar="FILE", help="default: the run's last ones, or the config's"
    )
    add_own(parser)


def add_opts(parser: ToolParser) -> None:
    """Add the option that changes the config of a detector."""
    parser.add_argument(
        "--opts",
        metavar="KEY VALUE",
        nargs="+",
        default=[],
        help="change the config, such as MODEL.RETINANET.SCORE_THRESH_TEST 0.2",
    )


def _parser() -> ToolParser:
    parser = ToolParser(description=__doc__)
    add_student(parser, "a finished run, or the config of a detector")
    parser.add_argument(
        "--format",
        nargs="+",
        choices=("torchscript", "onnx"),
        default=("torchscript", "onnx"),
        help="default: both",
    )
    parser.add_argument("--output", metavar="DIR", help="default: the folder of the weights")
    parser.add_argument(
        "--size",
        metavar=("HEIGHT", "WIDTH"),
        nargs=2,
        type=_side,
        help="the files take images of this size alone; by default of any size",
    )
    parser.add_argument(
        "--images",
        metavar="IMAGE",
        nargs="+",
        default=[],
        help="pictures on which files and detector are compared; by default some are drawn",
    )
    add_latency(parser, batches=False)
    add_opts(parser)
    return add_general_options(parser)


def _side(text: str) -> int:
    if not text.isdecimal() or not 32 <= int(text) <= 16384:
        raise ArgumentTypeError(f"{text!r}: wanted pixels, from 32 to 16384")
    return int(text)
