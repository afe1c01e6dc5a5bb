"""A student that is its teacher learns nothing from it, whatever changes the regions."""

import pytest
import torch

pytest.importorskip("detectron2")
import kd_det  # noqa: F401  before Detectron2
from detectron2.structures import BitMasks, Boxes, Instances

BOX_HEAD = "MODEL.ROI_BOX_HEAD."
PREDICTED = [f"{BOX_HEAD}TRAIN_ON_PRED_BOXES", True]
AGNOSTIC = [f"{BOX_HEAD}CLS_AGNOSTIC_BBOX_REG", True]
NO_TRUTH = ["MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", False]
PRECOMPUTED = [
    "MODEL.PROPOSAL_GENERATOR.NAME",
    "PrecomputedProposals",
    "MODEL.LOAD_PROPOSALS",
    True,
]
MASKS = ["MODEL.MASK_ON", True, "MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead"]
MASKS += ["MODEL.ROI_MASK_HEAD.CONV_DIM", 8, "MODEL.ROI_MASK_HEAD.NUM_CONV", 1]

OPTIONS = {
    "nothing": [],
    "predicted boxes": PREDICTED,
    "predicted boxes of no class": PREDICTED + AGNOSTIC,
    "boxes of no class": AGNOSTIC,
    "no true boxes": NO_TRUTH,
    "predicted boxes without true ones": PREDICTED + NO_TRUTH,
    "files of proposals": PRECOMPUTED,
    "files of proposals, predicted boxes": PRECOMPUTED + PREDICTED,
    "masks of predicted boxes": MASKS + PREDICTED,
    "half of them objects": ["MODEL.ROI_HEADS.POSITIVE_FRACTION", 0.5],
    "few, loosely matched": ["MODEL.RPN.NMS_THRESH", 0.3, "MODEL.ROI_HEADS.IOU_THRESHOLDS", [0.3]],
}
TAPS = {
    "role": "@roi_logits",
    "list": ["@roi_logits"],
    "one of a role": "@roi_logits[0]",
    "some of a role": ["@roi_logits[:1]"],
    "entry": "roi_heads.box_predictor[0]",
    "another entry": "roi_heads.box_predictor[-2]",
    "layer": "roi_heads.box_predictor.cls_score",
}
KD = "kd_core.criteria.kd.KD"


def term(tap="@roi_logits", criterion=KD, teacher=None):
    return {"CRITERION": criterion, "STUDENT": tap, "TEACHER": tap if teacher is None else teacher}


@pytest.fixture
def twins(build, inputs):
    """Build a student with the weights of its teacher, of the same config."""

    def twins(terms, options=(), kind="faster_rcnn"):
        opts = list(options)
        node = {"CONFIG": "teacher.yaml", "WEIGHTS": "random", "OPTS": opts}
        distiller = build(kind, terms, opts, KD={"TEACHER": node})
        teacher = distiller.teachers["teacher"].network
        for name, weight in teacher.roi_heads.named_parameters():
            if name.endswith(("cls_score.weight", "bbox_pred.weight")):
                weight.data *= 100  # so that other regions have other logits and boxes
        distiller.network.load_state_dict(teacher.state_dict())
        for module in distiller.modules():  # the teacher's statistics are running ones
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        for one in inputs:
            truth = one["instances"]
            height, width = truth.image_size
            moved = truth.gt_boxes.tensor + torch.tensor([1.0, 2.0, -1.0, 3.0])
            regions = Instances(truth.image_size, proposal_boxes=Boxes(moved))
            regions.objectness_logits = torch.zeros(len(truth))
            one["proposals"] = regions
            if distiller.network.roi_heads.mask_on:
                truth.gt_masks = BitMasks(torch.ones(len(truth), height, width))
        return distiller

    return twins


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_teacher_sees_the_regions_of_the_students_logits(options, twins, inputs, storage):
    losses = twins({"kd": term()}, options)(inputs)
    assert losses["loss_kd"].abs() < 1e-5


@pytest.mark.parametrize("tap", TAPS.values(), ids=TAPS)
def test_a_tap_of_regions_is_known_however_it_is_written(tap, twins, inputs, storage):
    terms = {"there": term(tap, teacher="@roi_logits"), "here": term("@roi_logits", teacher=tap)}
    losses = twins(terms, PREDICTED)(inputs)
    assert all(losses[f"loss_{name}"].abs() < 1e-5 for name in terms)


@pytest.mark.parametrize("tap", ["roi_heads.box_head", "roi_heads.box_head.fc1"])
def test_vectors_of_regions_are_of_the_same_ones(tap, twins, inputs, storage):
    losses = twins({"rkd": term(tap, "kd_core.criteria.rkd.RKD")}, PREDICTED)(inputs)
    assert losses["loss_rkd"].abs() < 1e-5


def test_other_regions_would_be_seen(twins, inputs, storage):
    distiller = twins({"kd": term()}, PREDICTED)
    heads = distiller.teachers["teacher"].network.roi_heads
    heads.box_pooler.register_forward_pre_hook(
        lambda _, args: (args[0], [Boxes(boxes.tensor + 9) for boxes in args[1]])
    )
    assert distiller(inputs)["loss_kd"] > 1e-3


@pytest.mark.parametrize("options", [[], PREDICTED, NO_TRUTH], ids=["nothing", "boxes", "truth"])
@pytest.mark.parametrize("tap", [f"roi_heads.box_predictor.{stage}[0]" for stage in range(3)])
def test_every_stage_of_a_cascade_sees_its_own_regions(tap, options, twins, inputs, storage):
    losses = twins({"kd": term(tap)}, options, kind="cascade_rcnn")(inputs)
    assert losses["loss_kd"].abs() < 1e-5
