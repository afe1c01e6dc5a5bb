"""Check a re-identification data set before training on it: `tools/reid_check.py`."""

from collections.abc import Sequence

from kd_core.experiment.cli import run_main
from kd_core.experiment.parsers import ToolParser, add_general_options
from kd_core.runtime.paths import require_paths


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status: 1 if anything is unusable."""
    return run_main(_main, argv)


def _main(arguments: list[str]) -> int:
    args = _parser().parse_args(arguments)
    require_paths("folder or CSV file", [args.source])
    from kd_reid.data.check import run

    return run(args)


def _parser() -> ToolParser:
    parser = ToolParser(description=__doc__)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder with a folder for each identity; a CSV file of path, identity and, if "
        "known, camera; or a folder in the layout of Market-1501",
    )
    parser.add_argument(
        "--camera",
        metavar="REGEX",
        help="its group is the camera in a path below an identity's folder, such as 'cam(\\d+)'",
    )
    parser.add_argument("--out", metavar="FILE.json", help="write the report to this file too")
    parser.add_argument("--workers", type=int, default=4, help="threads (default: 4)")
    return add_general_options(parser)
