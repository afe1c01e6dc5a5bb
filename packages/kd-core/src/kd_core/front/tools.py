"""The tools of all installed tasks, as the metadata of their packages names them."""

from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from kd_core.errors import UserError, nearest

GROUP = "kd.tasks"
"""Entry points, by the task's name: what has its short names, see `Catalogue.listing`."""

_OURS = ("cls", "det", "reid")
_SAME_AS = {"evaluate": ("train", "--eval-only")}
"""Of a command that a task has no tool for, the tool and the option that do the same."""
_FLAGS = ("det",)
"""Tasks whose option of this name takes no file: Detectron2's."""


class Tools(NamedTuple):
    """What is installed.

    Attributes:
        tasks: Entry points of their short names, by task.
        by_command: Entry points of the main functions of tools, by command and task. A tool is
            the script `kd-TASK-COMMAND`.
    """

    tasks: dict[str, EntryPoint]
    by_command: dict[str, dict[str, EntryPoint]]

    def tool(self, command: str, task: str) -> tuple[EntryPoint, list[str]]:
        """Return a tool, and the arguments that go before the user's.

        Raises:
            UserError: If there is no such tool.
        """
        known = self.by_command[command]
        if task not in known:
            raise self._unknown(f"kd {command} has no task {task!r}", task, known)
        leading = [] if known[task].name.endswith(f"-{command}") else [_SAME_AS[command][1]]
        return known[task], leading

    def catalogue(self, task: str) -> Any:
        """Return what has the short names of a task; it is imported.

        Raises:
            UserError: If there is no such task.
        """
        if task not in self.tasks:
            raise self._unknown(f"there is no task {task!r}", task, self.tasks)
        return self.tasks[task].load()

    def _unknown(self, said: str, task: str, known: dict[str, EntryPoint]) -> UserError:
        if task.startswith("-"):
            return UserError(f"{said}; options come after it; TASK is one of {', '.join(known)}")
        if task in _OURS and task not in self.tasks:
            return UserError(f"{said}; install the package kd-{task}")
        return UserError(f"{said}{nearest(task, known)}")


def takes_file(task: str) -> bool:
    """Return whether an option that stands for a command takes a file."""
    return task not in _FLAGS


def missing_tasks(tools: Tools) -> list[str]:
    """Return which of our tasks are not installed."""
    return [task for task in _OURS if task not in tools.tasks]


def installed_tools() -> Tools:
    """Return the tools of all tasks; nothing of theirs is imported."""
    tasks = {entry.name: entry for entry in entry_points(group=GROUP)}
    found: dict[str, dict[str, EntryPoint]] = {}
    for entry in entry_points(group="console_scripts"):
        prefix, _, rest = entry.name.partition("-")
        task, _, command = rest.partition("-")
        if prefix == "kd" and task in tasks and command:
            found.setdefault(command, {})[task] = entry
    for command, (other, _) in _SAME_AS.items():
        if other in found:
            found[command] = {**found[other], **found.get(command, {})}
    by_command = {command: dict(sorted(found[command].items())) for command in sorted(found)}
    return Tools(dict(sorted(tasks.items())), by_command)
