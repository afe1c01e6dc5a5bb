"""A student's weights fit, or one line says what does not; what stays random is said."""

import pickle
import zipfile

import pytest
import torch
from kd_core.errors import UserError
from safetensors.torch import save_file
from torch import nn

pytest.importorskip("detectron2")

import kd_det  # noqa: F401
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from kd_det.config import read_config
from kd_det.networks.conversion import convert
from kd_det.networks.detector import build_detector
from kd_det.train import main
from kd_det.weights import SafeCheckpointer, load_teacher

FITNET = {"hint": {"CRITERION": "kd_core.criteria.fitnet.FitNet"}}
BOTTOM = "backbone.bottom_up."
R_50 = ("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone")
R_101 = (*R_50, "MODEL.RESNETS.DEPTH", 101)


@pytest.fixture
def model(write):
    torch.manual_seed(0)
    return build_detector(read_config(write("faster_rcnn")))


@pytest.fixture
def other(write):
    """Return a detector of changed options, with other random weights."""

    def other(*options, kind="faster_rcnn"):
        torch.manual_seed(1)
        return build_detector(read_config(write(kind), options))

    return other


@pytest.fixture
def deeper(other):
    """Return a detector on a ResNet-50, and the weights of one on a ResNet-101."""
    return {"model": other(*R_50), "state": other(*R_101).state_dict()}


@pytest.fixture
def load(model, tmp_path):
    """Save contents to a file and load them into the model, or into another."""

    def load(contents, *, whole=False, name="w.pth", choice="", into=model):
        file = tmp_path / name
        if name.endswith(".pkl"):
            file.write_bytes(pickle.dumps(contents))
        elif name.endswith(".safetensors"):
            save_file(contents, file)
        else:
            torch.save(contents, file)
        SafeCheckpointer(into, whole=whole).load(f"{file}{choice}")

    return load


def assert_loaded(model, state):
    own = model.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in own)


def refused(act, *texts):
    with pytest.raises(UserError) as caught:
        act()
    assert "\n" not in str(caught.value)
    assert all(text in str(caught.value) for text in texts), str(caught.value)


def under(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def in_ddp(state):
    """Return what `DetectionCheckpointer(trainer.model)` saves of a distiller in DDP."""
    more = {"module.criteria.loss_hint.aligners.0.weight": torch.zeros(3, 3)}
    return under("module.student.network.", state) | more


def halved(value):
    return value.half() if value.is_floating_point() else value


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (lambda state: {"model": state, "iteration": 3, "optimizer": {"state": {}}}, ""),
        (lambda state: under("module.", state), "module"),
        (lambda state: {"model": under("student.network.", state)}, "model.student.network"),
        (lambda state: {"model": in_ddp(state)}, "model.module.student.network"),
        (lambda state: {"ema_state": state}, "ema_state"),
        (lambda state: {name: halved(value) for name, value in state.items()}, ""),
    ],
    ids=["detectron2", "ddp", "distiller", "ddp_distiller", "average", "half"],
)
def test_what_tools_save_is_read_right(wrap, prefix, whole, model, other, load, capsys):
    state = {name: value.half().to(value.dtype) for name, value in other().state_dict().items()}
    load(wrap(state), whole=whole)
    assert_loaded(model, state)
    said = capsys.readouterr().err
    assert "random" not in said
    assert (f"under {prefix!r}" in said) == (prefix != "")


def test_safetensors_are_read(model, other, load):
    state = other().state_dict()
    load(dict(state), name="w.safetensors", whole=True)
    assert_loaded(model, state)


def test_of_several_that_fit_detectron2_s_is_taken_and_another_can_be_chosen(
    model, other, load, capsys
):
    state = other().state_dict()
    average = {n: v + 1 for n, v in state.items()}
    load({"model": state, "ema": average})
    assert_loaded(model, state)
    assert "took 'model'; others fit too: FILE#ema takes them" in capsys.readouterr().err
    load({"model": state, "ema": average}, choice="#ema")
    assert_loaded(model, average)
    both = {"one": state, "two": average}
    refused(lambda: load(both), "holds several weights that fit", "one, two")


class TestWholeDetector:
    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (("MODEL.RESNETS.NORM", ""), "missing (backbone.bottom_up.stem.conv1.norm."),
            (("MODEL.ROI_HEADS.NUM_CLASSES", 5), "4 of another shape (roi_heads.box_predictor"),
            (("MODEL.FPN.OUT_CHANNELS", 8), "of another shape (backbone.fpn_lateral2"),
            (("MODEL.ROI_BOX_HEAD.NUM_FC", 2), "unexpected (roi_heads.box_head.fc2"),
        ],
    )
    def test_another_one_is_refused(self, other, load, change, told):
        state = other(*change).state_dict()
        refused(lambda: load(state, whole=True), "w.pth: does not fit", told, "give the config")

    def test_a_deeper_one_is_refused(self, deeper, load):
        refused(
            lambda: load(deeper["state"], into=deeper["model"], whole=True),
            "w.pth: does not fit",
            "unexpected (backbone.bottom_up.res4.6",
            "give the config",
        )

    def test_another_architecture_is_refused(self, other, load):
        state = other(kind="retinanet").state_dict()
        refused(lambda: load(state, whole=True), "missing (", "unexpected (backbone.top_block")

    def test_a_whole_part_more_is_left_out_and_said(self, model, other, load, capsys):
        state = other().state_dict()
        mask = {"roi_heads.mask_head.predictor.weight": torch.zeros(3, 2, 1, 1)}
        load({**state, **mask}, whole=True)
        assert_loaded(model, state)
        assert "left out of the file: roi_heads.mask_head" in capsys.readouterr().err

    def test_a_backbone_is_refused(self, other, load):
        state = {n: v for n, v in other().state_dict().items() if n.startswith(BOTTOM)}
        refused(lambda: load(state, whole=True), "missing (backbone.fpn_lateral2", "--eval-only")

    def test_no_weights_are_not_evaluated(self, model, tmp_path):
        checkpointer = SafeCheckpointer(model, str(tmp_path), whole=True)
        refused(lambda: checkpointer.resume_or_load("", resume=True), "no weights to evaluate")


class TestStart:
    def test_a_backbone_fits_and_the_rest_is_said_to_be_random(self, model, other, load, capsys):
        state = {n: v for n, v in other().state_dict().items() if n.startswith(BOTTOM)}
        load({**state, "backbone.bottom_up.linear.weight": torch.zeros(3, 2)}, whole=False)
        assert torch.equal(
            model.backbone.bottom_up.stem.conv1.weight, state[f"{BOTTOM}stem.conv1.weight"]
        )
        said = capsys.readouterr().err
        assert "starts random: backbone.fpn_lateral2, " in said
        assert said.count("\n") == 1

    def test_names_without_their_prefix_are_matched_by_detectron2(
        self, other, deeper, load, capsys
    ):
        state = other().state_dict()
        short = {
            n.removeprefix(BOTTOM): v.numpy() for n, v in state.items() if n.startswith(BOTTOM)
        }
        contents = {"model": short, "__author__": "me", "matching_heuristics": True}
        load(contents, name="w.pkl")
        assert "starts random: backbone.fpn_" in capsys.readouterr().err
        short = {
            n.removeprefix(BOTTOM): v.numpy()
            for n, v in deeper["state"].items()
            if n.startswith(BOTTOM)
        }
        contents = {"model": short, "__author__": "me", "matching_heuristics": True}
        refused(
            lambda: load(contents, name="w.pkl", into=deeper["model"]),
            "unexpected (backbone.bottom_up.res4.",
        )

    def test_other_classes_leave_the_last_layers_random(self, model, other, load, capsys):
        state = other("MODEL.ROI_HEADS.NUM_CLASSES", 5).state_dict()
        load(state)
        said = capsys.readouterr().err
        assert "random: roi_heads.box_predictor\n" in said
        assert torch.equal(
            model.roi_heads.box_head.fc1.weight, state["roi_heads.box_head.fc1.weight"]
        )

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (("MODEL.RESNETS.NORM", ""), "missing (backbone.bottom_up.stem"),
            (("MODEL.FPN.OUT_CHANNELS", 8), "of another shape (backbone.fpn_output2"),
            (("MODEL.RESNETS.RES2_OUT_CHANNELS", 32), "of another shape (backbone.fpn_lateral2"),
            (("MODEL.ROI_BOX_HEAD.NUM_FC", 2), "unexpected (roi_heads.box_head.fc2"),
        ],
    )
    def test_what_fits_in_part_is_refused(self, other, load, change, told):
        refused(lambda: load(other(*change).state_dict()), told, "MODEL.WEIGHTS may be")

    def test_a_deeper_one_is_refused(self, deeper, load):
        refused(
            lambda: load(deeper["state"], into=deeper["model"]),
            "unexpected (backbone.bottom_up.res4.6",
            "MODEL.WEIGHTS may be",
        )

    def test_a_part_of_the_backbone_is_refused(self, other, load):
        state = {n: v for n, v in other().state_dict().items() if ".res5." not in n}
        refused(lambda: load(state), "missing (backbone.bottom_up.res5.0")

    def test_values_that_are_not_numbers_are_refused(self, other, load):
        state = other().state_dict()
        state[f"{BOTTOM}stem.conv1.weight"][0] = torch.nan
        refused(
            lambda: load({"model": {f"student.network.{n}": v for n, v in state.items()}}),
            "is not finite",
        )

    def test_caffe2_s_batchnorms_may_lack_statistics(self, load, model, capsys):
        blobs = blobs_of(model)
        load({"blobs": blobs}, name="w.pkl")
        said = capsys.readouterr().err
        assert "starts random: backbone.fpn_" in said
        assert "bottom_up" not in said
        del blobs["res4_0_branch2b_w"]
        refused(
            lambda: load({"blobs": blobs}, name="w.pkl"),
            "1 missing (backbone.bottom_up.res4.0.conv2.weight)",
        )

    def test_caffe2_s_batchnorms_do_not_go_into_other_norms(self, model, load):
        blobs = blobs_of(model)
        for module in model.backbone.bottom_up.modules():
            if hasattr(module, "norm"):
                module.norm = nn.GroupNorm(1, module.out_channels)
        refused(lambda: load({"blobs": blobs}, name="w.pkl"), "MODEL.RESNETS.NORM BN")
        load({"blobs": {n.replace("_bn_", "_gn_"): v for n, v in blobs.items()}}, name="w.pkl")


def blobs_of(model):
    """Return the backbone's weights by the names of Caffe2, as R-50.pkl of MSRA has them."""
    state = {n.removeprefix(BOTTOM): v for n, v in model.state_dict().items() if BOTTOM in n}
    return {
        caffe2(n): v.numpy() for n, v in state.items() if "running" not in n and "num_b" not in n
    }


def caffe2(name):
    for ours, theirs in {
        "stem.conv1": "conv1",
        "conv1.": "branch2a.",
        "conv2.": "branch2b.",
        "conv3.": "branch2c.",
        "shortcut": "branch1",
        ".norm.weight": "_bn_s",
        ".norm.bias": "_bn_b",
        ".weight": "_w",
        ".bias": "_b",
    }.items():
        if ours != "conv1." or not name.startswith("conv1"):
            name = name.replace(ours, theirs)
    return name.replace(".", "_")


FOREIGN = {
    "torchvision": (
        ["backbone.body.conv1.weight", "rpn.head.cls_logits.weight", "roi_heads.box_head.fc6.bias"],
        "a detector of torchvision",
    ),
    "detr": (
        ["query_embed.weight", "transformer.encoder.layers.0.linear1.bias", "input_proj.weight"],
        "a DETR",
    ),
    "yolo": (["model.0.conv.weight", "model.22.dfl.conv.weight"], "a YOLO of ultralytics"),
    "mmdet": (["backbone.layer1.0.conv1.weight", "neck.lateral_convs.0.conv.bias"], "mmdetection"),
    "resnet": (["layer1.0.conv1.weight", "bn1.bias", "fc.weight"], "--arch NAME"),
    "mobilenet": (["features.1.conv.0.0.weight", "classifier.1.bias"], "--arch NAME"),
    "vit": (["patch_embed.proj.bias", "blocks.0.attn.qkv.weight"], "a vision transformer"),
    "unknown": (["a.weight", "b.weight"], "missing ("),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("whole", [True, False])
def test_files_of_other_libraries_are_known_and_told_what_they_are_good_for(
    kind, whole, model, load, tmp_path
):
    names, told = FOREIGN[kind]
    state = {name: torch.zeros(1) for name in names}
    refused(lambda: load({"model": state}, whole=whole), "w.pth: does not fit", told)
    refused(lambda: load_teacher(model, tmp_path / "w.pth"), "w.pth: does not fit", told)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert_loaded(model, before)


def test_a_pickled_yolo_is_refused_with_what_can_be_done(model, tmp_path):
    code = b"\x80\x02cultralytics.nn.tasks\nDetectionModel\n)\x81."
    file = tmp_path / "yolo.pt"
    torch.save({"model": torch.zeros(1)}, file, _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("yolo/data.pkl", code)
        archive.writestr("yolo/version", "3\n")
    for load in (SafeCheckpointer(model).load, lambda path: load_teacher(model, path)):
        refused(
            lambda load=load: load(str(file)), "a YOLO of ultralytics pickles its whole network"
        )


def test_the_backbone_of_a_detector_of_torchvision_becomes_one_of_detectron2(write):
    with torch.device("meta"):
        network = torchvision.models.detection.fasterrcnn_resnet50_fpn(
            weights=None, weights_backbone=None
        )
    state = {name: value for name, value in network.state_dict().items()}
    found = convert(state, "resnet50")
    classifier = torchvision.models.resnet50(weights=None).state_dict()
    assert found.keys() == convert(classifier, "resnet50").keys()
    with pytest.raises(UserError, match="not weights of torchvision's resnet18"):
        convert(state, "resnet18")


class TestTool:
    """What `BestCheckpointer(DetectionCheckpointer(trainer.model))` wrote, and others."""

    @pytest.fixture
    def evaluate(self, write, coco, tmp_path, monkeypatch, capsys):
        name = f"set_{tmp_path.name}"
        monkeypatch.chdir(tmp_path)

        def evaluate(weights):
            path = write("faster_rcnn", FITNET, DATASETS={"TRAIN": [name], "TEST": [name]})
            given = ["--register", f"{name}={coco[0]}:{coco[1]}", "--config-file", str(path)]
            status = main([*given, "--eval-only", "OUTPUT_DIR", "eval", "MODEL.WEIGHTS", weights])
            return status, capsys.readouterr().err

        return evaluate

    def test_a_distiller_s_file_is_evaluated_as_its_student(self, evaluate, build, tmp_path):
        distiller = build("faster_rcnn", FITNET)
        DetectionCheckpointer(distiller, str(tmp_path)).save("best")
        status, said = evaluate("best.pth")
        assert status == 0, said
        assert "tensors under 'model.student.network'" in said
        other = build("faster_rcnn", FITNET, width=8)
        DetectionCheckpointer(other, str(tmp_path)).save("best")
        status, said = evaluate("best.pth")
        assert status == 2
        assert "best.pth: does not fit GeneralizedRCNN" in said
        assert said.count("error: ") == 1
