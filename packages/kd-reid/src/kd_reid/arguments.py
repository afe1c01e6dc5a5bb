"""Options of several tools: what a user says of a set of images."""

from argparse import ArgumentTypeError, Namespace
from typing import Any

from kd_core.experiment.parsers import ToolParser


def add_reading(parser: ToolParser) -> None:
    """Add what a user says of a set, see `kd_reid.data.reading.Reading`."""
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
        "--no-distractors",
        dest="distractors",
        action="store_false",
        help="identity 0000 is a person",
    )


def reading_of(args: Namespace) -> dict[str, Any]:
    """Return what the options of `add_reading` say."""
    said = {name: getattr(args, name) for name in ("camera", "identity", "same_camera")}
    said |= {name: dict(getattr(args, name)) or None for name in ("parts", "columns")}
    return said | {"distractors": args.distractors}


def _pair(text: str) -> tuple[str, str]:
    """Read KEY=NAME."""
    key, mark, name = text.partition("=")
    if not (key and mark and name):
        raise ArgumentTypeError(f"wanted KEY=NAME, got {text!r}")
    return key, name
