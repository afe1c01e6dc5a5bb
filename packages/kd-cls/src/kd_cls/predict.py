"""Predict the classes of image files with a finished student: `tools/cls_predict.py`."""

from collections.abc import Sequence
from pathlib import Path

from kd_core.experiment.cli import run_main
from kd_core.experiment.parsers import ToolParser, add_general_options
from kd_core.runtime.paths import require_paths


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return run_main(_main, argv)


def _main(arguments: list[str]) -> None:
    args = _parser().parse_args(arguments)
    require_paths("finished run", [args.student], suffix=".safetensors")
    require_paths("image", args.images, is_file=_is_image)
    from kd_cls.prediction import show

    show(args.student, args.images, top=args.top, as_json=args.json)


def _is_image(name: str) -> bool:
    from PIL import Image  # no torch: a missing file is one line at once

    return Path(name).suffix.lower() in Image.registered_extensions()


def _parser() -> ToolParser:
    parser = ToolParser(description=__doc__)
    parser.add_argument("student", metavar="RUN_DIR_OR_SAFETENSORS", help="a finished run")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files")
    parser.add_argument("--top", type=int, default=5, help="classes to show (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return add_general_options(parser)
