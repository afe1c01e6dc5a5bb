"""The check of a data set finds all that is wrong, and lets the rest pass."""

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("detectron2")
from kd_det.check import main
from kd_det.data.check import check
from PIL import Image


def change(coco, function):
    content = json.loads(coco[0].read_text())
    function(content)
    coco[0].write_text(json.dumps(content))


def arguments(coco, *others):
    return [str(path) for path in coco] + list(others)


def test_a_sound_set_passes_and_is_counted(coco, capsys):
    assert main(arguments(coco)) == 0
    shown = capsys.readouterr().out
    assert shown.count("8") >= 2
    assert "all usable" in shown
    report = check(*coco)
    assert report["usable"]
    assert (report["images"], report["boxes"]) == (8, 8)
    assert report["categories"] == {"red": 2, "green": 3, "blue": 3}


def test_images_without_boxes_and_crowds_are_counted_and_allowed(coco):
    def function(content):
        content["annotations"].pop()
        content["annotations"][0]["iscrowd"] = 1

    change(coco, function)
    report = check(*coco)
    assert (report["images_without_boxes"], report["crowd_boxes"]) == (1, 1)
    assert report["usable"]


def test_a_missing_file_is_found(coco, capsys):
    (coco[1] / "3.png").unlink()
    assert check(*coco)["missing_files"] == ["3.png"]
    assert main(arguments(coco)) == 1
    assert "missing files: 3.png" in capsys.readouterr().out


def test_a_file_that_ends_early_is_found(coco):
    file = coco[1] / "5.png"
    file.write_bytes(file.read_bytes()[:-2000])
    report = check(*coco)
    assert list(report["unreadable_files"]) == ["5.png"]
    assert "truncated" in report["unreadable_files"]["5.png"]
    assert not report["usable"]


def test_an_image_of_another_size_is_found(coco):
    Image.new("RGB", (64, 80)).save(coco[1] / "2.png")
    assert "got (64, 80), expect (80, 64)" in check(*coco)["wrong_sizes"]["2.png"]


def test_a_turned_photograph_has_the_size_that_training_sees(coco):
    image = Image.new("RGB", (64, 80))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(coco[1] / "2.png", exif=exif)
    assert check(*coco)["usable"]


@pytest.mark.parametrize(
    ("box", "key"),
    [
        ([10, 10, 0, 5], "empty_boxes"),
        ([10, 10, 5, -1], "empty_boxes"),
        ([70, 10, 13, 5], "boxes_outside"),
        ([-3, 10, 13, 5], "boxes_outside"),
        ([10, 60, 13, 6], "boxes_outside"),
    ],
)
def test_boxes_that_cannot_be_learned_are_found(box, key, coco):
    change(coco, lambda content: content["annotations"][3].update(bbox=box))
    report = check(*coco)
    assert report[key] == [4]
    assert not report["usable"]


def test_a_box_may_reach_outside_by_a_rounded_pixel(coco):
    change(coco, lambda content: content["annotations"][3].update(bbox=[-0.5, 0, 80.9, 64.5]))
    assert check(*coco)["usable"]


def test_the_report_can_be_written(coco, tmp_path):
    (coco[1] / "3.png").unlink()
    assert main(arguments(coco, "--out", str(tmp_path / "report.json"))) == 1
    assert json.loads((tmp_path / "report.json").read_text()) == check(*coco)


def test_long_lists_are_cut_on_the_terminal_only(coco, capsys):
    for file in coco[1].iterdir():
        file.unlink()
    assert main(arguments(coco)) == 1
    assert "5.png, and 3 more" in capsys.readouterr().out
    assert len(check(*coco)["missing_files"]) == 8


def test_wrong_arguments_are_one_line(coco, capsys):
    for wrong, text in (
        ([str(coco[0]), "nowhere"], "there is no folder of images nowhere"),
        (["nothing.json", str(coco[1])], "there is no annotation file nothing.json"),
        (arguments(coco, "--workers", "0"), "--workers 0"),
    ):
        assert main(wrong) == 2
        shown = capsys.readouterr()
        assert text in shown.err
        assert shown.err.count("\n") == 1


def test_real_coco_files_are_usable():
    root = Path(os.environ.get("KD_DATA", ""), "coco_tiny")
    if "KD_DATA" not in os.environ or not root.is_dir():
        pytest.skip("KD_DATA names no folder with coco_tiny")
    report = check(root / "annotations/instances_val2017.json", root / "val2017")
    assert (report["images"], report["boxes"], report["crowd_boxes"]) == (50, 382, 5)
    assert report["images_without_boxes"] == 2
    assert report["usable"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<annotation><object/></annotation>", "XML of Pascal VOC"),
        ("0 0.5 0.5 0.25 0.25\n2 0.1 0.1 0.05 0.2\n", "a label file of YOLO"),
        ('{"a": 1}\n{"a": 2}\n', "JSON Lines"),
        ('[{"image_id": 1, "score": 0.5, "bbox": []}]', "COCO's results, which are predictions"),
        ('[{"file_name": "a.png", "annotations": []}]', "Detectron2's own records"),
        ('[{"image": "a.png", "annotations": []}]', "CreateML"),
        ('[{"data": {}, "annotations": []}]', "Label Studio"),
        ('{"shapes": [], "imagePath": "a.png"}', "labelme"),
        ('{"a.png1": {"filename": "a.png", "regions": []}}', "the VGG Image Annotator"),
        ('{"a": ' * 100_000, "not JSON"),
        ("\ufeff{}", "save it without a byte-order mark"),
    ],
)
def test_other_formats_are_named(text, told, coco, capsys):
    coco[0].write_text(text, encoding="utf-8")
    assert main(arguments(coco)) == 2
    shown = capsys.readouterr()
    assert told in shown.err
    assert shown.err.count("\n") == 1


def test_the_config_says_what_is_wanted_of_the_set(coco, write, capsys):
    masks = detector_with_masks(write("faster_rcnn"))
    assert main(arguments(coco)) == 0
    capsys.readouterr()
    assert main(arguments(coco, "--config-file", masks)) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "objects without a segmentation, where MODEL.MASK_ON is set: 1, 2, 3, 4, 5, and" in shown
    assert main(arguments(coco, "--config-file", masks, "--evaluation")) == 1


def test_a_config_with_keys_of_an_imported_module_is_read(
    coco, write, tmp_path, monkeypatch, capsys
):
    (tmp_path / "checked_keys.py").write_text("def add_config(cfg):\n    cfg.MODEL.MINE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = write("faster_rcnn")
    path.write_text(path.read_text().replace("MODEL:\n", "MODEL:\n  MINE: 2\n"))
    assert main(arguments(coco, "--config-file", str(path))) == 2
    assert "no key MODEL.MINE; if a module of yours adds it, name that: --import MODULE" in (
        capsys.readouterr().err
    )
    assert main(arguments(coco, "--config-file", str(path), "--import", "checked_keys")) == 0
    assert main(arguments(coco, "--config-file", "COCO-Detection/nowhere.yaml")) == 2
    assert "model zoo" in capsys.readouterr().err


def detector_with_masks(path):
    text = path.read_text().replace("MODEL:\n", "MODEL:\n  MASK_ON: true\n")
    path.write_text(text)
    return str(path)


def test_an_import_without_a_config_has_no_effect(coco, capsys):
    assert main([*arguments(coco), "--import", "my_module"]) == 2
    assert "--import has no effect without --config-file" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_refused_before_images_are_read(
    coco, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("kd_det.data.check.check", None)
    assert main([*arguments(coco), "--out", str(tmp_path)]) == 2
    assert "is a folder; wanted the name of a file" in capsys.readouterr().err
