"""Export a finished student to ONNX and to PyTorch's own archive: `tools/cls_export.py`."""

from collections.abc import Sequence

from kd_core.experiment.cli import run_main
from kd_core.experiment.latency_options import add_latency, check_latency, latency_plan
from kd_core.experiment.parsers import ToolParser, add_general_options
from kd_core.runtime.paths import require_paths


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return run_main(_main, argv)


def _main(arguments: list[str]) -> None:
    args = _parser().parse_args(arguments)
    check_latency(args)
    require_paths("finished run", [args.student], suffix=".safetensors")
    from kd_cls.deployment import export_all

    normalise = args.with_normalization
    plan = latency_plan(args)
    export_all(args.student, args.format, args.output, with_normalization=normalise, plan=plan)


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
    add_latency(parser)
    return add_general_options(parser)
