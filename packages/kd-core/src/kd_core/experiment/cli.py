"""The start of every command-line tool: arguments first, torch after them, errors as one line.

Help, versions and mistakes of a command line are answered before torch is imported: a tool's module
imports this at its top, and everything else in the function that runs after the arguments are read.
"""

import ast
import os
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from kd_core.catalogue.line import one_file, read_line
from kd_core.catalogue.names import LISTED, Catalogue
from kd_core.config.paths import require_configs
from kd_core.config.trusted import trusting
from kd_core.errors import ReportedElsewhereError, UserError
from kd_core.experiment.parsers import comparison_parser, training_parser
from kd_core.runtime import children, console, json_lines, launchers
from kd_core.runtime.failures import bug, explain
from kd_core.runtime.paths import require_paths

_LOOKS = ("list_taps", "dry_run")
_INSTEAD = ("save_outputs", "eval_only")
"""Arguments of a training tool that say what else it does; the first two try a whole command."""
_OF_TRAINING = ("seeds", "share_teacher", "resume", "auto_resume")
_WORDS = {"true": True, "false": False, "none": None}

NOTHING = "nothing to compare: name CONFIG files, and --rows FILE or --sweep"
EXIT_INTERRUPTED = 130
EXIT_NO_READER = 141  # what a shell shows of a program that SIGPIPE ended

Main = Callable[..., int]
"""Takes the list of arguments, by default those of the process; returns the exit status."""


class Tool(Protocol):
    """What a command line starts, once its arguments are right."""

    def run(self, args: Namespace) -> Any:
        """Do what the arguments say."""


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
                status = _status_of(function, arguments)
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
    """Find a user's own modules too, after all others."""
    try:
        here = os.getcwd()
    except FileNotFoundError as error:
        raise UserError("the working folder is gone; change to one that exists") from error
    if here not in sys.path:
        sys.path.append(here)


def _report(error: Exception, *, debug: bool) -> int:
    """Print what ended the program; return its exit status."""
    explained = explain(error) or bug(error)
    if debug:
        console.complain("".join(traceback.format_exception(error)))
    elif not isinstance(explained, ReportedElsewhereError):
        console.complain(f"error: {console.in_one_line(str(explained))}\n")
    return explained.status


def _status_of(function: Callable[[list[str]], int | None], arguments: list[str]) -> int:
    """Call a tool's main function; `--help` and `--version` end it early, with status 0."""
    try:
        return function(arguments) or 0
    except SystemExit as ended:
        if ended.code:
            raise
        return 0


def training_main(
    title: str,
    make_tool: Callable[[], Tool],
    *,
    has_demo: bool = True,
    catalogue: Catalogue | None = None,
) -> Main:
    """Return the main function of a training tool.

    Args:
        title: What the tool does, for its help.
        make_tool: Imports what the tool needs, and returns it; called when the arguments are right.
        has_demo: Whether a demo runs without CONFIG.
        catalogue: Of short names, if there are any.
    """

    def start(arguments: list[str]) -> None:
        listed = LISTED if catalogue else ()
        args = training_parser(title, has_demo=has_demo, listed=listed).parse_args(arguments)
        if catalogue and args.list and not args.json:
            print(catalogue.listing(args.list))
            return
        _check_modes(args)
        if args.auto_resume and not args.work_dir:
            raise UserError(
                "--auto-resume needs --work-dir: a run that is restarted must find its own folder"
            )
        args.resume |= args.auto_resume
        check_json(args)
        _check_early(args, catalogue)
        if args.configs and not _is_one_of_several():
            require_paths("checkpoint", [args.eval_only])
        with json_lines.on_stdout(args.json):
            make_tool().run(args)

    return partial(run_main, start)


def _check_modes(args: Namespace) -> None:
    """Reject two things to do at once, and what has no effect on the one."""
    modes = [name for name in (*_LOOKS, *_INSTEAD) if getattr(args, name)]
    if len(modes) > 1:
        first, second, *_ = map(_flag, modes)
        raise UserError(f"{first} and {second} are two things to do; leave one of them out")
    idle = [name for name in _OF_TRAINING if getattr(args, name)]
    if idle and set(modes) & set(_INSTEAD):
        one = _flag(idle[0])
        raise UserError(f"{one} has no effect beside {_flag(modes[0])}; leave {one} out")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def comparison_main(
    title: str, make_tool: Callable[[], Tool], *, catalogue: Catalogue | None = None
) -> Main:
    """Return the main function of a comparison tool; see `training_main`."""

    def start(arguments: list[str]) -> None:
        args = comparison_parser(title).parse_args(arguments)
        if args.rows and catalogue:
            args.rows = one_file(args.rows, "tables", catalogue)
        _check_early(args, catalogue)
        if args.rows and not _is_one_of_several():
            require_configs([args.rows])
        if not args.rows and not (args.configs and args.sweep):
            raise UserError(NOTHING)
        make_tool().run(args)

    return partial(run_main, start)


def check_json(args: Namespace) -> None:
    """Reject `--json` beside what has no result; see `json_lines`."""
    others = ("list", "list_taps", "dry_run", "save_outputs")
    if args.json and (other := next((o for o in others if getattr(args, o, None)), None)):
        raise UserError(
            f"--json is for training and --eval-only; leave it out with --{other.replace('_', '-')}"
        )


def _check_early(args: Namespace, catalogue: Catalogue | None) -> None:
    """Reject misspelt options, files and names, before anything is imported to read them."""
    parse_options(args.cfg_options)
    if _is_one_of_several():
        return
    if catalogue:
        read_line(args.configs, catalogue)
    else:
        require_configs(args.configs)


def _is_one_of_several() -> bool:
    """Return whether a launcher started several: then they agree first on which one reports."""
    return launchers.adopt() > 1


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Parse `a.b=value` texts: python literals, true/false/none in any case, else strings.

    Raises:
        UserError: If a text has no `=`, no value or an empty key.
    """
    options = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not (equals and value.strip() and all(path.split("."))):
            raise UserError(f"option {text!r}: wanted KEY=VALUE such as trainer.epochs=2")
        options[path] = _parse_value(value.strip())
    return options


def _parse_value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        return text
