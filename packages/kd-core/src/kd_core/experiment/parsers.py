"""The arguments of the command-line tools; nothing here imports torch."""

import sys
from argparse import PARSER, REMAINDER, SUPPRESS, Action, ArgumentParser
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

from kd_core.config.trusted import trust
from kd_core.errors import UserError, nearest
from kd_core.runtime.versions import versions

MOST_SEEDS = 2**32  # as many as NumPy's generator takes
_REFUSED_OR_ENDED = (
    "2 refused before any work; 130 Ctrl-C; 141 the reader of stdout left; 143 SIGTERM. "
    "docs/faults.md says more"
)
EXIT_STATUSES = (
    f"exit status: 0 done; 1 failed after a run had begun, or a bug; {_REFUSED_OR_ENDED}"
)
CHECK_STATUSES = f"exit status: 0 the set can be used; 1 it cannot, or a bug; {_REFUSED_OR_ENDED}"
_HELP = "; --help lists the arguments"
P = TypeVar("P", bound=ArgumentParser)


class ToolParser(ArgumentParser):
    """Takes CONFIG files on either side of options; a mistake is one line, as all errors are.

    Args:
        statuses: Which exit statuses the tool has.
        options: See `ArgumentParser`; abbreviated options are not taken unless these say so.
    """

    def __init__(self, *, statuses: str = EXIT_STATUSES, **options: Any) -> None:
        epilog = "\n\n".join(filter(None, [options.get("epilog"), statuses]))
        super().__init__(**{"allow_abbrev": False, **options, "epilog": epilog})
        self._given: list[str] = []

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments.

        Raises:
            UserError: If one is unknown, missing or wrong; it names the nearest option.
        """
        # argparse cannot look on either side where a last argument takes all that follows.
        last = any(action.nargs in (PARSER, REMAINDER) for action in self._actions)
        parse = self.parse_known_args if last else self.parse_known_intermixed_args
        parsed, unknown = parse(args, namespace)
        self.reject(unknown)
        return parsed

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments, and keep them for the message if one is missing."""
        self._given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def reject(self, unknown: Sequence[str]) -> None:
        """Raise a UserError for the first of these arguments, if there is one."""
        if unknown:
            option = unknown[0].partition("=")[0]
            known = [name for name in self._option_string_actions if name.startswith("--")]
            hint = nearest(option, known) if option.startswith("-") else ""
            raise UserError(f"unrecognized argument {option}{hint or _HELP}")

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found as one line; it would print the usage on several."""
        if "arguments are required" in message:  # perhaps since one of them is misspelt
            self.reject([text for text in self._given if self._is_misspelt(text)])
        raise UserError(f"{message}{_HELP}")

    def _is_misspelt(self, text: str) -> bool:
        option = text.partition("=")[0]
        return option.startswith("--") and option not in self._option_string_actions


class CommandParser(ToolParser):
    """The parser of a subcommand, which names the nearest of its own options."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments after the subcommand; reject unknown ones."""
        parsed, unknown = super().parse_known_args(args, namespace)
        self.reject(unknown)
        return parsed, unknown


def training_parser(
    title: str, *, has_demo: bool = False, listed: Sequence[str] = ()
) -> ToolParser:
    """Return the parser of a training tool: the arguments that all tasks have in common.

    Args:
        title: What the tool does.
        has_demo: Whether a demo runs without CONFIG.
        listed: What has short names.
    """
    without = "without CONFIG, the demo runs" if has_demo else "CONFIG is needed"
    parser = ToolParser(description=f"{title}; {without}.")
    names = ", or short names: DATA TEACHER,STUDENT METHOD" if listed else ""
    parser.add_argument(
        "configs", metavar="CONFIG", nargs="*", help=f"python files, merged left to right{names}"
    )
    if listed:
        add_list(parser, listed)
    parser.add_argument("--work-dir", metavar="DIR", help="where checkpoints and logs go")
    _add_resume(parser)
    parser.add_argument("--eval-only", metavar="CKPT", help="evaluate a checkpoint, do not train")
    parser.add_argument(
        "--save-outputs", metavar="FILE", help="write the teacher's logits, for teacher.outputs"
    )
    add_seeds(parser, "one run for each")
    _add_share_teacher(parser, "seeds")
    parser.add_argument(
        "--dry-run", action="store_true", help="build all, print tables, run one step"
    )
    parser.add_argument(
        "--list-taps", action="store_true", help="print the layers that can be tapped"
    )
    text = "lines of JSON on stdout, one an epoch and a last one with the result; rest to stderr"
    parser.add_argument("--json", action="store_true", help=text)
    return add_options(parser)


def comparison_parser(title: str) -> ToolParser:
    """Return the parser of a comparison tool; `title` says what the runs do that it compares."""
    parser = ToolParser(description=f"Compare runs: {title[:1].lower()}{title[1:]}.")
    parser.add_argument("configs", metavar="CONFIG", nargs="*", help="files of every row")
    parser.add_argument("--rows", metavar="FILE", help="a table: further files of each row")
    parser.add_argument(
        "--sweep",
        metavar=("KEY", "VALUE"),
        nargs="+",
        help="a row for every value of an option, such as distiller.terms.reviewkd.weight 1 5",
    )
    parser.add_argument("--only", metavar="ROW", nargs="+", help="labels of the rows to run")
    add_seeds(parser, "of every row", default=[0, 1, 2])
    parser.add_argument("--work-dir", metavar="DIR", help="folder; what is finished there is kept")
    _add_share_teacher(parser, "rows and seeds")
    latency = "measure size and latency of every row's student, all in turns, on the CPU"
    parser.add_argument("--latency", action="store_true", help=latency)
    parser.add_argument("--dry-run", action="store_true", help="take one step of each row")
    return add_options(parser)


def add_options(parser: P, example: str = "trainer.epochs=2") -> P:
    """Add what every tool that reads a config takes, `--cfg-options` too; return the parser."""
    parser.add_argument(
        "--cfg-options",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help=f"change the config, such as {example}",
    )
    return add_general_options(parser)


def add_general_options(parser: P) -> P:
    """Add what every tool takes, `--trust`, `--debug` and `--version`; return the parser.

    `--trust` works by being parsed, until `run_main` ends; see `kd_core.config.trust`.
    """
    parser.add_argument(
        "--trust",
        metavar="NAME",
        action=_Trust,
        default=(),
        help="run NAME, an import path such as my_module.Net, where a file of weights or a YAML "
        "file names it; see SECURITY.md. May be given several times",
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback for every error")
    return add_version(parser)


def add_version(parser: P) -> P:
    """Add `--version`; return the parser."""
    parser.add_argument(
        "--version",
        action=_Version,
        nargs=0,
        dest=SUPPRESS,
        default=SUPPRESS,
        help="print versions and exit",
    )
    return parser


def add_list(parser: ArgumentParser, kinds: Sequence[str]) -> None:
    """Add `--list`, which prints the short names of a kind."""
    text = "print the short names of these, and exit"
    parser.add_argument("--list", choices=kinds, help=text)


def add_seeds(parser: ArgumentParser, text: str, default: Sequence[int] | None = None) -> None:
    """Add `--seeds`: whole numbers, each once."""
    parser.add_argument(
        "--seeds", metavar="INT", nargs="+", type=int, action=_Seeds, default=default, help=text
    )


class _Trust(Action):
    """Trusts a name."""

    def __call__(
        self, parser: ArgumentParser, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        is_file = values.endswith(".py")  # of a teacher's LazyConfig
        if not is_file and not all(part.isidentifier() for part in values.split(".")):
            raise UserError(f"--trust {values!r}: wanted an import path such as my_module.Net")
        trust(values)
        setattr(namespace, self.dest, (*getattr(namespace, self.dest), values))


def _add_resume(parser: ToolParser) -> None:
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--resume", action="store_true", help="resume what is in the work dir")
    text = "resume what is in --work-dir, or start there: for launchers that restart a run"
    either.add_argument("--auto-resume", action="store_true", help=text)


def _add_share_teacher(parser: ArgumentParser, what: str) -> None:
    text = f"train all {what} in turns, on one pass over data and teacher; needs data_seed"
    parser.add_argument("--share-teacher", action="store_true", help=text)


class _Seeds(Action):
    """Rejects seeds that are repeated or out of range."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        for seed in values:
            if values.count(seed) > 1:
                raise UserError(f"--seeds names {seed} twice; each run has a seed of its own")
            if not 0 <= seed < MOST_SEEDS:
                raise UserError(f"--seeds: {seed} is not a number from 0 to {MOST_SEEDS - 1}")
        setattr(namespace, self.dest, values)


class _Version(Action):
    """Prints the versions of what a bug report is about."""

    def __call__(
        self, parser: ArgumentParser, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        print(versions())
        parser.exit()
