"""Maps are paired by their stride, categories by their name; what cannot be paired is refused."""

import copy

import pytest
import torch
from kd_core.errors import UserError

pytest.importorskip("detectron2")
import kd_det  # noqa: F401  before Detectron2
from detectron2.data import DatasetCatalog, MetadataCatalog
from kd_det.config import read_config
from kd_det.matching.categories import known_categories, reorder_classes

pytestmark = pytest.mark.usefixtures("full_samples")

PKD = {"CRITERION": "kd_core.criteria.pkd.PKD"}
KD = {"CRITERION": "kd_core.criteria.kd.KD", "STUDENT": "@roi_logits", "TEACHER": "@roi_logits"}
THREE = ("red", "green", "blue")


def taps(distiller, name):
    term = distiller.terms[f"loss_{name}"]
    return [[tap.removeprefix("backbone") for tap in side] for side in (term.student, term.teacher)]


def test_maps_of_two_kinds_of_detectors_are_paired_by_stride(build, inputs, storage, capsys):
    distiller = build("retinanet", {"pkd": PKD}, teacher="faster_rcnn")
    assert taps(distiller, "pkd") == [["[p3]", "[p4]", "[p5]", "[p6]"]] * 2
    said = capsys.readouterr().err
    assert "KD.TERMS.pkd: @fpn has the strides 8, 16, 32, 64, 128 in the student" in said
    assert "p3 with p3, p4 with p4" in said
    assert distiller(inputs)["loss_pkd"].isfinite()


def test_maps_of_a_dilated_backbone_are_paired_by_stride(build, capsys):
    distiller = build("faster_rcnn", {"pkd": PKD}, teacher="retinanet")
    assert taps(distiller, "pkd") == [["[p3]", "[p4]", "[p5]", "[p6]"]] * 2


def test_equal_pyramids_keep_all_their_maps_and_say_nothing(build, capsys):
    assert taps(build("retinanet", {"pkd": PKD}), "pkd")[0] == [f"[p{n}]" for n in range(3, 8)]
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("student", "teacher"),
    [("@fpn[:4]", "@fpn[:4]"), (["@fpn[0]"], "backbone[p3]"), ("backbone[p5]", ["@fpn[0]"])],
)
def test_roles_of_other_strides_are_refused(build, student, teacher):
    terms = {"pkd": PKD | {"STUDENT": student, "TEACHER": teacher}}
    with pytest.raises(UserError, match=r"KD.TERMS.pkd pairs backbone\[p.\] .* 16 x 16.* @fpn"):
        build("faster_rcnn", terms, teacher="retinanet")


def test_modules_of_other_strides_are_taken_as_meant_and_told(build, inputs, storage, capsys):
    terms = {"pkd": PKD | {"STUDENT": "backbone[p3]", "TEACHER": "backbone[p2]"}}
    distiller = build("faster_rcnn", terms)
    said = capsys.readouterr().err
    assert "pairs backbone[p3] of the student with backbone[p2] of the teacher" in said
    assert "16 x 16 and 32 x 32" in said
    assert distiller(inputs)["loss_pkd"].isfinite()


def test_pyramids_without_a_stride_in_common_are_refused(build):
    teacher = ["MODEL.FPN.IN_FEATURES", ["res4", "res5"], "MODEL.RESNETS.OUT_FEATURES"]
    teacher += [["res4", "res5"], "MODEL.RETINANET.IN_FEATURES", ["p6", "p7"]]
    teacher += ["MODEL.ANCHOR_GENERATOR.SIZES", [[128], [256]]]
    student = ["MODEL.RETINANET.IN_FEATURES", ["p3", "p4"]]
    student += ["MODEL.ANCHOR_GENERATOR.SIZES", [[16], [32]]]
    node = {"CONFIG": "teacher.yaml", "WEIGHTS": "random", "OPTS": teacher}
    with pytest.raises(UserError, match=r"8, 16 in the student, 64, 128 in the .*no stride in com"):
        build("retinanet", {"pkd": PKD}, student, KD={"TEACHER": node})


@pytest.fixture
def data(tmp_path):
    """Register names of categories; return a function that gives the options for them."""
    made = []

    def data(name, categories, key="thing_classes"):
        name = f"{name}_{tmp_path.name}"
        DatasetCatalog.register(name, list)
        MetadataCatalog.get(name).set(**{key: list(categories)})
        made.append(name)
        return ["DATASETS.TRAIN", (name,)]

    yield data
    for name in made:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def of_teacher(options):
    return {"TEACHER": {"CONFIG": "teacher.yaml", "WEIGHTS": "random", "OPTS": list(options)}}


MASKS = ["MODEL.MASK_ON", True, "MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead"]
MASKS += ["MODEL.ROI_MASK_HEAD.CONV_DIM", 8, "MODEL.ROI_MASK_HEAD.NUM_CONV", 1]


def test_a_teacher_of_another_order_gives_logits_in_the_students(build, data, inputs, storage):
    mine, theirs = data("mine", THREE), data("theirs", ("blue", "red", "green"))
    distiller = build("faster_rcnn", {"kd": KD}, [*mine, *MASKS], KD=of_teacher(theirs + MASKS))
    plain = build("faster_rcnn", {"kd": KD}, MASKS, KD=of_teacher(MASKS))
    turned, old = (one.teachers["teacher"].network.roi_heads for one in (distiller, plain))
    new = [1, 2, 0]  # the places of red, green and blue there
    logits = old.box_predictor.cls_score.weight
    assert torch.equal(turned.box_predictor.cls_score.weight, logits[[*new, 3]])
    boxes = old.box_predictor.bbox_pred.weight.view(3, 4, -1)
    assert torch.equal(turned.box_predictor.bbox_pred.weight.view(3, 4, -1), boxes[new])
    assert torch.equal(turned.mask_head.predictor.weight, old.mask_head.predictor.weight[new])
    assert torch.equal(turned.box_head.fc1.weight, old.box_head.fc1.weight)


def test_a_dense_head_is_reordered_for_every_anchor(build):
    sizes = [[16, 20], [32, 40], [64, 80], [128, 160], [256, 300]]
    options = ["MODEL.ANCHOR_GENERATOR.SIZES", sizes]
    network = build("retinanet", {"pkd": PKD}, options, KD=of_teacher(options)).network.eval()
    other = copy.deepcopy(network)
    reorder_classes(other, [2, 0, 1])
    maps = [torch.randn(1, 16, 4, 4)] * 5
    (logits, *_), boxes = network.head(maps)
    (turned, *_), same = other.head(maps)
    anchors = 6  # two sizes of three shapes
    expected = logits.view(1, anchors, 3, 4, 4)[:, :, [2, 0, 1]]
    torch.testing.assert_close(turned.view(1, anchors, 3, 4, 4), expected)
    assert torch.equal(boxes[0], same[0])


def test_equal_or_unknown_categories_change_nothing(build, data):
    mine, theirs = data("mine", THREE), data("theirs", THREE)
    plain = build("faster_rcnn", {"kd": KD}).teachers["teacher"].network.state_dict()
    for options in (theirs, ["DATASETS.TRAIN", ("nowhere",)], data("more", "abcdefgh")):
        built = build("faster_rcnn", {"kd": KD}, mine, KD=of_teacher(options))
        found = built.teachers["teacher"].network.state_dict()
        assert all(torch.equal(found[name], plain[name]) for name in plain)


def test_other_categories_are_refused_by_terms_that_compare_them(build, data):
    mine, theirs = data("mine", THREE), data("theirs", ("red", "greens", "blue"))
    with pytest.raises(
        UserError, match=r"KD.TERMS.kd: KD compares classes.*'green' is not.*greens"
    ):
        build("faster_rcnn", {"kd": KD, "pkd": PKD}, mine, KD=of_teacher(theirs))
    build("faster_rcnn", {"pkd": PKD}, mine, KD=of_teacher(theirs))
    build("faster_rcnn", {"kd": KD}, mine, KD=of_teacher(["DATASETS.TRAIN", ()]))
    larger = [*data("larger", (*THREE, "pink")), "MODEL.ROI_HEADS.NUM_CLASSES", 4]
    with pytest.raises(UserError, match=r"'pink' is the teacher's alone"):
        build("faster_rcnn", {"kd": KD}, mine, KD=of_teacher(larger))


def test_a_name_that_stands_twice_is_not_paired(build, data):
    mine, theirs = data("mine", ("a", "a", "b")), data("theirs", ("a", "b", "a"))
    with pytest.raises(UserError, match="KD compares classes"):
        build("faster_rcnn", {"kd": KD}, mine, KD=of_teacher(theirs))


def test_a_network_whose_last_layers_are_not_known_is_refused():
    with pytest.raises(UserError, match="the last layers of Linear are not known"):
        reorder_classes(torch.nn.Linear(3, 3), [1, 0, 2])


def test_categories_are_known_of_a_registered_set_that_fits(write, data):
    cfg = read_config(write("faster_rcnn"), data("mine", THREE))
    assert known_categories(cfg) == list(THREE)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 5
    assert known_categories(cfg) is None


@pytest.mark.parametrize(
    ("kind", "role", "key"),
    [
        ("keypoint_rcnn", "@keypoint_maps", "keypoint_names"),
        ("semantic_fpn", "@sem_logits", "stuff_classes"),
    ],
)
def test_channels_of_other_names_are_refused(build, data, kind, role, key):
    mine, theirs = data("mine", "abcde", key), data("theirs", "abdce", key)
    cwd = {"CRITERION": "kd_core.criteria.cwd.CWD", "STUDENT": role, "TEACHER": role}
    told = f"KD.TERMS.cwd: the channels of .* are a, b, c, d, ... in .* a, b, d, c, .*{key}"
    with pytest.raises(UserError, match=told):
        build(kind, {"cwd": cwd}, mine, KD=of_teacher(theirs))
    build(kind, {"cwd": cwd}, mine, KD=of_teacher(mine))
    build(kind, {"pkd": PKD}, mine, KD=of_teacher(theirs))
