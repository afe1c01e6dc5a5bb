"""What `det_check` says of a data set is what training does with it, and what Detectron2 does."""

import json
import math
import random

import numpy as np
import pytest
import torch
from kd_core.errors import UserError
from PIL import Image
from pycocotools import mask as runs

pytest.importorskip("detectron2")
import kd_det  # noqa: F401  before Detectron2
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.build import get_detection_dataset_dicts
from detectron2.utils.events import EventStorage
from kd_det.config import read_config
from kd_det.data.check import check
from kd_det.data.instance_rules import CUT, LEFT_OUT, Needs
from kd_det.data.reading import FileNamingMapper
from kd_det.data.register import check_data, register_coco
from kd_det.networks.detector import build_detector

HEADS = {
    "boxes": "",
    "masks": "MASK_ON True ROI_MASK_HEAD.NAME MaskRCNNConvUpsampleHead ROI_MASK_HEAD.NUM_CONV 1 "
    "ROI_MASK_HEAD.CONV_DIM 8 ROI_MASK_HEAD.POOLER_RESOLUTION 4",
    "keypoints": "KEYPOINT_ON True ROI_KEYPOINT_HEAD.NUM_KEYPOINTS 3 "
    "ROI_KEYPOINT_HEAD.CONV_DIMS (8,) ROI_KEYPOINT_HEAD.POOLER_RESOLUTION 4",
}
HEADS["bitmask"] = HEADS["masks"]


@pytest.fixture(scope="module")
def built():
    return {}


@pytest.fixture
def trained(built, write):
    """Return the config and the network for boxes, masks or keypoints; built once."""

    def trained(kind):
        if kind not in built:
            options = HEADS[kind].split()
            options[::2] = [f"MODEL.{key}" for key in options[::2]]
            path = write("faster_rcnn", width=8, DATASETS={"TRAIN": ["agreed"], "TEST": []})
            cfg = read_config(path, options)
            cfg.INPUT.MASK_FORMAT = "bitmask" if kind == "bitmask" else "polygon"
            built[kind] = cfg, build_detector(cfg).train()
        cfg, network = built[kind]
        return cfg.clone(), network

    return trained


@pytest.fixture(autouse=True)
def catalogs(monkeypatch):
    """Forget what a test registers."""
    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(catalog, "data", dict(catalog.data))


@pytest.fixture
def furnished(coco):
    """Give every object of the tiny set a polygon and three keypoints; return its files."""
    content = json.loads(coco[0].read_text())
    for one in content["annotations"]:
        x, y, w, h = one["bbox"]
        one["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        one["keypoints"] = [x + 2, y + 2, 2, x + 4, y + 4, 2, x + 6, y + 6, 1]
        one["num_keypoints"] = 3
    for category in content["categories"]:
        category["keypoints"] = ["nose", "left_eye", "right_eye"]
    coco[0].write_text(json.dumps(content))
    return coco


def change(coco, function):
    content = json.loads(coco[0].read_text())
    coco[0].write_text(json.dumps(function(content) or content))


def verdict(coco, needs):
    """Return what `det_check` says: refused, and the ids that are left out."""
    try:
        report = check(*coco, needs, workers=1)
    except UserError as error:
        return str(error), []
    found = [kind for kind in report if report[kind] and kind in LEFT_OUT]
    spared = {*LEFT_OUT, *CUT, "usable", "json", "image_root", "categories"}
    counts = {kind for kind, value in report.items() if isinstance(value, int)}
    refused = [kind for kind in report if report[kind] and kind not in spared | counts]
    return ", ".join(refused), sorted({one for kind in found for one in report[kind]})


def learned(cfg, network, mapper):
    """Let a network learn from every image once; return the number of its objects."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    records = get_detection_dataset_dicts(
        "agreed",
        cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0,
    )
    samples = [mapper(record) for record in records]
    with EventStorage():
        losses = network(samples)
    assert all(math.isfinite(loss) for loss in losses.values())
    return sum(len(sample["instances"]) for sample in samples)


def trains(coco, cfg, network):
    """Return what our training says, "" if it goes, and the number of objects that it sees."""
    try:
        register_coco("agreed", *coco)
        check_data(cfg)
        return "", learned(cfg, network, FileNamingMapper(cfg, True))
    except UserError as error:
        return str(error), 0


def detectron2_learns(coco, cfg, network):
    """Return how many objects Detectron2 alone learns from; None if it dies."""
    from detectron2.data.datasets import register_coco_instances

    DatasetCatalog.data.pop("agreed", None)
    MetadataCatalog.data.pop("agreed", None)
    register_coco_instances("agreed", {}, str(coco[0]), str(coco[1]))
    names = ["nose", "left_eye", "right_eye"]
    flips = [("left_eye", "right_eye")]
    MetadataCatalog.get("agreed").set(keypoint_names=names, keypoint_flip_map=flips)
    try:
        return learned(cfg, network, DatasetMapper(cfg, True))
    except Exception:
        return None


def of_annotation(**values):
    return lambda content: content["annotations"][3].update(values)


def of_image(**values):
    return lambda content: content["images"][3].update(values)


def without(key):
    return lambda content: content["annotations"][3].pop(key) and None


def all_of(part, **values):
    return lambda content: [one.update(values) for one in content[part]] and None


def box_of(*box):
    return of_annotation(bbox=list(box))


def encoded(height=64, width=80, pixels=1, compressed=True):
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[10:30, 10:30] = pixels
    found = runs.encode(mask)
    if compressed:
        return {"size": [height, width], "counts": found["counts"].decode()}
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": [height, width], "counts": counts}


def segmentation(value):
    return of_annotation(segmentation=value)


SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
DIES, LEARNS = "dies", "learns"
CHANCE = "chance"  # with a mirror alone; or pycocotools takes all memory
CASES = [
    # what is changed, what is trained, what det_check refuses, the ids left out, Detectron2
    ("sound", lambda content: None, "boxes", "", [], LEARNS),
    ("sound", lambda content: None, "masks", "", [], LEARNS),
    ("sound", lambda content: None, "bitmask", "", [], LEARNS),
    ("sound", lambda content: None, "keypoints", "", [], LEARNS),
    ("crowd", of_annotation(iscrowd=1), "boxes", "", [], LEARNS),
    ("crowds only", all_of("annotations", iscrowd=1), "boxes", "nothing_to_learn", [], DIES),
    (
        "no images",
        lambda c: {**c, "images": [], "annotations": []},
        "boxes",
        "nothing_to",
        [],
        DIES,
    ),
    ("no annotations", lambda c: {**c, "annotations": []}, "boxes", "nothing_to_learn", [], DIES),
    ("text crowd", of_annotation(iscrowd="0"), "boxes", "iscrowd of annotation 4", [], LEARNS),
    ("ignored", of_annotation(ignore=1), "boxes", "ignore of annotation 4: wanted 0", [], DIES),
    ("flat box", box_of(10, 10, 20, 0), "boxes", "", [4], LEARNS),
    ("negative box", box_of(40, 40, -20, -20), "boxes", "negative_boxes", [4], LEARNS),
    ("NaN box", box_of(10, 10, math.nan, 5), "boxes", "bbox of annotation 4", [], LEARNS),
    ("infinite box", box_of(10, 10, math.inf, 5), "boxes", "bbox of annotation 4", [], LEARNS),
    ("huge box", box_of(10, 10, 10**400, 5), "boxes", "bbox of annotation 4", [], DIES),
    ("text box", box_of("1", 2, 3, 4), "boxes", "bbox of annotation 4", [], DIES),
    ("true box", box_of(True, 2, 30, 40), "boxes", "bbox of annotation 4", [], LEARNS),
    ("corners alone", box_of(1, 2), "boxes", "bbox of annotation 4", [], DIES),
    ("lost box", box_of(200, 200, 20, 20), "boxes", "", [4], LEARNS),
    (
        "lost boxes only",
        all_of("annotations", bbox=[200, 200, 20, 20]),
        "boxes",
        "nothing_to_learn",
        list(range(1, 9)),
        LEARNS,  # of background alone
    ),
    ("left of it", box_of(-30, 2, 20, 20), "boxes", "", [4], LEARNS),
    ("cut box", box_of(70, 10, 30, 20), "boxes", "", [], LEARNS),
    ("equal names", all_of("categories", name="a"), "boxes", "are both called 'a'", [], LEARNS),
    ("nameless", all_of("categories", name=""), "boxes", "name of category 1", [], LEARNS),
    ("no category", of_annotation(category_id=9), "boxes", "has category_id 9", [], DIES),
    ("list category", of_annotation(category_id=[1]), "boxes", "category_id of anno", [], DIES),
    ("no image", of_annotation(image_id=99), "boxes", "has image_id 99", [], LEARNS),
    ("same image id", of_image(id=1), "boxes", "has the id 1", [], LEARNS),
    ("same id", of_annotation(id=1), "boxes", "has the id 1", [], DIES),
    ("mixed ids", of_image(id="4"), "boxes", "some ids are numbers and some are", [], DIES),
    ("text size", of_image(width="80"), "boxes", "width of image 4: wanted pixels", [], DIES),
    ("no size", of_image(width=None), "boxes", "width of image 4: wanted pixels", [], DIES),
    ("lying size", of_image(width=64, height=80), "boxes", "wrong_sizes", [], DIES),
    ("float size", of_image(width=80.0), "boxes", "", [], LEARNS),
    ("no file", of_image(file_name="no.png"), "boxes", "missing_files", [], DIES),
    ("a folder", of_image(file_name="."), "boxes", "outside_files", [], DIES),
    ("outside", of_image(file_name="../images/4.png"), "boxes", "", [], LEARNS),
    ("far outside", of_image(file_name="../out.png"), "boxes", "outside_files", [], LEARNS),
    ("no text", of_image(file_name=4), "boxes", "file_name of image 4: wanted a text", [], DIES),
    ("no mask", without("segmentation"), "boxes", "", [], LEARNS),
    ("no mask", without("segmentation"), "masks", "missing_masks", [], DIES),
    ("empty mask", segmentation([]), "masks", "missing_masks", [], DIES),
    ("null mask", segmentation(None), "masks", "missing_masks", [], DIES),
    (
        "crowd without",
        lambda c: of_annotation(iscrowd=1, segmentation=[])(c),
        "masks",
        "",
        [],
        LEARNS,
    ),
    ("a line", segmentation([[1, 2, 3, 4]]), "boxes", "", [4], LEARNS),
    ("a line", segmentation([[1, 2, 3, 4]]), "masks", "", [4], LEARNS),
    ("odd", segmentation([[*SQUARE, 4]]), "boxes", "", [4], LEARNS),
    ("partly empty", segmentation([[], SQUARE]), "masks", "", [], LEARNS),
    ("flat polygon", segmentation(SQUARE), "boxes", "bad_masks", [], DIES),
    ("NaN polygon", segmentation([[math.nan, *SQUARE[1:]]]), "masks", "bad_masks", [], CHANCE),
    ("text polygon", segmentation([[str(v) for v in SQUARE]]), "masks", "bad_masks", [], CHANCE),
    ("text mask", segmentation("SQUARE"), "boxes", "bad_masks", [], CHANCE),
    (
        "mask outside",
        segmentation([[v + 100 for v in SQUARE]]),
        "masks",
        "masks_outside",
        [],
        LEARNS,
    ),
    ("RLE", segmentation(encoded()), "boxes", "", [], LEARNS),
    ("RLE", segmentation(encoded()), "masks", "encoded_masks", [], DIES),
    ("RLE", segmentation(encoded()), "bitmask", "", [], LEARNS),
    ("plain RLE", segmentation(encoded(compressed=False)), "bitmask", "", [], LEARNS),
    ("lying RLE", segmentation(encoded(80, 64)), "bitmask", "wrong_mask_sizes", [], DIES),
    ("lying RLE", segmentation(encoded(80, 64)), "boxes", "", [], LEARNS),
    ("small RLE", segmentation(encoded(32, 40)), "bitmask", "wrong_mask_sizes", [], DIES),
    (
        "cut RLE",
        segmentation({"size": [64, 80], "counts": [9, 9]}),
        "bitmask",
        "wrong_mask",
        [],
        None,
    ),
    ("no size", segmentation({"counts": [64 * 80]}), "boxes", "bad_masks", [], DIES),
    ("no counts", segmentation({"size": [64, 80]}), "boxes", "bad_masks", [], DIES),
    ("black RLE", segmentation(encoded(pixels=0)), "bitmask", "", [4], LEARNS),
    ("no points", without("keypoints"), "boxes", "", [], LEARNS),
    (
        "two points",
        of_annotation(keypoints=[1, 1, 2] * 2),
        "keypoints",
        "odd_keypoints",
        [],
        CHANCE,
    ),
    ("no triples", of_annotation(keypoints=[1, 1, 2, 3]), "keypoints", "odd_keypoints", [], DIES),
    ("no triples", of_annotation(keypoints=[1, 1, 2, 3]), "boxes", "", [], LEARNS),
    ("text points", of_annotation(keypoints=["a"]), "boxes", "keypoints of annotation 4", [], DIES),
    ("unseen points", of_annotation(keypoints=[0] * 9), "keypoints", "", [], LEARNS),
    ("no points at all", all_of("annotations", keypoints=[]), "keypoints", "nothing_to", [], DIES),
]


@pytest.mark.parametrize(
    ("name", "function", "kind", "refusal", "left_out", "detectron2"),
    CASES,
    ids=[f"{case[0]}-{case[2]}" for case in CASES],
)
def test_check_and_training_agree(
    name, function, kind, refusal, left_out, detectron2, furnished, trained
):
    change(furnished, function)
    if name == "far outside":
        Image.new("RGB", (80, 64)).save(furnished[0].parent / "out.png")
    cfg, network = trained(kind)
    said, passed = verdict(furnished, Needs.of(cfg, training=True))
    told, objects = trains(furnished, cfg, network)
    assert bool(said) == bool(told), (said, told)
    assert "\n" not in told
    assert refusal in said
    assert bool(refusal) == bool(said)
    assert passed == left_out
    if detectron2 == CHANCE:
        return
    plain = detectron2_learns(furnished, cfg, network)
    assert (plain is None) == (detectron2 == DIES)
    if not told:
        assert objects == plain
        content = json.loads(furnished[0].read_text())
        uncrowded = [one for one in content["annotations"] if not one["iscrowd"]]
        hidden = [one for one in uncrowded if kind == "keypoints" and not any(one["keypoints"])]
        assert objects == len(uncrowded) - len(left_out) - len(hidden)


def deep(image, file):
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 256).save(file)


def saved(mode, format="PNG"):
    return lambda image, file: image.convert(mode).save(file, format=format)


def turned(*, first=False):
    def save(image, file):
        exif = image.getexif()
        exif[0x0112] = 6
        image = image.transpose(Image.Transpose.ROTATE_90) if first else image
        image.save(file, format="JPEG", exif=exif)

    return save


def linked(_, file):
    file.unlink()
    file.symlink_to("nowhere.png")


def foldered(_, file):
    file.unlink()
    file.mkdir()


IMAGES = {
    "grey": (saved("L"), ""),
    "alpha": (saved("RGBA"), ""),
    "palette": (saved("P"), ""),
    "bits": (saved("1"), ""),
    "grey and alpha": (saved("LA"), ""),
    "CMYK": (saved("CMYK", "JPEG"), ""),
    "upright after EXIF": (turned(first=True), ""),
    "turned": (turned(), "wrong_sizes"),
    "16 bits": (deep, "deep_images"),
    "floats": (saved("F", "TIFF"), "deep_images"),
    "truncated": (lambda _, file: file.write_bytes(file.read_bytes()[:-2000]), "unreadable_files"),
    "empty": (lambda _, file: file.write_bytes(b""), "unreadable_files"),
    "text": (lambda _, file: file.write_text("no image"), "unreadable_files"),
    "a link to nothing": (linked, "unreadable_files"),
    "a folder": (foldered, "unreadable_files"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_check_and_training_agree_on_images(name, furnished, trained):
    save, refusal = IMAGES[name]
    image = Image.open(furnished[1] / "4.png").convert("RGB")
    save(image, furnished[1] / "4.png")
    cfg, network = trained("boxes")
    said, _ = verdict(furnished, Needs.of(cfg, training=True))
    told, _ = trains(furnished, cfg, network)
    assert said == refusal
    assert bool(told) == bool(said)
    if told:
        assert f"{furnished[1]}/4.png: " in told
    if name == "turned":
        assert "80 x 64, as the annotation file says, but its EXIF orientation turns it" in told
    if name == "16 bits":
        assert "would cut at 255; save it with 8 bits" in told
    plain = detectron2_learns(furnished, cfg, network)
    assert (plain is None) == bool(said and refusal != "deep_images")  # it cuts these


def test_boxes_whose_centre_is_outside_are_refused_only_where_images_are_cropped(
    furnished, trained
):
    change(furnished, box_of(70, 10, 30, 20))
    cfg, network = trained("boxes")
    assert verdict(furnished, Needs.of(cfg, training=True)) == ("", [])
    cfg.INPUT.CROP.ENABLED = True
    assert verdict(furnished, Needs.of(cfg, training=True)) == ("centres_outside", [])
    assert "centre is outside their image" in trains(furnished, cfg, network)[0]


def test_images_without_objects_are_kept_if_the_config_says_so(furnished, trained):
    change(furnished, lambda content: {**content, "annotations": []})
    cfg, network = trained("boxes")
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    assert verdict(furnished, Needs.of(cfg, training=True)) == ("", [])
    assert trains(furnished, cfg, network) == ("", 0)
