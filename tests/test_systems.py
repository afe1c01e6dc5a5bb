"""docs/systems.md has every row of the five systems, and each of its commands runs.

Commands of training and comparison run in test_configs.py, on stand-ins for the data; here are the
others, on random images in the files of CIFAR-100.
"""

import pickle
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from kd_cls.models import build_model
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from documented import make_small

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/systems.md").read_text(encoding="utf-8")
ROWS = {"M": 25, "K": 6, "S": 8, "L": 8, "G": 10}
"""How many rows each system has, by the letter that numbers them."""

RUN_ELSEWHERE = tuple(
    f"tools/{name}.py" for name in ("cls_train", "cls_compare", "reid_train", "reid_compare")
)
OTHERS = [
    command
    for command in dict.fromkeys(re.findall(r"`(tools/[^`]+)`", PAGE))
    if not command.startswith(RUN_ELSEWHERE)
]


def table():
    """Yield the ids and the cells of every row."""
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.match(r"[A-Z]\d", cells[0]):
            yield cells


def ids(text):
    """Return what `M1`, `S1, S2` and `M1 to M13` name."""
    first, _, last = text.partition(" to ")
    if last:
        return [f"{first[0]}{number}" for number in range(int(first[1:]), int(last[1:]) + 1)]
    return text.split(", ")


def test_every_row_of_the_five_systems_is_there_with_a_command():
    found = {name for cells in table() for name in ids(cells[0])}
    expected = {f"{letter}{n}" for letter, count in ROWS.items() for n in range(1, count + 1)}
    assert found == expected
    for cells in table():
        assert len(cells) == 5, cells[0]
        assert re.fullmatch(r"`tools/\w+\.py[^`]*`", cells[2]), cells[0]
        assert cells[3].startswith("tested"), cells[0]


def test_what_is_named_exists():
    for path in re.findall(r"(?:configs|tools|docs|examples)/[\w./-]*\w", PAGE):
        assert list(ROOT.glob(path)) or list(ROOT.glob(f"{path}*")), path
    for link in re.findall(r"\]\(([\w./]+\.md)", PAGE):
        assert (ROOT / "docs" / link).is_file(), link


@pytest.fixture(scope="module")
def small_networks():
    """Let networks have fewer blocks and channels."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_small(monkeypatch)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_networks):
    """Make a folder with random images as CIFAR-100, a teacher's weights and two finished runs."""
    from kd_cls.train import main

    folder = tmp_path_factory.mktemp("systems")
    (folder / "configs").symlink_to(ROOT / "configs")
    cifar = folder / "data/cifar-100-python"
    cifar.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (130, 3072), dtype=np.uint8)
    for name in ("train", "test"):
        labels = [index % 20 for index in range(130)]
        (cifar / name).write_bytes(pickle.dumps({"data": pixels, "fine_labels": labels}))
    names = {"fine_label_names": [f"class {index}" for index in range(100)]}
    (cifar / "meta").write_bytes(pickle.dumps(names))
    torch.manual_seed(0)
    torch.save(build_model("resnet32x4", num_classes=100).state_dict(), folder / "FILE")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        take_any_checksum(patch)
        for name in ("NAME", "OTHER"):
            files = ["configs/cls/data/cifar100.py", "configs/cls/networks/resnet8.py"]
            options = ["trainer.epochs=1", "data.batch_size=65", "trainer.loggers=[]"]
            run = [*files, "--work-dir", f"runs/{name}", "--cfg-options", *options]
            assert main(run) == 0
    return folder


def take_any_checksum(patch):
    patch.setattr(
        torchvision.datasets.cifar,
        "check_integrity",
        lambda path, md5=None: Path(path).is_file(),
    )


@pytest.mark.parametrize("command", [c for c in OTHERS if "cls_analyse" in c])
def test_analysis_runs(command, folder, monkeypatch, capsys):
    from kd_cls.analyse import main

    monkeypatch.chdir(folder)
    take_any_checksum(monkeypatch)
    given = shlex.split(command)[1:]
    assert main(given) == 0, capsys.readouterr().err
    runs = [part for part in given if part.startswith("runs/")]  # the first has the picture
    picture = Path(*(f"{run}/analysis" for run in runs[:1]), f"{given[0]}.png")
    if given[0] in ("evaluate", "noise"):
        assert "resnet32x4" in capsys.readouterr().out or "runs/" in command
    else:
        assert min(Image.open(picture).size) > 200


def test_every_other_command_is_one_that_a_test_runs():
    others = [command for command in OTHERS if "cls_analyse" not in command]
    for command in others:  # test_det_methods.py takes a step with every such file
        path = ROOT / command.removeprefix("tools/det_train.py --config-file ")
        assert path.parent == ROOT / "configs/det"
        assert "KD:" in path.read_text(encoding="utf-8")
