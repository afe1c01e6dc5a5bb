"""Every tool answers help, versions and mistakes of its command line at once, without torch."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = {path.stem: path for path in sorted(ROOT.glob("tools/*.py"))}
HEAVY = ("torch", "numpy", "torchvision", "detectron2", "torchreid", "mmengine", "matplotlib")
LONGEST = 0.5
"""Seconds of CPU, besides those that Python itself takes."""

MISSING_FILE = {
    "cls_analyse": "tsne configs/cls/data/cifr10.py resnet20=random",
    "cls_compare": "configs/demo/studnt.py --sweep trainer.epochs 1 2",
    "cls_export": "runs/nowhere",
    "cls_predict": "configs/demo/student.py photo.jpg",
    "cls_shards": "data/nowhere data/shards",
    "cls_train": "configs/demo/studnt.py",
    "det_check": "instances.json docs",
    "det_convert": "--arch resnet18 --weights resnet18.pth --out x.pth",
    "det_export": "runs/nowhere",
    "det_predict": "configs/det/retinanet_R_18_FPN.yaml photo.jpg",
    "det_train": "--config-file configs/det/retinanet_R_18.yaml MODEL.DEVICE cpu",
    "reid_check": "market",
    "reid_embed": "runs/nowhere docs",
    "reid_evaluate": "runs/nowhere --data market",
    "reid_export": "runs/nowhere",
    "reid_compare": "configs/demo/reid_studnt.py",
    "reid_search": "tools photo.jpg docs",
    "reid_train": "configs/demo/reid_studnt.py",
}
WITHIN = {"cls_analyse": "tsne "}
"""The subcommand behind which a tool's options stand."""


def run(arguments: list[str]) -> tuple[int, str, str, float]:
    """Run Python; return its exit status, what it printed and the seconds of CPU that it took."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, text=True, **streams)
    out, err = child.stdout.read(), child.stderr.read()  # short: neither fills its pipe
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    child.stdout.close()
    child.stderr.close()
    return child.returncode, out, err, usage.ru_utime + usage.ru_stime


def answer(tool: str, line: str) -> tuple[int, str, str]:
    """Run a tool, which must be quick and import nothing heavy; return status and what it said."""
    program = (
        "import atexit, runpy, sys\n"
        f"atexit.register(lambda: print('heavy:', *(n for n in {HEAVY} if n in sys.modules)))\n"
        f"sys.argv = {[str(TOOLS[tool]), *line.split()]}\n"
        f"runpy.run_path({str(TOOLS[tool])!r}, run_name='__main__')\n"
    )
    for _ in range(3):  # other programs may have the cores
        status, out, err, seconds = run(["-W", "always", "-c", program])
        if seconds >= LONGEST:
            seconds -= run(["-c", "pass"])[3]
        if seconds < LONGEST:
            break
    said, _, heavy = out.rpartition("heavy:")
    assert heavy.split() == []
    assert seconds < LONGEST
    return status, said, err


@pytest.mark.parametrize("tool", TOOLS)
def test_help_comes_at_once(tool):
    status, out, err = answer(tool, f"{WITHIN.get(tool, '')}--help")
    assert (status, err) == (0, "")
    assert "--debug" in out


@pytest.mark.parametrize("tool", TOOLS)
def test_versions_come_at_once(tool):
    status, out, err = answer(tool, "--version")
    assert (status, err) == (0, "")
    assert re.search(r"kd-core \d.*kd-cls \d.*torch \d.*Python 3", out)
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize("tool", TOOLS)
def test_a_misspelt_option_is_one_line_at_once(tool):
    status, out, err = answer(tool, f"{WITHIN.get(tool, '')}--trst my.Net")
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("error: unrecognized argument --trst; did you mean '--trust'")


@pytest.mark.parametrize("tool", TOOLS)
def test_a_missing_file_is_one_line_at_once(tool):
    status, out, err = answer(tool, MISSING_FILE[tool])
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    hint = "; (did you mean|valid names)" if tool != "cls_predict" else "$"  # no image is near
    assert re.match(rf"error: there is no [\w ]+ [\w./]+{hint}", line)


@pytest.mark.parametrize("tool", [name for name in TOOLS if re.search("train|compare", name)])
@pytest.mark.parametrize(
    "line", ["--seeds a", "--seeds 1 1", "--seeds -1", "--trust", "--work-dir"]
)
def test_a_wrong_value_is_one_line_at_once(tool, line):
    status, out, err = answer(tool, line)
    assert (status, out) == (2, "")
    (said,) = err.splitlines()
    assert line.split()[0] in said


@pytest.mark.parametrize("tool", ["cls_train", "cls_compare", "reid_train", "reid_compare"])
def test_an_option_of_a_config_without_a_value_is_one_line_at_once(tool):
    status, _, err = answer(tool, "configs/demo/student.py --cfg-options trainer.epochs")
    assert status == 2
    assert "KEY=VALUE" in err


@pytest.mark.parametrize("tool", ["cls_compare", "reid_compare"])
def test_a_comparison_of_nothing_is_one_line_at_once(tool):
    status, _, err = answer(tool, "configs/demo/student.py")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "nothing to compare" in err


def test_every_tool_is_a_file_of_its_package_and_a_command_that_is_installed():
    commands = {}
    for file in ROOT.glob("packages/*/pyproject.toml"):
        commands |= tomllib.loads(file.read_text())["project"].get("scripts", {})
    wanted = {"kd": "kd_core.front.main:main"}  # see test_front.py
    for tool in TOOLS:
        task, _, what = tool.partition("_")
        wanted[f"kd-{task}-{what}"] = f"kd_{task}.{what}:main"
        assert f"from kd_{task}.{what} import main" in TOOLS[tool].read_text()
        assert callable(importlib.import_module(f"kd_{task}.{what}").main)
    assert commands == wanted
    assert set(MISSING_FILE) == set(TOOLS)
