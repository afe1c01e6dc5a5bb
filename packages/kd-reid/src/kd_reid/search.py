"""Find the pictures of a gallery that look like others: `tools/reid_search.py`."""

from collections.abc import Sequence

from kd_core.experiment.cli import run_main
from kd_core.experiment.parsers import ToolParser, add_general_options
from kd_core.runtime.paths import require_paths

from kd_reid.arguments import (
    MODEL,
    add_device,
    add_distance,
    add_network,
    add_passes,
    add_skip_broken,
    check_network,
    count_to,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return run_main(_main, argv)


def _main(arguments: list[str]) -> None:
    args = _parser().parse_args(arguments)
    check_network(args)
    require_paths("picture", args.pictures)
    require_paths("folder or file of embeddings", [args.gallery, args.images])
    from kd_reid.lookup.searching import run

    run(args)


def _parser() -> ToolParser:
    parser = ToolParser(description=__doc__)
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument("pictures", metavar="PICTURE", nargs="+", help="files to search for")
    parser.add_argument(
        "gallery",
        metavar="GALLERY",
        help="what is searched: a folder of pictures, or the .npy file of reid_embed",
    )
    parser.add_argument(
        "--top-k", metavar="N", type=count_to(50), default=10, help="matches (default: 10)"
    )
    parser.add_argument(
        "--out",
        metavar="FILE.png",
        default="search.png",
        help="the picture; the ranking goes beside it, into .json (default: search.png)",
    )
    parser.add_argument(
        "--images", metavar="FOLDER", help="where the folder that was embedded is now"
    )
    add_skip_broken(parser)
    add_distance(parser)
    add_network(parser)
    add_passes(parser)
    add_device(parser)
    return add_general_options(parser)
