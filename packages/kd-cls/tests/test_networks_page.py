"""The command of docs/networks.md trains."""

import re
import shlex
from pathlib import Path

from kd_cls import train
from kd_cls.student import read_facts

ROOT = Path(__file__).parents[3]


def test_the_command_trains_a_network_by_its_short_name(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs/networks.md").read_text(encoding="utf-8")
    command = re.search(r"^uv run tools/cls_train\.py (.*)$", page, re.M)
    arguments = shlex.split(command[1])
    arguments[-1] = str(tmp_path / "run")
    assert train.main(arguments) == 0
    network = read_facts(tmp_path / "run/student.safetensors")["network"]
    assert network["model_name"] == "test_resnet"
