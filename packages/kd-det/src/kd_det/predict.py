"""Show the objects in pictures, by a finished or an exported detector: `tools/det_predict.py`."""

from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence

from kd_core.errors import UserError
from kd_core.experiment.cli import run_main
from kd_core.experiment.latency_options import add_latency, check_latency, latency_plan
from kd_core.experiment.parsers import ToolParser, add_general_options
from kd_core.runtime.paths import require_paths

from kd_det.export import add_opts, add_student, check_student


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status: 1 if a picture could not be read."""
    return run_main(_main, argv)


def _main(arguments: list[str]) -> int:
    args = _parser().parse_args(arguments)
    check_latency(args)
    check_student(args.student, args.weights, args.opts)
    _check_exported(args)
    require_paths("image", args.images)
    from kd_det.deploy.prediction import run
    from kd_det.settings.imports import importing

    with importing(args.imports):
        return run(args, latency_plan(args))


def _check_exported(args: Namespace) -> None:
    """Reject options that have no effect on an exported file."""
    if not args.student.endswith((".ts", ".onnx")):
        return
    for name in ("weights", "register", "import", "opts"):
        if getattr(args, "imports" if name == "import" else name):
            raise UserError(
                f"--{name} has no effect on an exported file, which has all in it and in its JSON; "
                "leave it out, or name the run"
            )


def _parser() -> ToolParser:
    parser = ToolParser(description=__doc__)
    add_student(parser, "a finished run, the config of a detector, or an exported .ts or .onnx")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files, or folders")
    parser.add_argument(
        "--threshold", type=_score, default=0.5, help="least score shown (default: 0.5)"
    )
    parser.add_argument(
        "--output", metavar="DIR", help="default: predictions, or predictions-2 and so on"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the lines of JSON instead of a table"
    )
    add_latency(parser, asked=True, batches=False)
    add_opts(parser)
    return add_general_options(parser)


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise ArgumentTypeError(f"{text!r}: wanted a score, from 0 to 1")
    return score
