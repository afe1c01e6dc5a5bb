"""Each analysis, from its command line to a picture or a table."""

import errno
import json
from pathlib import Path

import pytest
import torch
from kd_cls.adapter import ADAPTER
from kd_cls.analyse import main
from kd_cls.classifier import Classifier
from kd_cls.data import synthetic
from kd_cls.models import build_model
from kd_core.files.checkpoint import export
from PIL import Image

TEACHER = ["--teacher", "resnet14=random"]
PIXELS = {  # width and height of two models and their teacher
    "tsne": ((1000, 2100), (400, 800)),
    "correlation": ((800, 1700), (400, 900)),
    "cka": ((800, 1700), (400, 900)),
    "cam": ((600, 1200), (1000, 2000)),
    "reliability": ((1000, 2100), (500, 1000)),
}


@pytest.fixture
def arguments(tmp_path, monkeypatch) -> list[str]:
    """A data config of few images, and two models."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.py").write_text(
        'data = dict(type="kd_cls.data.synthetic", num_classes=4, num_test=12, batch_size=5)\n'
    )
    torch.manual_seed(1)
    torch.save({"model": build_model("resnet8", num_classes=4).state_dict()}, "resnet8.pth")
    return ["tiny.py", "resnet8=resnet8.pth", "vgg8=random"]


@pytest.mark.parametrize("what", PIXELS)
def test_a_picture_is_drawn(arguments, what, capsys):
    command = [what, *arguments, *TEACHER, "--out", "new/a.png", "--json", "a.json"]
    assert main(command) == 0
    assert capsys.readouterr().out.split() == ["wrote", "new/a.png", "wrote", "a.json"]
    assert [file.name for file in Path("new").iterdir()] == ["a.png"]
    with Image.open("new/a.png") as image:
        image.load()
        assert image.format == "PNG"
        for side, (low, high) in zip(image.size, PIXELS[what], strict=True):
            assert low <= side <= high
        assert len(image.convert("RGB").resize((64, 64)).getcolors(64 * 64)) > 50
    assert json.loads(Path("a.json").read_text())


@pytest.mark.parametrize("what", ["evaluate", "noise"])
def test_a_table_is_printed(arguments, what, capsys):
    command = [what, *arguments, *TEACHER, "--labels", "[b]one", "two", "--json", "a.json"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    numbers = json.loads(Path("a.json").read_text())
    assert list(numbers) == ["teacher", "[b]one", "two"]
    assert all(f" {label} " in shown for label in numbers)
    value = {"evaluate": "cross_entropy", "noise": "noise"}[what]
    assert all(f"{row[value]:.4f}" in shown for row in numbers.values())
    assert sorted(Path().glob("*.png")) == []


def test_own_options_reach_the_analysis(arguments):
    assert main(["reliability", *arguments, "--bins", "4", "--json", "a.json"]) == 0
    assert len(json.loads(Path("a.json").read_text())["resnet8"]["share"]) == 4
    assert Path("reliability.png").is_file()
    Image.new("RGB", (9, 30)).save("photo.png")
    command = ["cam", *arguments, "--images", "photo.png", "--method", "gradcam"]
    assert main([*command, "--json", "a.json"]) == 0
    assert json.loads(Path("a.json").read_text())["resnet8"][0]["image"] == "photo.png"


def test_the_config_may_be_changed_and_the_images_limited(arguments):
    changed = ["--limit", "3", "--cfg-options", "data.num_test=40", "data.image_size=48"]
    assert main(["tsne", *arguments, "--json", "a.json", *changed]) == 2
    changed[1] = "20"
    assert main(["tsne", *arguments, "--json", "a.json", *changed]) == 0
    points = json.loads(Path("a.json").read_text())["points"]
    assert {name: len(places) for name, places in points.items()} == {
        "resnet8": 20,
        "vgg8 (random)": 20,
    }


def test_a_hundred_classes_are_drawn_without_a_legend(arguments):
    many = ["--cfg-options", "data.num_classes=100", "data.num_test=100"]
    for what in ("tsne", "correlation"):
        assert main([what, "tiny.py", "resnet8=random", *TEACHER, *many]) == 0
        with Image.open(f"{what}.png") as image:
            assert max(image.size) < 2100


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["tsne", "tiny.py", "resnet9=random"], "no network is called 'resnet9'; did you mean"),
        (["tsne", "tinny.py", "resnet8=random"], "no config file tinny.py; did you mean 'tiny.py'"),
        (["tsne", "tiny.py", "resnet8=random", "--out", "a.jpg"], "--out a.jpg: wanted"),
        (["noise", "tiny.py", "resnet8=random", "--limit", "0"], "--limit 0: wanted"),
        (["noise", "net.py", "resnet8=random"], "net.py has no `data`"),
        (["noise", "tiny.py", "a=random", "--labels", "teacher", *TEACHER], "called 'teacher'"),
        (
            ["cam", "tiny.py", "resnet8=random", "--images", "no.png", "--target", "true"],
            "there is no image no.png",
        ),
        (
            ["cam", "tiny.py", "resnet8=random", "--images", "a.png", "--target", "true"],
            "use --target predicted",
        ),
        (["noise", "gone.py", "a=random", "--json", "."], "no config file gone.py"),
        (["noise", "tiny.py", "gone=random", "--json", "."], "--json .: is a folder; wanted"),
        (
            ["cam", "tiny.py", "resnet8=random", "--images", "a.png", "--limit", "3"],
            "--limit has no effect beside --images",
        ),
        (
            ["cka", "tiny.py", "resnet8=random", *TEACHER, "--layers", "layer9"],
            "no module 'layer9'; did you mean",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, capsys, command, message):
    Path("net.py").write_text('student = dict(network=dict(type="torch.nn.Identity"))\n')
    Image.new("RGB", (8, 8)).save("a.png")
    assert main(command) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""


@pytest.mark.parametrize("what", ["correlation", "cka"])
def test_a_comparison_needs_a_teacher(arguments, what, capsys):
    assert main([what, *arguments]) == 2
    assert "--teacher" in capsys.readouterr().err


@pytest.fixture
def run_folder(arguments) -> Path:
    """The folder of a finished run on the classes of the data."""
    folder = Path("runs/one")
    node = {"type": "kd_cls.models.build_model", "name": "resnet8"}
    network = build_model("resnet8", num_classes=4)
    data = synthetic(num_classes=4, image_size=32)
    student = Classifier(network, mean=(0.5,) * 3, std=(0.5,) * 3)
    export(network.state_dict(), folder / "student", ADAPTER.metadata(node, data, student))
    return folder


def test_a_picture_goes_into_the_folder_of_the_first_run_unless_told(run_folder, capsys):
    few = ["--limit", "4"]
    assert main(["reliability", "tiny.py", "resnet8=resnet8.pth", str(run_folder), *few]) == 0
    place = run_folder / "analysis/reliability.png"
    shown = capsys.readouterr()
    assert shown.out == f"wrote {place}\n"
    assert f"the picture goes into {run_folder}, the first run's folder" in shown.err
    assert place.is_file()
    place.unlink()
    file = str(run_folder / "student.safetensors")
    assert main(["cam", "tiny.py", file, "--limit", "1"]) == 0
    assert "first run" not in capsys.readouterr().err  # there is one model
    assert main(["cam", "tiny.py", file, "--limit", "1", "--out", "a.png"]) == 0
    assert main(["cam", "tiny.py", "resnet8=resnet8.pth", "--limit", "1"]) == 0
    assert [path.name for path in place.parent.iterdir()] == ["cam.png"]
    assert sorted(path.name for path in Path().glob("*.png")) == ["a.png", "cam.png"]


def test_a_folder_that_cannot_be_written_is_told_before_any_work(run_folder, monkeypatch, capsys):
    (run_folder / "analysis").touch()  # a file where the folder should be
    assert main(["cam", "tiny.py", str(run_folder)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "runs/one/analysis/cam.png: a part of the path is a file" in said
    assert "--out FILE.png names another place" in said
    (run_folder / "analysis").unlink()

    def refuse(**options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert main(["cam", "tiny.py", str(run_folder)]) == 2
    assert "cam.png: permission denied; " in capsys.readouterr().err
    assert not (run_folder / "analysis").exists()
