"""Check a data set in the COCO format before training on it: `tools/det_check.py`."""

from collections.abc import Sequence

from kd_core.errors import UserError
from kd_core.experiment.cli import run_main
from kd_core.experiment.parsers import CHECK_STATUSES, ToolParser, add_general_options
from kd_core.runtime.paths import require_paths

from kd_det.arguments import add_imports
from kd_det.settings.zoo import find_config


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status: 1 if anything is unusable."""
    return run_main(_main, argv)


def _main(arguments: list[str]) -> int:
    args = _parser().parse_args(arguments)
    require_paths("annotation file", [args.json], suffix=".json")
    require_paths("folder of images", [args.images], suffix=())
    if args.config_file:
        find_config(args.config_file)
    elif args.imports:
        raise UserError("--import has no effect without --config-file; add it, or leave it out")
    from kd_det.data.check import run
    from kd_det.settings.imports import importing

    with importing(args.imports):
        return run(args)


def _parser() -> ToolParser:
    parser = ToolParser(description=__doc__, statuses=CHECK_STATUSES)
    parser.add_argument("json", metavar="JSON", help="a COCO instances file")
    parser.add_argument("images", metavar="IMAGES", help="folder that its file names start from")
    parser.add_argument(
        "--config-file", metavar="FILE", help="check for this config: masks, keypoints, crops"
    )
    add_imports(parser)
    parser.add_argument(
        "--evaluation", action="store_true", help="check as a test set (default: for training)"
    )
    parser.add_argument("--out", metavar="FILE.json", help="write the report to this file too")
    parser.add_argument("--workers", type=int, default=4, help="threads (default: 4)")
    return add_general_options(parser)
