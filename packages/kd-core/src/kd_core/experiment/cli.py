"""What the command-line tools share: their arguments, and errors as one line."""

import os
import sys
import traceback
from argparse import Action, ArgumentParser
from collections.abc import Callable, Sequence
from typing import Any

from kd_core.config.trust import trust, trusting
from kd_core.errors import ToldElsewhereError, UserError, nearest
from kd_core.runtime import children, console
from kd_core.runtime.failures import bug, explain

EXIT_INTERRUPTED = 130
MOST_SEEDS = 2**32  # as many as NumPy's generator takes
EXIT_NO_READER = 141  # what a shell shows of a program that SIGPIPE ended


def run_main(function: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Call a tool's main function and return the exit status of the process.

    Whatever a user or a machine can cause becomes one line on stderr and status 2, or 1 where a run
    had begun (see `kd_core.runtime.failures`); any other exception is a bug, of which the line
    names the place, with status 1. With `--debug` among the arguments there is a traceback. Ctrl-C
    gives 130; a reader of stdout that left, as `head` does, 141. The working folder is put on
    Python's path, so that configs can name modules in it.

    Args:
        function: Takes the list of arguments; returns the exit status, or None for 0.
        argv: The arguments; by default those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with console.one_line_each():
        try:
            _see_working_folder()
            with trusting():  # what --trust names is trusted by this command alone
                status = function(arguments) or 0
            sys.stdout.flush()  # else Python does at its end, where nobody catches what that raises
            return status
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
        except BrokenPipeError:
            console.close_stdout()
            return EXIT_NO_READER
        except Exception as error:
            return _report(error, debug="--debug" in arguments)
        finally:
            children.wake()


def _see_working_folder() -> None:
    """Find a user's own modules too, behind all others."""
    try:
        here = os.getcwd()
    except FileNotFoundError as error:
        raise UserError("the working folder is gone; change to one that exists") from error
    if here not in sys.path:
        sys.path.append(here)


def _report(error: Exception, *, debug: bool) -> int:
    """Print what ended the program; return its exit status."""
    told = explain(error) or bug(error)
    if debug:
        console.complain("".join(traceback.format_exception(error)))
    elif not isinstance(told, ToldElsewhereError):
        console.complain(f"error: {console.in_one_line(str(told))}\n")
    return told.status


def training_parser(description: str) -> ArgumentParser:
    """Return the parser of a training tool: the arguments that all tasks have in common."""
    parser = _Parser(description=description, allow_abbrev=False)
    parser.add_argument(
        "configs", metavar="CONFIG", nargs="*", help="python files, merged left to right"
    )
    parser.add_argument("--work-dir", metavar="DIR", help="where checkpoints and logs go")
    parser.add_argument("--resume", action="store_true", help="resume the run in the work dir")
    parser.add_argument("--eval-only", metavar="CKPT", help="evaluate a checkpoint, do not train")
    add_seeds(parser, "one run for each")
    _add_together(parser, "seeds")
    parser.add_argument(
        "--dry-run", action="store_true", help="build all, print tables, run one step"
    )
    parser.add_argument(
        "--list-taps", action="store_true", help="print the layers that can be tapped"
    )
    return add_options(parser)


def comparison_parser(description: str) -> ArgumentParser:
    """Return the parser of a comparison tool."""
    parser = _Parser(description=description, allow_abbrev=False)
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
    _add_together(parser, "rows and seeds")
    parser.add_argument("--dry-run", action="store_true", help="take one step of each row")
    return add_options(parser)


def add_options(parser: ArgumentParser, example: str = "trainer.epochs=2") -> ArgumentParser:
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


def add_general_options(parser: ArgumentParser) -> ArgumentParser:
    """Add what every tool takes, `--trust` and `--debug`; return the parser.

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
    return parser


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
        trust(values)
        setattr(namespace, self.dest, (*getattr(namespace, self.dest), values))


def _add_together(parser: ArgumentParser, what: str) -> None:
    text = f"train all {what} in turns, on one pass over data and teacher; needs data_seed"
    parser.add_argument("--share-teacher", action="store_true", help=text)


class _Seeds(Action):
    """Refuses seeds of which no run of its own can be made."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        for seed in values:
            if values.count(seed) > 1:
                raise UserError(f"--seeds names {seed} twice; each run has a seed of its own")
            if not 0 <= seed < MOST_SEEDS:
                raise UserError(f"--seeds: {seed} is not a number from 0 to {MOST_SEEDS - 1}")
        setattr(namespace, self.dest, values)


class _Parser(ArgumentParser):
    """Takes CONFIG files on either side of options, and names the nearest to a misspelt option."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_intermixed_args(args, namespace)
        if unknown:
            option = unknown[0].partition("=")[0]
            hint = nearest(option, self._option_string_actions)
            self.error(f"unrecognized argument {option}{hint}")
        return parsed
