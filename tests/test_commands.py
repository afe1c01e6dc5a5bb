"""Every command of every page is one that its tool takes, up to the config's last key.

Pages have tests of their own that run what they show; here no command is left out.
"""

import importlib
import re
import shlex
from contextlib import suppress
from pathlib import Path

import pytest
from kd_core.experiment import command_line, demo
from kd_core.experiment.parsers import ToolParser
from kd_core.experiment.parsing import read_experiment

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("configs/*/README.md")),
    *sorted(ROOT.glob("packages/*/README.md")),
]
TOOL = re.compile(r"(?:tools/(cls|det|reid)_(\w+)\.py|\bkd-(cls|det|reid)-(\w+))(?= |$)")
READ = ("cls_train", "reid_train")
"""Tools whose configs are read as well."""


NEEDED = ("my_teacher.py", "teacher.safetensors", "PAIR.py", "WHAT DATA_CONFIG")
"""What the reader writes, or an earlier command makes; and a choice."""


class Taken(BaseException):
    """A tool has taken its arguments."""


def commands():
    """Return tool and arguments of every command, with the page that shows it first."""
    found = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^ *```bash\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
        blocks += re.findall(r"`((?:uv run |python )?tools/\w+\.py [^`\n]+)`", text)
        for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|\||[;|&](?= |$)", line.partition(" #")[0]):
                if match := TOOL.search(part):
                    tool = "_".join(filter(None, match.groups()))
                    found.setdefault((tool, part[match.end() :].strip()), page)
    shown = [(page, *command) for command, page in found.items()]
    return [one for one in shown if not any(part in one[2] for part in NEEDED)]


COMMANDS = commands()


@pytest.mark.parametrize(
    ("page", "tool", "arguments"), COMMANDS, ids=[f"{tool} {rest}" for _, tool, rest in COMMANDS]
)
def test_a_tool_takes_what_a_page_shows(page, tool, arguments, monkeypatch):
    monkeypatch.chdir(ROOT)
    parse = ToolParser.parse_args

    def parse_args(self, args=None, namespace=None):
        parsed = parse(self, args, namespace)
        if tool in READ:
            return parsed
        raise Taken

    def read(*args, **options):
        read_experiment(*args, **options)
        raise Taken

    monkeypatch.setattr(ToolParser, "parse_args", parse_args)
    for module in (command_line, demo):
        monkeypatch.setattr(module, "read_experiment", read)
    task, _, name = tool.partition("_")
    main = importlib.import_module(f"kd_{task}.{name}").main
    with suppress(Taken):
        assert main(shlex.split(arguments)) == 0, page.name  # of --list


def test_the_pages_show_commands_of_every_tool():
    tools = {path.stem for path in (ROOT / "tools").glob("*.py")}
    assert {tool for _, tool, _ in COMMANDS} == tools
