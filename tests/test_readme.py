"""What the README shows is what the project does."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from kd_cls import export, predict
from kd_cls.train import main
from kd_core.catalogue.names import LISTED
from kd_core.experiment.parsers import comparison_parser, training_parser

sys.path.insert(0, str(Path(__file__).parent))
from documented import make_small

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SHOWN = ["examples/loss_only.py", "examples/own_loop.py", "configs/examples/torchvision_student.py"]
TOOL = "tools/cls_train.py"


@pytest.fixture
def small_networks(monkeypatch):
    """Let networks have fewer blocks and channels."""
    make_small(monkeypatch)


def commands():
    """Return every command of the README: of its blocks, and those in back-ticks."""
    lines = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    lines += [code for code in re.findall(r"`([^`\n]+)`", prose) if code.startswith("uv run ")]
    return list(dict.fromkeys(part.strip() for line in lines for part in line.split("&&")))


def arguments(command):
    """Return what follows the training tool in a command."""
    return shlex.split(command.partition(TOOL)[2])


def test_the_first_two_blocks_are_the_two_commands():
    assert [text for kind, text in BLOCKS if kind == "bash"][:2] == [
        "pip install uv && uv run tools/cls_train.py\n",
        "uv run pytest\n",
    ]


def test_ci_runs_the_readme_s_own_test_command():
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert "uv run pytest" in lines


@pytest.mark.parametrize("path", SHOWN)
def test_examples_are_shown_as_they_are(path):
    source = (ROOT / path).read_text(encoding="utf-8")
    assert source in [text for kind, text in BLOCKS if kind == "python"]


@pytest.mark.parametrize("command", [c for c in commands() if TOOL in c and ".." not in c])
def test_training_commands_run(command, small_networks, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    given, few = arguments(command), ["data.batch_size=2"]
    if {"image_folder.py", "cifar10_small.py"} & {Path(argument).name for argument in given}:
        few.append(f"data.root={image_folders(tmp_path)}")
    given += few if "--cfg-options" in given else ["--cfg-options", *few]
    assert main([*given, "--dry-run"]) == 0


@pytest.mark.parametrize("command", [c for c in commands() if "tools/det_train.py " in c])
def test_detection_commands_run(command, monkeypatch):
    pytest.importorskip("detectron2")
    from kd_det import train

    monkeypatch.chdir(ROOT)
    given = shlex.split(command.partition("tools/det_train.py")[2])
    few = ["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8"]
    assert train.main([*given, "--dry-run", *few]) == 0


@pytest.mark.parametrize("command", [c for c in commands() if "tools/reid_train.py " in c])
def test_reid_commands_run(command, small_networks, monkeypatch):
    pytest.importorskip("torchreid")
    from kd_reid import train

    monkeypatch.chdir(ROOT)
    given = shlex.split(command.partition("tools/reid_train.py")[2])
    few = ["data.batch_size=8", "data.image_size=[64, 32]"]
    assert train.main([*given, "--dry-run", "--cfg-options", *few]) == 0


def test_comparisons_and_analyses_are_commands_of_the_systems_page():
    page = (ROOT / "docs/systems.md").read_text(encoding="utf-8")  # where each is run by a test
    shown = [c.removeprefix("uv run ") for c in commands() if re.search("cls_(comp|ana)", c)]
    assert len(shown) == 2
    assert all(f"`{command}`" in page for command in shown)


def test_every_option_of_the_table_exists():
    known = training_parser("", listed=LISTED).format_help() + comparison_parser("").format_help()
    shown = set(
        re.findall(r"(?<![\w-])--(?!nproc|golden|with|config-file|num-gpus)[a-z][a-z-]+", README)
    )
    assert shown
    assert all(option in known for option in shown)


def test_every_command_is_one_that_these_tests_know():
    known = ("pip install uv", "uv run pytest", f"uv run {TOOL}", "uv run tools/cls_export.py")
    known += ("uv run tools/cls_predict.py", "uv run torchrun", "uv run benchmarks/")
    known += ("uv run --with torchdistill --with timm benchmarks/peers.py",)
    known += ("uv run tools/det_train.py", "uv run tools/reid_train.py")
    known += ("uv run tools/cls_compare.py", "uv run tools/cls_analyse.py")
    assert all(command.startswith(known) for command in commands())


def test_export_and_predict_commands_work_on_a_run(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)
    options = ["trainer.epochs=1", "schedule.warmup_epochs=0", "data.limit_per_class=2"]
    run = tmp_path / "run"
    student = ["configs/demo/student.py", "--work-dir", str(run), "--cfg-options", *options]
    assert main(student) == 0
    assert export.main([str(run), "--format", "pt2"]) == 0
    assert (run / "student.pt2").is_file()
    image = next(image_folders(tmp_path).rglob("*.png")).relative_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert predict.main([str(run), str(image)]) == 0
    assert str(image) in capsys.readouterr().out


def test_every_file_and_folder_that_is_named_exists():
    names = re.findall(r"(?:configs|packages|docs|tools|examples|benchmarks)/[\w./-]*\w", README)
    assert names
    assert [name for name in names if not (ROOT / name).exists()] == []


def image_folders(folder):
    """Write two classes of two images for training and test."""
    from PIL import Image

    for part in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            place = folder / "images" / part / name
            place.mkdir(parents=True, exist_ok=True)
            for index in range(2):
                color = (100 * number, 80 * index, 50)
                Image.new("RGB", (40, 30), color).save(place / f"{index}.png")
    return folder / "images"
