"""Make WebDataset shards of a folder of images: `tools/cls_shards.py`."""

from collections.abc import Sequence
from pathlib import Path

from kd_core.experiment.cli import run_main
from kd_core.experiment.parsers import ToolParser, add_general_options
from kd_core.runtime.paths import require_paths


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return run_main(_main, argv)


def _main(arguments: list[str]) -> None:
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.size < 1:
        parser.error(f"--size is {args.size}; wanted 1 or more images in a shard")
    if args.seed < 0:
        parser.error(f"--seed is {args.seed}; wanted 0 or more")
    require_paths("folder of images", [args.images], suffix=())
    from kd_cls.data.shards.writing import write_shards

    counts = write_shards(args.images, Path(args.shards), size=args.size, seed=args.seed)
    print(f"{args.shards}: " + ", ".join(f"{count} shards of {n}" for n, count in counts.items()))


def _parser() -> ToolParser:
    parser = ToolParser(description=__doc__)
    parser.add_argument(
        "images", metavar="IMAGES", help="folder with train/<class>/ and test/<class>/"
    )
    parser.add_argument("shards", metavar="SHARDS", help="folder of the shards, a new one")
    parser.add_argument("--size", type=int, default=1000, help="images in a shard (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the training images' order")
    return add_general_options(parser)
