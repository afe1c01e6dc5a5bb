"""One command shows the objects in pictures, also by an exported file."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

pytest.importorskip("detectron2")
import kd_det  # noqa: F401  before Detectron2
from kd_det import export
from kd_det.deploy.prediction import pictures_of, places_of
from kd_det.predict import main


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def picture(tmp_path):
    """Writes a picture, the same for the same seed."""

    def write(name="one.png", seed=0, **options):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, **options)
        return str(file)

    return write


@pytest.fixture(scope="module")
def exported(finished_run, tmp_path_factory):
    """An exported RetinaNet."""
    folder = tmp_path_factory.mktemp("exported")
    given = ["--no-latency", "--format", "onnx", "--output", str(folder)]
    assert export.main([str(finished_run("retinanet")), *given]) == 0
    return folder / "student.onnx"


def lines(folder="predictions"):
    return [json.loads(line) for line in Path(folder, "predictions.jsonl").read_text().splitlines()]


def predict(student, *arguments):
    return main([str(student), "--threshold", "0.4", *map(str, arguments)])


def test_a_picture_with_boxes_and_a_line_of_json_are_written(finished_run, picture, capsys):
    file = picture()
    assert predict(finished_run("retinanet"), file) == 0
    (line,) = lines()
    assert (line["file"], line["height"], line["width"]) == (file, 60, 80)
    assert len(line["boxes"]) == len(line["scores"]) == len(line["categories"]) > 3
    assert line["scores"] == sorted(line["scores"], reverse=True)
    assert min(line["scores"]) >= 0.4
    ids = dict(zip(["red", "[b]green[/b]", "blue"], [1, 2, 7], strict=True))
    assert line["category_ids"] == [ids[name] for name in line["categories"]]
    assert all(x >= 0 and x + w <= 80.01 and y + h <= 60.01 for x, y, w, h in line["boxes"])
    drawn = np.asarray(Image.open("predictions/one.png.png").convert("RGB"))
    assert drawn.shape == (480, 640, 3)  # eight times as large, so that names can be read
    assert line["categories"][0] in capsys.readouterr().out


def test_an_exported_file_gives_the_same_lines(finished_run, exported, picture):
    file = picture()
    assert predict(finished_run("retinanet"), file) == 0
    assert predict(exported, file) == 0
    (one,), (other,) = lines(), lines("predictions-2")
    found = {
        key: sorted(zip(each["scores"], each["boxes"], strict=True))
        for key, each in (("a", one), ("b", other))
    }
    assert len(found["a"]) == len(found["b"])
    for first, second in zip(found["a"], found["b"], strict=True):
        assert first[0] == pytest.approx(second[0], abs=1e-3)
    assert sorted(one["categories"]) == sorted(other["categories"])


def test_json_is_printed_and_nothing_else(finished_run, picture, capsys):
    assert predict(finished_run("retinanet"), picture(), "--json") == 0
    (printed,) = capsys.readouterr().out.splitlines()
    assert json.loads(printed) == lines()[0]


def test_a_turned_photo_is_upright(exported, picture, tmp_path):
    upright = Image.open(picture("a.png"))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the left: stored with the right side on top
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "b.png", exif=exif)
    assert predict(exported, tmp_path / "a.png", tmp_path / "b.png") == 0
    first, second = lines()
    assert {**first, "file": ""} == {**second, "file": ""}


def test_a_picture_that_is_scaled_to_nothing_is_one_line(finished_run, exported, tmp_path, capsys):
    Image.new("RGB", (500, 2)).save(tmp_path / "thin.png")
    for student in (finished_run("retinanet"), exported):
        assert predict(student, tmp_path / "thin.png") == 1
        assert "left out: " in (said := capsys.readouterr().err)
        assert "thin.png: is 500 x 2 pixels" in said


def test_a_damaged_picture_is_one_line_and_the_others_are_done(exported, picture, capsys):
    whole, damaged = picture("a.png"), Path("b.png")
    damaged.write_bytes(Path(whole).read_bytes()[:200])
    assert predict(exported, whole, damaged, picture("c.png", 1)) == 1
    assert [Path(line["file"]).name for line in lines()] == ["a.png", "c.png"]
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert "b.png: cannot be decoded" in said
    assert not Path("predictions/b.png.png").exists()


def test_two_files_of_one_name_do_not_overwrite_each_other(exported, picture):
    files = [picture("x/a/1.png"), picture("x/b/1.png", 1), picture("x/1.jpg", 2)]
    assert predict(exported, "x", files[0]) == 0
    assert len(lines()) == 3
    drawn = sorted(str(file) for file in Path("predictions").rglob("*.png"))
    assert drawn == [f"predictions/{name}.png" for name in ("1.jpg", "a/1.png", "b/1.png")]


def test_names_of_one_file_in_two_folders_and_of_two_kinds_have_places_of_their_own(tmp_path):
    files = ["a/1.jpg", "a/1.png", "b/1.png", "b/c/1.png"]
    assert len({*places_of(files)}) == 4
    assert all(not place.is_absolute() and ".." not in place.parts for place in places_of(files))
    assert pictures_of(["a/1.jpg", "./a/1.jpg", "a/../a/1.jpg"]) == ["a/1.jpg"]


def test_masks_are_cocos_and_are_drawn(finished_run, picture):
    assert predict(finished_run("mask_rcnn"), picture(), "--threshold", "0.2") == 0
    (line,) = lines()
    masks = [coco_masks.decode(one) for one in line["masks"]]
    assert len(masks) == len(line["boxes"]) > 3
    for mask, (x, y, w, h) in zip(masks, line["boxes"], strict=True):
        assert mask.shape == (60, 80)
        rows, columns = np.nonzero(mask)
        if len(rows):
            assert x - 1 <= columns.min() <= columns.max() <= x + w + 1
            assert y - 1 <= rows.min() <= rows.max() <= y + h + 1
    assert sum(mask.sum() for mask in masks) > 0


def test_unknown_names_are_numbers_and_that_is_said(finished_run, picture, tmp_path, capsys):
    run = shutil.copytree(finished_run("retinanet"), tmp_path / "run")
    (run / "categories.json").unlink()
    assert predict(run, picture()) == 0
    assert "names of its 3 classes are not known, so they are numbers" in capsys.readouterr().err
    assert set(lines()[0]["categories"]) <= {"0", "1", "2"}


def test_names_come_from_a_registered_data_set(finished_run, picture, coco, tmp_path):
    run = shutil.copytree(finished_run("retinanet"), tmp_path / "run")
    (run / "categories.json").unlink()
    data = ["--register", f"predicted_set={coco[0]}:{coco[1]}"]
    named = ["--opts", "DATASETS.TEST", "('predicted_set',)"]
    assert main([str(run), picture(), "--threshold", "0.4", *data, *named]) == 0
    assert set(lines()[0]["categories"]) <= {"red", "green", "blue"}


def test_a_run_keeps_the_names_of_its_categories(coco, tmp_path):
    from kd_det.config import read_config
    from kd_det.data.register import register_coco
    from kd_det.deploy import categories

    content = json.loads(coco[0].read_text())
    for category in content["categories"]:
        category["id"] *= 10
    content["annotations"] = []
    (tmp_path / "tens.json").write_text(json.dumps(content))
    register_coco("kept_set", tmp_path / "tens.json", coco[1])
    (tmp_path / "c.yaml").write_text("DATASETS: {TRAIN: [kept_set], TEST: []}")
    categories.keep(read_config(tmp_path / "c.yaml", ["OUTPUT_DIR", str(tmp_path / "out")]))
    assert categories.of_run(tmp_path / "out") == (["red", "green", "blue"], [10, 20, 30])


def test_the_latency_of_a_picture_is_shown(exported, picture, capsys):
    given = ["--latency", "--repeats", "3", "--threads", "1"]
    assert predict(exported, picture(), *given) == 0
    said = capsys.readouterr().out
    assert "ONNX Runtime" in said
    assert "1 thread, in turns" in said


def test_a_file_and_its_json_belong_together(exported, picture, tmp_path, capsys):
    file = shutil.copy(exported, tmp_path / "student.onnx")
    assert predict(file, picture()) == 2
    assert "student.onnx.json: there is no such file; export" in capsys.readouterr().err
    beside = Path(shutil.copy(f"{exported}.json", tmp_path / "student.onnx.json"))
    Path(file).write_bytes(Path(file).read_bytes()[:-1] + b"x")
    assert predict(file, picture()) == 2
    assert "its hash is not that in student.onnx.json" in capsys.readouterr().err
    beside.write_text(beside.read_text().replace("BGR", "RGB"))
    assert predict(file, picture()) == 2
    assert "checksum does not match" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("input", {}),
        (
            "input",
            {"channels": "BGR", "shorter_side": 64, "longest_side": 96, "padding": [0, 0, 0]},
        ),
        ("outputs", {"boxes": ""}),
        ("categories", {"names": ["a"], "ids": [1, 2]}),
        ("score_threshold", "nan"),
    ],
)
def test_a_json_that_says_anything_else_is_one_line(
    exported, picture, tmp_path, key, value, capsys
):
    file = Path(shutil.copy(exported, tmp_path / "student.onnx"))
    content = json.loads(Path(f"{exported}.json").read_text()) | {key: value}
    del content["sha256"]  # its seal
    from kd_core.files.checkpoint import save_json

    save_json(content, tmp_path / "student.onnx.json")
    assert predict(file, picture()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"student.onnx.json: {key}" in line or repr(key) in line


def test_a_threshold_below_the_detectors_own_has_no_effect_and_is_refused(
    exported, picture, capsys
):
    assert main([str(exported), picture(), "--threshold", "0.01"]) == 2
    assert "itself leaves out what is below 0.05" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--opts", "MODEL.DEVICE", "cpu"], "--opts has no effect on an exported file"),
        (["--register", "a=b:c"], "--register has no effect on an exported file"),
        (["--repeats", "3"], "--repeats has no effect without --latency"),
        (["--threshold", "2"], "wanted a score, from 0 to 1"),
        (["--output", "full"], "there are files already"),
    ],
)
def test_a_mistake_is_one_line(exported, picture, options, said, capsys):
    picture("full/one.png")
    assert main([str(exported), picture(), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_the_commands_of_the_readme_run(finished_run, picture, tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^uv run tools/det_(export|predict)\.py ([^#\n]*)", page, re.MULTILINE)
    assert [tool for tool, _ in commands] == ["export", "predict", "predict"]
    shutil.copytree(finished_run("retinanet"), tmp_path / "output")
    picture("photos/one.png")
    for tool, line in commands:
        run = {"export": export.main, "predict": main}[tool]
        assert run([*shlex.split(line), "--repeats", "3", "--seconds", "1"]) == 0
    assert Path("predictions-2/one.png.png").is_file()


def test_a_folder_without_pictures_is_said(exported, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert predict(exported, "empty") == 2
    assert "empty: has no images" in capsys.readouterr().err


def test_the_run_of_a_lazy_config_asks_for_its_file(finished_run, picture, tmp_path, capsys):
    run = shutil.copytree(finished_run("retinanet"), tmp_path / "run")
    config = (run / "config.yaml").read_text().replace(": RetinaNet", ": build_lazy_model")
    (run / "config.yaml").write_text(config)
    assert predict(run, picture()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "name that file, and --weights" in line
    assert str(run / "model_final.pth") in line


def test_names_come_from_the_run_of_the_weights_too(finished_run, picture, tmp_path, capsys):
    run = finished_run("retinanet")
    config = shutil.copy(run / "config.yaml", tmp_path / "other.yaml")
    assert predict(config, picture(), "--weights", str(run / "model_final.pth")) == 0
    assert set(lines()[0]["categories"]) <= {"red", "[b]green[/b]", "blue"}
