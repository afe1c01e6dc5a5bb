"""Every config loads, and every command that a config documents builds and takes a step."""

import sys
from itertools import takewhile
from pathlib import Path

import pytest
import torch
from kd_cls.compare import main as compare_classifiers
from kd_cls.data.shards.writing import write_shards
from kd_cls.models import build_model
from kd_cls.stand_ins import SHAPES
from kd_cls.train import main as train_classifier
from kd_core.config.reading import load_config
from kd_reid.compare import main as compare_embedders
from kd_reid.train import main as train_embedder
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from documented import QUICK, SYSTEMS, documented, make_small, smaller

pytestmark = pytest.mark.spread

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    path for name in ("cls", "reid", "demo") for path in ROOT.glob(f"configs/{name}/**/*.py")
)
READMES = [ROOT / f"configs/{name}/README.md" for name in ("cls", "reid")]
PAGES = ("speed", "multi_label", "own_data", "foundation")
TOOLS = {
    "tools/cls_train.py": train_classifier,
    "tools/cls_compare.py": compare_classifiers,
    "tools/reid_train.py": train_embedder,
    "tools/reid_compare.py": compare_embedders,
}


def name_of(path):
    return str(path.relative_to(ROOT / "configs").with_suffix(""))


def commands():
    """Return all documented commands, each once."""
    names = ("packages/kd-reid/README.md", *(f"docs/{page}.md" for page in PAGES))
    pages = [ROOT / name for name in names]
    paths = [*CONFIGS, *READMES, SYSTEMS, *pages]
    return list(dict.fromkeys(command for path in paths for command in documented(path)))


def named(command):
    return "+".join(Path(name).stem for name in command[1:] if name.endswith(".py"))


@pytest.fixture(scope="module", autouse=True)
def quick(pytestconfig):
    """Let CIFAR's stand-in have smaller images; unless `--slow`, networks are smaller too."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(SHAPES, "cifar100", (16, 100))
        if not pytestconfig.getoption("--slow"):
            make_small(monkeypatch)
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory, quick):
    """Return a file with the weights of a student, for commands that start from one."""
    file = tmp_path_factory.mktemp("weights") / "student.pth"
    torch.save(build_model("resnet8x4", num_classes=100).state_dict(), file)
    return file


def draw_images(folder, number):
    folder.mkdir(parents=True)
    for image in range(number):
        Image.new("RGB", (40, 30)).save(folder / f"{image}.png")


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Return a folder of a few images in every layout, which commands read."""
    folder = tmp_path_factory.mktemp("data")
    for place, numbers in (("images", 1), ("cifar10", 1), ("photos", 2)):
        for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
            draw_images(folder / place / name, numbers)
    for name in "abcdefgh":  # with cat and dog ten, as many as the pairs of CIFAR-10 have
        for part in ("train", "test"):
            draw_images(folder / "images" / part / name, 1)
    lines = [
        f"{path}/0.png,{path[-3:]}" for path in ("train/cat", "train/dog", "test/cat", "test/dog")
    ]
    text = "\n".join(["path,label,split", *(f"{line},{line.partition('/')[0]}" for line in lines)])
    (folder / "images/list.csv").write_text(text, encoding="utf-8")
    write_shards(str(folder / "images"), folder / "shards", size=8)
    for person in range(8):
        for number, place in enumerate(("cam1_1", "cam1_2", "cam2_1", "cam2_2")):
            (folder / "people" / str(person)).mkdir(parents=True, exist_ok=True)
            image = Image.new("RGB", (16, 32), (person, number, 0))  # no two are one file
            image.save(folder / "people" / str(person) / f"{place}.png")
    draw_images(folder / "crops/cam1", 12)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch, weights, data):
    """Work where there are but the configs, a few images and a student; refuse downloads."""

    def refuse(*args, **kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    page = (ROOT / "docs/foundation.md").read_text(encoding="utf-8")
    (tmp_path / "my_teacher.py").write_text(
        page.partition("# my_teacher.py")[2].partition("```")[0]
    )
    for name in ("configs", "examples", "packages"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data").symlink_to(data)
    (tmp_path / "runs/NAME").mkdir(parents=True)
    for name in ("FILE", "runs/NAME/student.pth"):
        (tmp_path / name).symlink_to(weights)
    monkeypatch.chdir(tmp_path)


def dry_run(command):
    """Run a command on small batches; images of 224 pixels are made smaller too."""
    tool, *arguments = command
    task = tool.removeprefix("tools/").partition("_")[0]
    if "--sweep" in arguments:  # the ends of the range
        first = arguments.index("--sweep") + 2
        values = [*takewhile(lambda word: not word.startswith("--"), arguments[first:])]
        arguments[first : first + len(values)] = values[:1] + values[1:][-1:]
    elif tool.endswith("compare.py"):  # all rows are read, and one is run
        arguments += ["--only", one_row(arguments)]
    options = [*QUICK[task], *smaller(arguments)]
    return TOOLS[tool]([*arguments, "--dry-run", "--cfg-options", *options])


def one_row(arguments):
    """Return the label of a table's last row."""
    return list(load_config(arguments[arguments.index("--rows") + 1])["rows"])[-1]


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_config_loads_and_says_how_it_is_used(path):
    assert load_config(path)
    file = str(path.relative_to(ROOT))
    assert any(file in command for command in documented(path)), f"no command with {file}"


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_readme_lists_every_file_to_compose(readme):
    text = readme.read_text(encoding="utf-8")
    folders = ("data", "pairs", "methods", "recipes")
    files = [path for path in CONFIGS if path.parent in [readme.parent / f for f in folders]]
    assert files
    assert [path for path in files if f"{path.parent.name}/{path.name}" not in text] == []


@pytest.mark.parametrize("command", commands(), ids=named)
def test_documented_command_takes_a_step(command, folder, capsys):
    if any("webdataset" in argument for argument in command):
        pytest.importorskip("webdataset")
    assert dry_run(command) == 0
    assert "one training step done" in capsys.readouterr().out
