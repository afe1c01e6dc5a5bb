"""Check a re-identification data set before training on it: `tools/reid_check.py`."""

from argparse import ArgumentTypeError
from collections.abc import Sequence

from kd_core.experiment.cli import run_main
from kd_core.experiment.parsers import ToolParser, add_general_options
from kd_core.runtime.paths import require_paths


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status: 1 if the set cannot be used."""
    return run_main(_main, argv)


def _main(arguments: list[str]) -> int:
    args = _parser().parse_args(arguments)
    require_paths("folder or CSV file", [args.source])
    from kd_reid.data.check import run

    return run(args)


def _pair(text: str) -> tuple[str, str]:
    """Read KEY=NAME."""
    key, mark, name = text.partition("=")
    if not (key and mark and name):
        raise ArgumentTypeError(f"wanted KEY=NAME, got {text!r}")
    return key, name


def _parser() -> ToolParser:
    parser = ToolParser(description=__doc__)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder with a folder for each identity, or with train/, query/ and gallery/ or "
        "train/ and test/ in which such are, also named as in Market-1501 or VeRi-776; or a CSV "
        "file of path, identity and, if known, camera and split",
    )
    for name, example in (("camera", "cam(\\d+)"), ("identity", "person(\\d+)")):
        parser.add_argument(
            f"--{name}",
            metavar="REGEX",
            help=f"its group is the {name} in a path below the folder of an identity or, with "
            f"--identity, of the part, such as '{example}'",
        )
    for name, meaning in (("parts", "folder"), ("columns", "column")):
        parser.add_argument(
            f"--{name}",
            nargs="+",
            type=_pair,
            default=[],
            metavar="KEY=NAME",
            help=f"which {meaning} is which, if not clear, such as "
            + {"parts": "train=my_train", "columns": "identity=pid"}[name],
        )
    parser.add_argument(
        "--same-camera", action="store_true", help="count matches by the same camera too"
    )
    parser.add_argument(
        "--allow-shared",
        action="store_true",
        help="identities and files may be both to train on and to test with",
    )
    parser.add_argument(
        "--no-distractors",
        dest="distractors",
        action="store_false",
        help="identity 0000 is a person",
    )
    parser.add_argument("--out", metavar="FILE.json", help="write the report to this file too")
    parser.add_argument("--workers", type=int, default=4, help="threads (default: 4)")
    return add_general_options(parser)
