"""Embed the pictures of a folder with any network: `tools/reid_embed.py`."""

from collections.abc import Sequence
from pathlib import Path

from kd_core.errors import UserError
from kd_core.experiment.cli import run_main
from kd_core.experiment.parsers import ToolParser, add_general_options
from kd_core.runtime.paths import require_paths

from kd_reid.arguments import (
    MODEL,
    add_device,
    add_network,
    add_passes,
    add_skip_broken,
    check_network,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return run_main(_main, argv)


def _main(arguments: list[str]) -> None:
    args = _parser().parse_args(arguments)
    check_network(args)
    require_paths("folder", [args.folder], suffix=())
    args.folder = str(Path(args.folder).expanduser())
    if not Path(args.folder).is_dir():
        raise UserError(f"FOLDER {args.folder}: is a file; wanted a folder of pictures")
    from kd_reid.lookup.embedding import run

    run(args)


def _parser() -> ToolParser:
    parser = ToolParser(description=__doc__)
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument(
        "folder", metavar="FOLDER", help="of pictures, in it and in the folders below it"
    )
    parser.add_argument(
        "--out",
        metavar="FILE.npy",
        default="embeddings.npy",
        help="where the embeddings go, a row a picture; names and what made them go beside it, "
        "into .csv and .json (default: embeddings.npy)",
    )
    parser.add_argument("--normalise", action="store_true", help="scale each embedding to length 1")
    add_skip_broken(parser)
    add_network(parser)
    add_passes(parser)
    add_device(parser)
    return add_general_options(parser)
