"""Images that are damaged, turned or missing end a run with one line that names the file."""

import json

import pytest

pytest.importorskip("detectron2")
from kd_det.train import main
from PIL import Image


@pytest.fixture
def run(write, coco, tmp_path, monkeypatch, capsys):
    """Return a function that trains the plain detector on the tiny data."""
    name = f"set_{tmp_path.name}"
    path = write("retinanet", DATASETS={"TRAIN": [name], "TEST": []})
    monkeypatch.chdir(tmp_path)

    def run(*options, flags=(), images=coco[1]):
        given = ["--register", f"{name}={coco[0]}:{images}", "--config-file", str(path), *flags]
        status = main([*given, "OUTPUT_DIR", "run", *map(str, options)])
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return status, [line for line in said.err.splitlines() if line.startswith("error: ")]

    return run


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_is_named_also_by_a_worker(run, coco, workers):
    for file in coco[1].iterdir():
        file.write_bytes(file.read_bytes()[:-2000])
    status, lines = run("DATALOADER.NUM_WORKERS", workers)
    assert (status, len(lines)) == (1, 1)
    assert f"{coco[1]}/" in lines[0]
    assert ".png: cannot be read, or differs from its annotation (" in lines[0]
    assert "truncated" in lines[0]


def test_an_image_that_exif_turns_is_named_by_a_worker(run, coco):
    for file in coco[1].iterdir():
        image = Image.open(file)
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(file, exif=exif)
    status, lines = run("DATALOADER.NUM_WORKERS", 1)
    assert (status, len(lines)) == (1, 1)
    assert "is 80 x 64, as the annotation file says, but its EXIF orientation turns it" in lines[0]


def test_missing_images_are_refused_before_work(run, coco, tmp_path):
    (coco[1] / "5.png").unlink()
    (coco[1] / "7.png").unlink()
    status, lines = run()
    assert (status, len(lines)) == (2, 1)
    assert "2 of 8 images are not in" in lines[0]
    assert "images: 5.png, 7.png; get them" in lines[0]
    assert not (tmp_path / "run/metrics.json").exists()


def test_a_missing_folder_is_refused_before_work(run, coco, tmp_path):
    status, lines = run(images=tmp_path / "image")
    assert (status, len(lines)) == (2, 1)
    assert "there is no such folder of images; did you mean 'images'?" in lines[0]


def test_what_training_leaves_out_is_said_once(run, coco, capsys, monkeypatch):
    content = json.loads(coco[0].read_text())
    content["annotations"][3]["bbox"] = [10, 10, 0, 5]
    content["annotations"][4]["bbox"] = [70, 10, 30, 5]
    coco[0].write_text(json.dumps(content))
    from kd_det.data import contents

    said = []
    monkeypatch.setattr(contents.err, "print", lambda text, **_: said.append(text))
    assert run("SOLVER.MAX_ITER", 1) == (0, [])
    assert len(said) == 1
    assert "boxes without width or height, which are left out: 1 (4); " in said[0]
    assert "boxes that reach outside their image, which are cut: 1 (5)" in said[0]
