"""The command `kd`: `kd train cls ...` is `kd-cls-train ...`, and so for all tools."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kd_core.catalogue.names import LISTED
from kd_core.errors import UserError, nearest
from kd_core.experiment.cli import run_main
from kd_core.experiment.parsers import EXIT_STATUSES, ToolParser, add_general_options
from kd_core.front.examples import write_examples
from kd_core.front.tools import Tools, installed_tools, missing_tasks, takes_file
from kd_core.runtime.paths import require_paths
from kd_core.runtime.versions import versions

_HELP = ("-h", "--help")
_ANSWERED = (*_HELP, "--version")
"""What a tool answers, whatever else the command line has."""
_RUNS = "runs"
_EXAMPLES = "examples"
_USAGE = (
    "COMMAND TASK ...",
    "list WHAT [TASK]",
    "list runs [FOLDER]",
    "examples [FOLDER]",
    "--version",
)
_DOES = {
    "train": "train a model, alone or with teachers; without CONFIG, a demo",
    "compare": "train the rows of a table over several seeds",
    "evaluate": "measure a model, without training",
    "export": "write a finished student as ONNX and the like",
    "predict": "predict images with a finished student",
    "analyse": "pictures and tables of finished models",
    "check": "check a data set before training on it",
    "embed": "embed the pictures of a folder",
    "search": "find the pictures of a gallery that look like others",
    "shards": "make WebDataset shards of a folder of images",
    "convert": "write weights of torchvision as Detectron2 reads them",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return run_main(_main, argv)


def _main(arguments: list[str]) -> int:
    first, *rest = arguments or ["--help"]
    tools = installed_tools()
    if first in _ANSWERED:
        if rest:
            raise UserError(f"kd {first} {' '.join(rest)}: {first} is used alone, or at the end")
        print(versions() if first == "--version" else _help(tools))
        return 0
    if first == "list":
        with _called("kd list"):
            return _list(rest, tools)
    if first == _EXAMPLES:
        return _write_examples(rest)
    if first not in tools.by_command:
        raise _no_command(first, tools)
    if rest[:1] == ["--version"]:
        return _main(rest)
    if not rest or rest[0] in _HELP:
        tasks = ", ".join(tools.by_command[first])
        print(f"kd {first} TASK ...: {_DOES.get(first, first)}. TASK is one of {tasks};")
        print(f"kd {first} TASK --help lists the arguments")
        return 0
    task, *rest = rest
    tool, leading = tools.tool(first, task)
    if set(rest) & set(_ANSWERED):
        leading = []
    elif leading and takes_file(task) and (not rest or rest[0].startswith("-")):
        raise UserError(
            f"kd {first} {task}: the checkpoint is missing; write kd {first} {task} CHECKPOINT "
            "CONFIG ..., options after it"
        )
    with _called(f"kd {first} {task}"):
        return int(tool.load()([*leading, *rest]))


def _no_command(name: str, tools: Tools) -> UserError:
    """Return the error for a command that does not exist."""
    if name in _DOES and (missing := missing_tasks(tools)):
        packages = " or ".join(f"kd-{task}" for task in missing)
        return UserError(f"kd {name} needs a task that is not installed: install {packages}")
    if name in ("--debug", "--trust"):
        return UserError(f"kd {name}: options come after COMMAND TASK; kd --help lists both")
    known = [*tools.by_command, "list", _EXAMPLES, "--help", "--version"]
    return UserError(f"kd has no command {name!r}{nearest(name, known)}")


def _help(tools: Tools) -> str:
    """Return the text of `--help`."""
    rows = [("COMMAND", "TASK", "")]
    rows += [(c, " ".join(tools.by_command[c]), _DOES.get(c, "")) for c in tools.by_command]
    rows += [("list", "[TASK]", f"short names: kd list {'|'.join(LISTED)}")]
    rows += [("list", "runs", "finished and stopped runs: kd list runs [FOLDER]")]
    rows += [(_EXAMPLES, "[FOLDER]", "write the files that the tutorials name")]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"  {c:<{widths[0]}}  {t:<{widths[1]}}  {text}".rstrip() for c, t, text in rows]
    usage = "usage: " + "\n       ".join(f"kd {line}" for line in _USAGE) + "\n"
    if not tools.tasks:
        lines.append("\nNo task is installed: install the package kd-cls, kd-det or kd-reid.")
    example = "kd train cls digits resnet20,resnet8 dkd"
    title = "Knowledge distillation for images.\n"
    return "\n".join([usage, title, *lines, f"\n  {example}", f"\n{EXIT_STATUSES}"])


def _list(arguments: list[str], tools: Tools) -> int:
    """Print the short names of one task, or of all; or the runs in a folder."""
    if arguments[:1] == [_RUNS]:
        return _list_runs(arguments[1:])
    parser = ToolParser(description="Print what can be named on a command line, or a run's place.")
    kinds = (*LISTED, _RUNS)
    text = f"{'|'.join(LISTED)}; or {_RUNS}, see kd list {_RUNS} --help"
    parser.add_argument("what", metavar="WHAT", choices=kinds, help=text)
    parser.add_argument("task", metavar="TASK", nargs="?", help="default: all tasks")
    args = add_general_options(parser).parse_args(arguments)
    if args.what == _RUNS:
        raise UserError(f"kd list: put {_RUNS} before its options")
    tasks = [args.task] if args.task else list(tools.tasks)
    for number, task in enumerate(tasks):
        catalogue = tools.catalogue(task)
        if not args.task:
            print(f"{'' if number == 0 else chr(10)}{task}:")
        print(catalogue.listing(args.what))
    return 0


def _list_runs(arguments: list[str]) -> int:
    """Print the runs in a folder; torch is imported once the arguments are right."""
    parser = ToolParser(
        prog=f"kd list {_RUNS}",
        description="Find runs again: a table of all below FOLDER, the newest last.",
    )
    text = "where to look; default: runs, where tools put what has no --work-dir"
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default="runs", help=text)
    parser.add_argument("--json", action="store_true", help="a line of JSON for each run")
    args = add_general_options(parser).parse_args(arguments)
    require_paths("folder", [args.folder])
    folder = Path(args.folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"{args.folder} is not a folder; name one with runs")
    from kd_core.front.run_table import list_runs

    list_runs(folder, as_json=args.json)
    return 0


def _write_examples(arguments: list[str]) -> int:
    """Write the examples into a folder, and print what is there."""
    parser = ToolParser(
        prog=f"kd {_EXAMPLES}",
        description="Write examples/ and configs/examples/, the files that the tutorials name.",
    )
    text = "where to write them; default: here"
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default=".", help=text)
    args = add_general_options(parser).parse_args(arguments)
    if not args.folder.strip():
        raise UserError(f"kd {_EXAMPLES}: FOLDER is empty; leave it out to write them here")
    folder = Path(args.folder).expanduser()
    for name, count in write_examples(folder).items():
        print(f"{folder / name}: {count} files")
    return 0


@contextmanager
def _called(name: str) -> Iterator[None]:
    """Let parsers call themselves by this name in their help."""
    before = sys.argv[0]
    sys.argv[0] = name
    try:
        yield
    finally:
        sys.argv[0] = before
