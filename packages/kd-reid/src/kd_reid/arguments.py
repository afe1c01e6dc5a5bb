"""Options of several tools: what a user says of a network, and of a set of images."""

from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kd_core.experiment.cli import parse_options
from kd_core.experiment.parsers import ToolParser
from kd_core.runtime.paths import require_paths

MODEL = (
    "a finished run's folder or a file in it; or a file of weights of a torchreid network, such as "
    "those of its zoo"
)


def add_network(parser: ToolParser) -> None:
    """Add what a user says of MODEL, see `kd_reid.measuring.models`."""
    parser.add_argument("--network", metavar="NAME", help="torchreid's name of a file's network")
    parser.add_argument(
        "--network-options",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="of kd_reid.models.build_model, such as last_stride=1",
    )
    parser.add_argument(
        "--size", metavar=("HEIGHT", "WIDTH"), nargs=2, type=int, help="of images, in pixels"
    )
    text = "of each channel in [0, 1] (default: ImageNet's)"
    parser.add_argument("--mean", metavar="X", nargs=3, type=float, help=f"mean {text}")
    parser.add_argument("--std", metavar="X", nargs=3, type=float, help=f"deviation {text}")
    parser.add_argument(
        "--flip", action="store_true", help="mean embedding of every image and its mirror image"
    )


def add_passes(parser: ToolParser) -> None:
    """Add how images are read, and how many of them a pass of the network takes."""
    parser.add_argument("--batch-size", type=int, help="images a pass (default: 64)")
    parser.add_argument("--workers", type=int, help="processes that read images")


def passes_of(args: Namespace) -> dict[str, Any]:
    """Return what the options of `add_passes` say, as arguments of `kd_reid.data.options`."""
    said = {name: getattr(args, name) for name in ("batch_size", "workers")}
    return {name: value for name, value in said.items() if value is not None}


def given_of_network(args: Namespace) -> list[str]:
    """Return which options of `add_network` and `add_passes` were given."""
    parser = ToolParser(add_help=False)
    add_network(parser)
    add_passes(parser)
    return [
        action.option_strings[0]
        for action in parser._actions
        if getattr(args, action.dest) not in (action.default, {})  # {}: no pairs, once read
    ]


def check_network(args: Namespace) -> None:
    """Read the options of `add_network`, and reject a MODEL that is not there.

    Raises:
        UserError: If an option is not KEY=VALUE, or there is no such file.
    """
    args.network_options = parse_options(args.network_options)
    if not Path(args.model).exists():
        file = args.model.rpartition("#")[0] or args.model  # FILE#PLACE of several
        require_paths("finished run or file of weights", [file])


def add_distance(parser: ToolParser) -> None:
    """Add how embeddings are compared."""
    parser.add_argument(
        "--distance",
        choices=("euclidean", "cosine"),
        help="default: a run's own, else euclidean",
    )


def add_device(parser: ToolParser) -> None:
    """Add where the network runs."""
    parser.add_argument(
        "--device", metavar="NAME", help="such as cpu or cuda:1 (default: the GPU, if there is one)"
    )


def add_skip_broken(parser: ToolParser) -> None:
    """Add what becomes of pictures that cannot be decoded."""
    parser.add_argument(
        "--skip-broken",
        action="store_true",
        help="leave out, and name, pictures that cannot be decoded; each is read twice",
    )


def count_to(most: int) -> Callable[[str], int]:
    """Return a type of options: a whole number from 1 to this one."""

    def count(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise ArgumentTypeError(f"{text!r}: wanted a whole number from 1 to {most:,}")
        return int(text)

    return count


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
