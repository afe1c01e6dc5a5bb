"""What the package's README shows of own networks and teachers is what the tool does."""

import re
import shlex
from pathlib import Path

import pytest
from kd_reid.train import main

ROOT = Path(__file__).parents[3]
README = (ROOT / "packages/kd-reid/README.md").read_text(encoding="utf-8")
TOOL = "tools/reid_train.py"


def commands():
    """Return the commands of the sections on own networks and on teachers."""
    section = README.partition("## Your own network\n")[2].partition("## Other cameras")[0]
    return [line for line in section.splitlines() if line.startswith("uv run")]


def test_there_are_commands():
    assert len(commands()) == 5


@pytest.mark.parametrize("command", commands())
def test_they_run(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    command = command.replace("'FILE'", "'random'")
    command = command.replace(
        "'timm:vit_tiny_patch16_224', 'w", "{'type': 'timm:vit_tiny_patch16_224', 'depth': 1}, 'w"
    )
    command = re.sub(r"'img_size'", "'depth': 1, 'img_size'", command)
    few = ["data.num_train_ids=8", "data.num_test_ids=4", "data.batch_size=8"]
    assert main([*shlex.split(command.partition(TOOL)[2]), *few, "--dry-run"]) == 0
