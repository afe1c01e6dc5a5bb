"""Check a re-identification data set before training on it: `tools/reid_check.py`."""

from collections.abc import Sequence

from kd_core.experiment.cli import run_main
from kd_core.experiment.parsers import CHECK_STATUSES, ToolParser, add_general_options
from kd_core.runtime.paths import require_paths

from kd_reid.arguments import add_reading


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status: 1 if the set cannot be used."""
    return run_main(_main, argv)


def _main(arguments: list[str]) -> int:
    args = _parser().parse_args(arguments)
    require_paths("folder or CSV file", [args.source], suffix=(".csv", ".tsv", ".txt"))
    from kd_reid.data.check import run

    return run(args)


def _parser() -> ToolParser:
    parser = ToolParser(description=__doc__, statuses=CHECK_STATUSES)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder with a folder for each identity, or with train/, query/ and gallery/ or "
        "train/ and test/ with such folders in them, also named as in Market-1501 or VeRi-776; or "
        "a CSV file of path, identity and, if known, camera and split",
    )
    add_reading(parser)
    parser.add_argument(
        "--allow-shared",
        action="store_true",
        help="identities and files may be both to train on and to test with",
    )
    parser.add_argument("--out", metavar="FILE.json", help="write the report to this file too")
    parser.add_argument("--workers", type=int, default=4, help="threads (default: 4)")
    return add_general_options(parser)
