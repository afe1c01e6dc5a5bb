"""Data sets by name: registered once, and refused in one clear line."""

import json
import os
from pathlib import Path

import pytest
from kd_core.errors import UserError

pytest.importorskip("detectron2")
import kd_det  # noqa: F401  before Detectron2
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from kd_det.data.register import (
    category_names,
    check_categories,
    check_data,
    num_classes,
    parse_set,
    read_coco,
    register_coco,
)


@pytest.fixture(autouse=True)
def catalogs(monkeypatch):
    """Forget what a test registers."""
    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(catalog, "data", dict(catalog.data))


@pytest.fixture
def config():
    def config(architecture, classes, train=("boxes",), test=()):
        cfg = get_cfg()
        cfg.MODEL.META_ARCHITECTURE = architecture
        node = cfg.MODEL.RETINANET if architecture == "RetinaNet" else cfg.MODEL.ROI_HEADS
        node.NUM_CLASSES = classes
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = train, test
        return cfg

    return config


@pytest.fixture
def change(coco):
    """Change the JSON file and return it."""

    def change(function):
        content = json.loads(coco[0].read_text())
        coco[0].write_text(json.dumps(function(content) or content))
        return coco[0]

    return change


def test_a_registered_set_is_one_of_detectron2(coco):
    register_coco("boxes", *coco)
    records = DatasetCatalog.get("boxes")
    assert len(records) == 8
    assert Path(records[0]["file_name"]).is_file()
    assert {one["category_id"] for record in records for one in record["annotations"]} == {0, 1, 2}


def test_categories_are_known_without_loading_and_are_those_of_detectron2(coco, change):
    change(lambda content: content["categories"].reverse())
    register_coco("boxes", *coco)
    assert category_names("boxes") == ["red", "green", "blue"]
    assert num_classes("boxes") == 3
    DatasetCatalog.get("boxes")  # which refuses to change the names


def test_the_same_again_is_fine_and_other_files_are_not(coco, tmp_path, monkeypatch):
    register_coco("boxes", *coco)
    monkeypatch.chdir(tmp_path)
    register_coco("boxes", coco[0].name, coco[1].name)  # relative paths to the same
    with pytest.raises(UserError, match=r"'boxes' is registered already, as .*boxes\.json with im"):
        register_coco("boxes", coco[0], tmp_path)
    with pytest.raises(UserError, match="'coco_2017_val' is registered already"):
        register_coco("coco_2017_val", *coco)


def test_a_set_on_the_command_line_has_three_parts():
    assert parse_set("a=b/c.json:d/e") == ("a", "b/c.json", "d/e")
    home = str(Path.home())
    assert parse_set("a=~/c.json:~/e") == ("a", f"{home}/c.json", f"{home}/e")
    for text in ("a", "a=b", "=b:c", "a=:c", "a=b:"):
        with pytest.raises(UserError, match="wanted NAME=JSON:IMAGES"):
            parse_set(text)


def test_a_missing_file_names_the_nearest(coco):
    with pytest.raises(UserError, match=r"no such annotation file; did you mean 'boxes\.json'"):
        register_coco("boxes", coco[0].with_name("boxs.json"), coco[1])


def test_a_missing_folder_names_the_nearest(coco):
    with pytest.raises(UserError, match="no such folder of images; did you mean 'images'"):
        register_coco("boxes", coco[0], coco[1].with_name("image"))


def test_the_wrong_folder_is_refused(coco):
    with pytest.raises(UserError, match=r"does not contain '1\.png', the first image"):
        register_coco("boxes", coco[0], coco[1].parent)
    assert "boxes" not in DatasetCatalog


def test_what_is_no_json_is_refused(coco):
    coco[0].write_text("id,name\n1,red\n")
    with pytest.raises(UserError, match=r"boxes\.json: not JSON \("):
        read_coco(coco[0])
    coco[0].write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not JSON"):
        read_coco(coco[0])


def test_another_kind_of_json_is_refused_with_its_keys(coco, change):
    with pytest.raises(UserError, match=r"not a COCO instances file.* got the keys images, shapes"):
        read_coco(change(lambda content: {"images": [], "shapes": []}))
    with pytest.raises(UserError, match="got list"):
        read_coco(change(lambda content: [{"image_id": 1, "score": 0.5}]))
    with pytest.raises(UserError, match="wanted lists"):
        read_coco(change(lambda content: dict.fromkeys(("images", "annotations", "categories"))))


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("images", "file_name"),
        ("images", "height"),
        ("annotations", "bbox"),
        ("annotations", "iscrowd"),
        ("annotations", "area"),
        ("categories", "name"),
    ],
)
def test_an_entry_that_lacks_something_is_named(part, key, change):
    with pytest.raises(UserError, match=rf"{part}\[2\]: wanted the keys .*{key}.*, got the keys"):
        read_coco(change(lambda content: content[part][2].pop(key) and None))


def test_two_of_the_same_id_are_refused(change):
    def twice(content):
        content["annotations"][3]["id"] = 1

    with pytest.raises(UserError, match=r"annotations\[3\]: has the id 1 of .*annotations\[0\]"):
        read_coco(change(twice))


@pytest.mark.parametrize(
    ("key", "part"), [("image_id", "8 images"), ("category_id", "3 categories")]
)
def test_an_id_that_is_nowhere_is_named(key, part, change):
    def lose(content):
        content["annotations"][4][key] = 77

    with pytest.raises(UserError, match=rf"annotation 5 has {key} 77, which is none of the {part}"):
        read_coco(change(lose))


@pytest.mark.parametrize("box", [[], [1, 2, 3], None, ["1", "2", "3", "4"]])
def test_what_is_no_box_is_refused(box, change):
    def lose(content):
        content["annotations"][1]["bbox"] = box

    with pytest.raises(UserError, match=r"bbox of annotation 2: wanted \[left, top, width, height"):
        read_coco(change(lose))


def test_no_categories_are_refused(change):
    def lose(content):
        content["annotations"].clear()
        content["categories"].clear()

    with pytest.raises(UserError, match="list of categories is empty"):
        read_coco(change(lose))


@pytest.mark.parametrize(
    ("architecture", "key"),
    [("RetinaNet", "RETINANET"), ("GeneralizedRCNN", "ROI_HEADS")],
)
def test_a_model_of_another_number_of_classes_is_refused(architecture, key, coco, config):
    register_coco("boxes", *coco)
    check_data(config(architecture, 3, test=("boxes",)))
    text = rf"student: MODEL.{key}.NUM_CLASSES is 80, but data set 'boxes' has 3 categories \(red,"
    with pytest.raises(UserError, match=text):
        check_data(config(architecture, 80))
    with pytest.raises(UserError, match=r"^teacher: "):
        check_categories(config(architecture, 80), ["boxes"], "teacher")


def test_a_model_of_the_user_s_own_is_not_asked(coco, config):
    register_coco("boxes", *coco)
    check_data(config("MyDetector", 80))


def test_data_sets_of_other_categories_are_refused(coco, change, config):
    register_coco("boxes", *coco)
    change(lambda content: content["categories"][0].update(name="pink"))
    register_coco("others", *coco)
    with pytest.raises(UserError, match=r"'boxes' has 3 categories \(red, .*'others' has 3 .*\(pi"):
        check_data(config("RetinaNet", 3, test=("others",)))


def test_an_unknown_data_set_names_the_nearest(coco, config):
    register_coco("boxes_train", *coco)
    with pytest.raises(UserError, match=r"no data set 'boxs_train' .*did you mean 'boxes_train'"):
        check_data(config("RetinaNet", 3, train=("boxs_train",)))
    with pytest.raises(UserError, match=r"DATASETS\.TRAIN is empty"):
        check_data(config("RetinaNet", 3, train=()))


def test_a_set_of_detectron2_whose_files_are_missing_says_where_they_belong(config):
    with pytest.raises(UserError, match=r"instances_train2017\.json; .*\$DETECTRON2_DATASETS"):
        check_data(config("RetinaNet", 80, train=("coco_2017_train",)))


def test_categories_that_only_loading_tells_are_found(config):
    def load():
        MetadataCatalog.get("late").thing_classes = ["one", "two"]
        return []

    DatasetCatalog.register("late", load)
    assert category_names("late") == ["one", "two"]


def test_real_coco_files_are_read(config):
    root = Path(os.environ.get("KD_DATA", ""), "coco_tiny")
    if "KD_DATA" not in os.environ or not root.is_dir():
        pytest.skip("KD_DATA names no folder with coco_tiny")
    register_coco("tiny", root / "annotations/instances_val2017.json", root / "val2017")
    check_data(config("RetinaNet", 80, train=("tiny",)))
    assert len(DatasetCatalog.get("tiny")) == 50
    assert category_names("tiny") == MetadataCatalog.get("coco_2017_val").thing_classes
