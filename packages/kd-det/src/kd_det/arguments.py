"""What the tools of detection share in reading a command line; nothing here imports torch."""

from argparse import Action, ArgumentError, ArgumentTypeError
from collections.abc import Sequence
from functools import partial
from itertools import takewhile
from typing import Any

from kd_core.errors import UserError
from kd_core.experiment.parsers import P, ToolParser


class PairsParser(ToolParser):
    """Takes KEY VALUE pairs after all options, also right after an option with several values.

    argparse gives such an option all that follows; here it gets what fits, and the first at least:
    `--register a=a.json:images MODEL.DEVICE cpu`.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments; `opts` has the pairs."""
        given = None if args is None else self._separated(list(args))
        parsed, unknown = super().parse_known_args(given, namespace)
        if parsed.opts[:1] == ["--"]:
            parsed.opts = parsed.opts[1:]
        return parsed, unknown

    def _separated(self, args: list[str]) -> list[str]:
        """Return the arguments with `--` before the pairs, where an option would take them."""
        for place, text in enumerate(args):
            action = self._option(text)
            if action is None or action.nargs != "+" or "=" in text:
                continue
            values = list(takewhile(lambda one: not one.startswith("-"), args[place + 1 :]))
            fitting = list(takewhile(partial(self._fits, action), values[1:]))
            if end := len(values[1:]) - len(fitting):
                end = place + 1 + len(values) - end
                return [*args[:end], "--", *args[end:]]
        return args

    def _option(self, text: str) -> Action | None:
        """Return what an option, perhaps abbreviated, stands for."""
        if not text.startswith("--"):
            return None
        known = self._option_string_actions
        near = [text] if text in known else [name for name in known if name.startswith(text)]
        return known[near[0]] if len(near) == 1 else None

    def _fits(self, action: Action, text: str) -> bool:
        try:
            self._get_values(action, [text])
        except ArgumentError:
            return False
        return True


def check_pairs(opts: Sequence[str]) -> None:
    """Reject options after the KEY VALUE pairs, and a key without value."""
    if misplaced := [key for key in opts[::2] if key.startswith("--")]:
        raise UserError(
            f"{misplaced[0]} comes after {opts[0]}; options go before the KEY VALUE pairs"
        )
    if len(opts) % 2:
        raise UserError(
            f"{opts[-1]!r} has no value; wanted KEY VALUE pairs such as MODEL.DEVICE cpu, and the "
            "config after --config-file"
        )


def add_imports(parser: P) -> P:
    """Add what names a user's own modules; return the parser."""
    parser.add_argument(
        "--import",
        dest="imports",
        metavar="MODULE",
        action="append",
        default=[],
        help="import your module before the config is read: it registers backbones or data sets; "
        "its add_config(cfg), or FUNCTION of MODULE:FUNCTION, adds keys. May be given often",
    )
    return parser


def add_own(parser: P) -> P:
    """Add what names a user's own modules and data sets; return the parser."""
    add_imports(parser).add_argument(
        "--register",
        action="extend",
        nargs="+",
        default=[],
        type=_set,
        metavar="NAME=JSON:IMAGES",
        help="your data sets in COCO's format, to be named in DATASETS",
    )
    return parser


def images_folder(text: str) -> str:
    """Return NAME=FOLDER; a text of another form is not a value of `--register-images`."""
    name, _, folder = text.partition("=")
    if not (name and folder):
        raise ArgumentTypeError(f"{text!r}: wanted NAME=FOLDER, such as photos=data/photos")
    return text


def _set(text: str) -> str:
    name, equals, paths = text.partition("=")
    if not (name and equals and ":" in paths):
        raise ArgumentTypeError(
            f"{text!r}: wanted NAME=JSON:IMAGES, such as birds_train=birds/train.json:birds/images"
        )
    return text
