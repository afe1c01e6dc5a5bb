"""Every config loads, and every command that a config documents builds and takes a step."""

import ast
import shlex
from pathlib import Path

import pytest
from kd_cls.train import main
from kd_core.config import load_config
from PIL import Image

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(path for name in ("cls", "demo") for path in ROOT.glob(f"configs/{name}/**/*.py"))
README = ROOT / "configs/cls/README.md"
TOOL = "tools/cls_train.py"
QUICK = ["--dry-run", "--cfg-options", "data.batch_size=2"]


def name_of(path):
    return str(path.relative_to(ROOT / "configs").with_suffix(""))


def documented(path):
    """Return the arguments of the commands in a config's docstring, or in a text."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text), clean=False) or ""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if TOOL in line]
    return [shlex.split(line.partition(TOOL)[2], comments=True) for line in lines]


def commands():
    """Return all documented commands, each once."""
    found = {
        tuple(arguments): None for path in [*CONFIGS, README] for arguments in documented(path)
    }
    return [list(arguments) for arguments in found]


def named(arguments):
    return "+".join(Path(name).stem for name in arguments if name.endswith(".py"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work where there is nothing but a few images; refuse downloads."""

    def refuse(*args, **kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    for place in ("images", "cifar10"):
        for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
            (tmp_path / "data" / place / name).mkdir(parents=True)
            Image.new("RGB", (40, 30)).save(tmp_path / "data" / place / name / "0.png")
    monkeypatch.chdir(tmp_path)


def dry_run(arguments):
    """Run a command on small batches; images of 224 pixels are made smaller too."""
    files = [str(ROOT / name) if name.startswith("configs/") else name for name in arguments]
    large = any(Path(name).name in ("imagenet.py", "image_folder.py") for name in arguments)
    return main([*files, *QUICK, *(["data.image_size=64"] if large else [])])


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_config_loads_and_says_how_it_is_used(path):
    assert load_config(path)
    file = str(path.relative_to(ROOT))
    assert any(file in arguments for arguments in documented(path)), f"no command with {file}"


def test_readme_lists_every_file_to_compose():
    text = README.read_text(encoding="utf-8")
    files = [path for path in CONFIGS if path.parent.name in ("data", "pairs", "methods")]
    assert files
    assert [path for path in files if f"{path.parent.name}/{path.name}" not in text] == []


@pytest.mark.parametrize("arguments", commands(), ids=named)
def test_documented_command_takes_a_step(arguments, folder, capsys):
    assert dry_run(arguments) == 0
    assert "one training step done" in capsys.readouterr().out
