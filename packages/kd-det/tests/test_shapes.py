"""Generated shapes: whole or absent, the same for a seed, and described as COCO wants."""

import json

import numpy as np
import pytest
from kd_core.config.folder import configs_folder
from kd_core.errors import UserError
from PIL import Image

pytest.importorskip("detectron2")
from kd_det.data.register import check_data
from kd_det.synthetic import shapes as module
from kd_det.synthetic.scenes import OUTLINES, draw_scene
from kd_det.synthetic.shapes import cache_folder, register_shapes, shapes

SMALL = {"num_train": 3, "num_few": 2, "num_val": 2, "image_size": 64}


def contents(folder):
    return {
        file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return shapes(tmp_path_factory.mktemp("made") / "shapes", num_train=30, num_few=5, num_val=5)


@pytest.fixture(scope="module")
def annotations(made):
    return json.loads((made / "train.json").read_text())


def test_a_seed_gives_the_same_files_and_another_seed_others(tmp_path):
    first, again, other = (
        contents(shapes(tmp_path / name, **SMALL, seed=seed))
        for name, seed in (("first", 3), ("again", 3), ("other", 4))
    )
    assert first == again
    assert first.keys() == other.keys()
    assert not set(first.values()) & set(other.values())


def test_no_image_of_one_split_is_in_the_other(made):
    train, val = ({file.read_bytes() for file in (made / s).iterdir()} for s in ("train", "val"))
    assert len(train) == 30
    assert len(val) == 5
    assert not train & val


def test_a_larger_set_begins_with_the_smaller_one(tmp_path, made):
    few = contents(shapes(tmp_path / "few", num_train=2, num_few=1, num_val=1) / "train")
    assert few.items() <= contents(made / "train").items()


def test_the_few_are_the_first_of_the_training_images(made, annotations):
    few = json.loads((made / "few.json").read_text())
    assert few["images"] == annotations["images"][:5]
    count = len(few["annotations"])
    assert few["annotations"] == annotations["annotations"][:count]
    assert annotations["annotations"][count]["image_id"] == 6


def test_every_category_occurs_and_has_its_name(annotations):
    assert [category["name"] for category in annotations["categories"]] == list(OUTLINES)
    assert [category["id"] for category in annotations["categories"]] == [1, 2, 3, 4, 5, 6]
    used = {annotation["category_id"] for annotation in annotations["annotations"]}
    assert used == {1, 2, 3, 4, 5, 6}


def test_boxes_and_areas_are_those_of_the_polygons(annotations):
    from pycocotools import mask

    for annotation in annotations["annotations"]:
        (polygon,) = annotation["segmentation"]
        corners = np.array(polygon).reshape(-1, 2)
        box = [*corners.min(0), *(corners.max(0) - corners.min(0))]
        assert annotation["bbox"] == pytest.approx(box, abs=0.011)
        assert annotation["bbox"][0] >= 0
        assert annotation["bbox"][1] >= 0
        assert corners.max() <= 128
        (pixels,) = mask.area(mask.frPyObjects([polygon], 128, 128))[None]
        assert pixels == pytest.approx(annotation["area"], rel=0.1, abs=12)


def test_the_shape_in_front_stands_out_from_what_is_around_it():
    for seed in range(10):
        pixels, found = draw_scene(np.random.default_rng(seed), 128)
        centre = found[-1].corners.mean(0)
        rings = []
        for scale in (0.6, 1.3):
            x, y = (centre + scale * (found[-1].corners - centre)).astype(int).T
            rings.append(pixels[y.clip(0, 127), x.clip(0, 127)].astype(float).mean(0))
        assert np.abs(rings[0] - rings[1]).max() > 20


def test_no_shape_is_hidden_by_more_than_four_tenths():
    from kd_det.synthetic.scenes import _mask

    overlaps = 0
    for seed in range(30):
        _, found = draw_scene(np.random.default_rng(seed), 128)
        masks = np.array([_mask(shape.corners, 128) for shape in found])
        for number, mask in enumerate(masks):
            visible = (mask * np.prod(1 - masks[number + 1 :], axis=0)).sum() / mask.sum()
            assert visible > 0.59
            overlaps += visible < 0.9
    assert overlaps


def test_what_is_there_is_not_drawn_again(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_CACHE", str(tmp_path))
    first = shapes(**SMALL)
    monkeypatch.setattr(module, "draw_scene", None)
    assert shapes(**SMALL) == first
    assert first.parent == tmp_path
    assert [entry.name for entry in tmp_path.iterdir()] == [first.name]


@pytest.mark.parametrize("key", ["num_train", "num_few", "num_val", "image_size", "seed"])
def test_other_settings_have_another_folder(key, tmp_path, monkeypatch):
    monkeypatch.setenv("KD_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "_write", lambda *args: None)
    monkeypatch.setattr(module, "_check", lambda *args: None)
    changed = {"image_size": 96}.get(key, 3 if key != "num_train" else 4)
    assert shapes(**SMALL) != shapes(**{**SMALL, key: changed})


def test_the_cache_is_in_the_home_folder_unless_the_variable_says_so(monkeypatch):
    monkeypatch.delenv("KD_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/somebody")
    assert str(cache_folder()) == "/somebody/.cache/kd"
    monkeypatch.setenv("KD_CACHE", "~/elsewhere")
    assert str(cache_folder()) == "/somebody/elsewhere"


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(content, path, **options):
        if path.name == "val.json":
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        shapes(tmp_path / "set", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_of_two_processes_that_draw_at_once_one_wins(tmp_path, monkeypatch):
    draw, folder = module._draw, tmp_path / "set"

    def race(*args):
        monkeypatch.setattr(module, "_draw", draw)
        shapes(folder, **SMALL)
        return draw(*args)

    monkeypatch.setattr(module, "_draw", race)
    assert shapes(folder, **SMALL) == folder
    assert [entry.name for entry in tmp_path.iterdir()] == ["set"]


def test_a_folder_that_lost_files_is_refused(tmp_path):
    folder = shapes(tmp_path / "set", **SMALL)
    next((folder / "val").iterdir()).unlink()
    with pytest.raises(UserError, match=r"2 images in val/, found 1; move the folder elsewhere"):
        shapes(folder, **SMALL)


@pytest.mark.parametrize("change", [{"num_train": 9}, {"seed": 1}, {"image_size": 96}])
def test_a_folder_of_other_settings_is_refused(change, tmp_path):
    folder = shapes(tmp_path / "set", **SMALL)
    with pytest.raises(UserError, match=r"wanted shapes of .*, got .*'seed': 0}; name another"):
        shapes(folder, **SMALL | change)
    with pytest.raises(UserError, match=r"got no few\.json"):
        shapes(tmp_path, **SMALL)


@pytest.mark.parametrize(
    "wrong", [{"num_train": 1}, {"num_few": 0}, {"num_val": -1}, {"image_size": 8}]
)
def test_impossible_sizes_are_refused(wrong, tmp_path):
    with pytest.raises(UserError, match=r"wanted 1 <= num_few .* got num_train="):
        shapes(tmp_path / "set", **SMALL | wrong)


def test_images_have_the_size_that_the_json_says(made, annotations):
    for image in annotations["images"]:
        with Image.open(made / "train" / image["file_name"]) as file:
            assert file.size == (image["width"], image["height"]) == (128, 128)


@pytest.fixture
def catalogs(monkeypatch):
    """Return Detectron2's catalogs, which forget what a test registers."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(catalog, "data", dict(catalog.data))
    return DatasetCatalog, MetadataCatalog


def test_registered_shapes_are_two_data_sets_of_detectron2(tmp_path, catalogs):
    DatasetCatalog, MetadataCatalog = catalogs  # noqa: N806
    register_shapes(tmp_path / "set", **SMALL)
    register_shapes(tmp_path / "set", **SMALL)
    assert len(DatasetCatalog.get("shapes_train")) == 3
    assert len(DatasetCatalog.get("shapes_few")) == 2
    assert len(DatasetCatalog.get("shapes_val")) == 2
    assert MetadataCatalog.get("shapes_val").thing_classes == list(OUTLINES)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_the_demo_s_detectors_fit_them(role, tmp_path, catalogs):
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    register_shapes(tmp_path / "set", **SMALL)
    cfg = get_cfg()
    cfg.merge_from_file(str(configs_folder() / f"demo/det_{role}.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    check_data(cfg)
    model = build_model(cfg)
    assert model.num_classes == len(OUTLINES)
