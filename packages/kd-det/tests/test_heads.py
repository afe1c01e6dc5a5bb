"""Detectors of every kind learn from their own heads, and from nothing where they are equal."""

import pytest
import torch
from kd_core.errors import UserError
from kd_core.networks.roles import tap_list

pytest.importorskip("detectron2")
import kd_det  # noqa: F401  before Detectron2
from detectron2.structures import BitMasks, Keypoints, pairwise_iou
from kd_det.roles import ROLES
from kd_det.train import main

KD = "kd_core.criteria.kd.KD"
CWD = "kd_core.criteria.cwd.CWD"
BINARY = "kd_det.criteria.binary_kd.BinaryKD"
MASK = "kd_det.criteria.binary_kd.MaskKD"
DKD = "kd_core.criteria.dkd.DKD"


def term(criterion, role):
    return {"CRITERION": criterion, "STUDENT": role, "TEACHER": role}


STAGES = {f"stage{k}": term(DKD, f"@roi_logits[{k}]") for k in range(3)}
CASES = {
    "mask_rcnn": {"masks": term(MASK, "@mask_logits"), "kd": term(KD, "@roi_logits")},
    "keypoint_rcnn": {"maps": term(CWD, "@keypoint_maps"), "rpn": term(BINARY, "@rpn_logits")},
    "cascade_rcnn": {**STAGES, "masks": term(MASK, "@mask_logits")},
    "panoptic_fpn": {
        "fpn": term(CWD, "@fpn"),
        "sem": term(CWD, "@sem_logits"),
        "masks": term(MASK, "@mask_logits"),
        "dkd": term(DKD, "@roi_logits"),
    },
    "semantic_fpn": {"fpn": term(CWD, "@fpn"), "sem": term(CWD, "@sem_logits")},
    "rpn": {"rpn": term(BINARY, "@rpn_logits")},
    "fast_rcnn": {"dkd": term(DKD, "@roi_logits")},
    "c4": {"dkd": term(DKD, "@roi_logits"), "masks": term(MASK, "@mask_logits")},
    "dc5": {"dkd": term(DKD, "@roi_logits")},
}
REFINED = ["MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", True]


@pytest.fixture
def labelled(inputs):
    """Add masks, keypoints, semantic labels and proposals to the batch."""
    for one in inputs:
        truth, (height, width) = one["instances"], one["image"].shape[1:]
        boxes = truth.gt_boxes.tensor
        masks = torch.zeros(len(boxes), height, width, dtype=torch.bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top : (top + bottom) // 2, left:right] = True
        truth.gt_masks = BitMasks(masks)
        centres = truth.gt_boxes.get_centers()[:, None].expand(-1, 5, -1)
        truth.gt_keypoints = Keypoints(
            torch.cat([centres, torch.full_like(centres[..., :1], 2)], 2)
        )
        one["sem_seg"] = torch.randint(4, (height, width))
        proposals = truth[:]
        one["proposals"] = type(truth)((height, width), proposal_boxes=proposals.gt_boxes)
        one["proposals"].objectness_logits = torch.zeros(len(truth))
    return inputs


def classes_of(kind, inputs):
    if kind == "keypoint_rcnn":
        for one in inputs:
            one["instances"].gt_classes.zero_()
    return inputs


def equal(distiller):
    """Make the student equal to its teacher, which refines boxes visibly."""
    for name, parameter in distiller.teachers["teacher"].network.named_parameters():
        if "bbox_pred" in name:
            parameter.data *= 100
    distiller.network.load_state_dict(distiller.teachers["teacher"].network.state_dict())
    for module in distiller.modules():  # the teacher's statistics are running ones
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return distiller


def unequal(distiller):
    """Change the student: one seed made both."""
    generator = torch.Generator().manual_seed(1)
    for parameter in distiller.network.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += 0.1 * parameter.abs().mean().clamp(min=0.1) * noise
    return distiller


@pytest.mark.parametrize(
    ("kind", "options"),
    [*((kind, ()) for kind in CASES), ("mask_rcnn", REFINED), ("cascade_rcnn", REFINED)],
)
def test_heads_teach_until_they_are_equal(kind, options, build, labelled, storage):
    terms = {f"loss_{name}" for name in CASES[kind]}
    distiller = unequal(build(kind, CASES[kind], options))
    losses = distiller(classes_of(kind, labelled))
    assert all(losses[name] > 1e-6 for name in terms), losses
    torch.stack(list(losses.values())).sum().backward()
    losses = equal(distiller)(labelled)
    assert all(losses[name].abs() < 1e-6 for name in terms), losses
    for one in labelled:
        one["instances"] = one["instances"][:0]
    losses = distiller(labelled)
    assert all(loss.isfinite() and loss.requires_grad for loss in losses.values())
    assert all(losses[name] == 0 for name in terms & {"loss_masks", "loss_maps"})


class TestRegions:
    def test_every_head_of_the_teacher_runs_on_the_regions_of_the_students(
        self, build, labelled, storage
    ):
        distiller = unequal(build("cascade_rcnn", CASES["cascade_rcnn"]))
        seen = {"student": [], "teacher": []}
        networks = {"student": distiller.network}
        networks["teacher"] = distiller.teachers["teacher"].network
        for side, network in networks.items():
            for pooler in (network.roi_heads.box_pooler, network.roi_heads.mask_pooler):
                note = lambda _, args, side=side: seen[side].append(args[1])  # noqa: E731
                pooler.register_forward_pre_hook(note)
        distiller(labelled)
        assert len(seen["student"]) == len(seen["teacher"]) == 4  # three stages, and masks
        for ours, theirs in zip(seen["student"], seen["teacher"], strict=True):
            assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(ours, theirs, strict=True))
        assert not torch.equal(seen["student"][0][0].tensor[:1], seen["student"][2][0].tensor[:1])

    def test_labels_are_those_of_the_stage(self, build, labelled, storage):
        distiller = build("cascade_rcnn", CASES["cascade_rcnn"])
        seen = {}
        for name, criterion in distiller.criteria.items():
            note = lambda _, args, name=name: seen.update({name: args})  # noqa: E731
            criterion.register_forward_pre_hook(note)
        distiller(labelled)
        for stage, overlap in enumerate((0.5, 0.6, 0.7)):  # from which on a region is foreground
            _, _, batch = seen[f"loss_stage{stage}"]
            regions = batch["regions"][f"roi_heads.box_predictor.{stage}"]
            assert batch["label"] is regions.classes
            best = [
                pairwise_iou(one["instances"].gt_boxes, boxes).max(0).values
                for one, boxes in zip(labelled, regions.boxes, strict=True)
            ]
            assert torch.equal(torch.cat(best) >= overlap, batch["label"] < 3)
        assert (seen["loss_masks"][2]["label"] < 3).all()

    def test_a_plain_student_learns_from_any_stage_of_a_cascade(self, build, labelled, storage):
        terms = {"last": term(KD, "@roi_logits") | {"TEACHER": "@roi_logits[2]"}}
        distiller = build("faster_rcnn", terms, teacher="cascade_rcnn")
        assert distiller.regions == {
            "teacher": {"roi_heads.box_predictor.2": "roi_heads.box_predictor"}
        }
        assert distiller(labelled)["loss_last"] > 0

    def test_one_head_cannot_run_on_the_regions_of_two(self, build):
        terms = {k: v | {"TEACHER": "@roi_logits"} for k, v in STAGES.items()}
        with pytest.raises(UserError, match=r"box_predictor would run on the regions of .*0 and"):
            build("cascade_rcnn", terms, teacher="faster_rcnn")

    def test_regions_are_not_compared_with_maps(self, build):
        path = {"STUDENT": "roi_heads.mask_head.predictor", "TEACHER": "backbone[p2]"}
        with pytest.raises(UserError, match=r"the student's tap is of regions, the other is not"):
            build("mask_rcnn", {"odd": {"CRITERION": CWD_LIKE, **path}})

    def test_other_anchors_are_refused(self, build):
        sizes = "[[16], [32], [64], [128], [256]]"
        other = {"CONFIG": "teacher.yaml", "WEIGHTS": "random"}
        other["OPTS"] = ["MODEL.ANCHOR_GENERATOR.SIZES", sizes]
        with pytest.raises(UserError, match="the anchors of student and teacher differ"):
            build("rpn", CASES["rpn"], KD={"TEACHER": other})


CWD_LIKE = "kd_core.criteria.reviewkd.ReviewKD"


class TestTaps:
    @pytest.mark.parametrize(
        ("path", "criterion"),
        [
            ("roi_heads.mask_head.mask_fcn1", CWD),
            ("roi_heads.box_head.fc1", "kd_core.criteria.rkd.RKD"),
            ("proposal_generator.rpn_head.conv[*][1]", CWD),
            ("proposal_generator.rpn_head.anchor_deltas[*][0]", CWD),
        ],
    )
    def test_any_module_of_a_head_is_tapped_in_the_teacher(
        self, path, criterion, build, labelled, storage
    ):
        distiller = unequal(build("mask_rcnn", {"head": term(criterion, path)}))
        assert distiller(labelled)["loss_head"] > 0
        assert equal(distiller)(labelled)["loss_head"] < 1e-5

    def test_what_only_the_whole_teacher_computes_is_tapped(self, build, labelled, storage):
        path = "proposal_generator.anchor_generator[0]"
        distiller = build("rpn", {"all": term(CWD, "@fpn")})
        teacher = distiller.teachers["teacher"].model
        teacher.run_for([path])
        assert teacher.whole
        with pytest.raises(UserError, match=r"only for regions of its own.*box_predictor"):
            build("mask_rcnn", {"odd": term(KD, "roi_heads[0]")})


def test_taps_are_listed_without_weights_or_data(write, capsys):
    terms = {"masks": term(MASK, "@mask_logits")}
    path = write(
        "mask_rcnn", terms, KD={"TEACHER": {"CONFIG": "teacher.yaml", "WEIGHTS": "no.pth"}}
    )
    assert main(["--config-file", str(path), "--list-taps"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("@mask_logits") == 2
    assert "roi_heads.mask_head.predictor [N, 3, 28, 28]" in shown
    assert "proposal_generator.rpn_head.objectness_logits[*] " in shown
    assert "[N, 3, 32, 32] (first of 5 calls)" in " ".join(shown.replace("│", " ").split())


@pytest.mark.parametrize("flag", ["--dry-run", "--list-taps"])
def test_a_flag_about_a_config_asks_for_one(flag, capsys):
    assert main([flag]) == 2
    assert f"{flag} has no effect on the demo" in capsys.readouterr().err


def test_the_tests_have_every_meta_architecture(models):
    from detectron2.modeling import META_ARCH_REGISTRY

    theirs = {
        name for name, cls in META_ARCH_REGISTRY if cls.__module__.startswith("detectron2.modeling")
    }
    assert theirs == {models[kind]["META_ARCHITECTURE"] for kind in ["retinanet", *CASES]}


def test_an_fcos_takes_the_synthetic_batch(build, storage):
    from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
    from kd_det.networks.detector import TeacherDetector
    from kd_det.running.dry_run import synthetic_inputs

    backbone = build("retinanet", {"maps": term(CWD, "@fpn")}).network.backbone
    shapes = list(backbone.output_shape().values())
    head = FCOSHead(input_shape=shapes, num_classes=3, conv_dims=[16, 16])
    images = {"pixel_mean": [103.5, 116.3, 123.7], "pixel_std": [57.0] * 3}
    network = FCOS(backbone=backbone, head=head, num_classes=3, **images)
    inputs = synthetic_inputs(network)
    losses = network(inputs)
    assert all(loss.isfinite() for loss in losses.values())
    teacher = TeacherDetector(network, input_format="RGB", given_format="BGR")
    assert [part.key for part in teacher.parts] == ["head"]
    assert len(teacher.roles["towers"]) == 2


@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn", *CASES])
def test_dry_run_takes_a_step_of_every_meta_architecture(kind, write, capsys):
    assert main(["--config-file", str(write(kind)), "--dry-run"]) == 0
    assert "one training step done" in capsys.readouterr().out


def test_dry_run_refuses_in_one_line_what_takes_other_inputs(write, capsys):
    from detectron2.modeling import META_ARCH_REGISTRY

    class Other(torch.nn.Linear):
        def __init__(self, cfg):
            super().__init__(2, 2)

        def forward(self, inputs):
            return {"loss": self.weight.sum() * inputs[0]["depth"]}

    META_ARCH_REGISTRY.register(Other)
    try:
        options = ["MODEL.META_ARCHITECTURE", "Other"]
        assert main(["--config-file", str(write("retinanet")), "--dry-run", *options]) == 2
    finally:
        META_ARCH_REGISTRY._obj_map.pop("Other")
    assert "fails in the dry run's step" in capsys.readouterr().err


def test_a_detector_without_a_role_is_told_which_have_it(build):
    student = build("rpn", {"fitnet": {"CRITERION": "kd_core.criteria.fitnet.FitNet"}}).student
    for role in ROLES.keys() - {"fpn", "rpn_logits"}:
        with pytest.raises(UserError, match=r"no such role.* detectors .* have it; take a method"):
            tap_list([f"@{role}"], student)


def test_a_teacher_that_fails_in_its_first_pass_is_one_line(build):
    term = {"CRITERION": "kd_core.criteria.cwd.CWD", "STUDENT": "@sem_logits"}
    opts = ["MODEL.SEM_SEG_HEAD.COMMON_STRIDE", 8]  # its maps of stride 4 are not made smaller
    node = {"CONFIG": "teacher.yaml", "WEIGHTS": "random", "OPTS": opts}
    terms = {"cwd": term | {"TEACHER": "@sem_logits"}}
    with pytest.raises(UserError, match=r"KD.TEACHER.CONFIG: Semantic.*failed in a first pass"):
        build("semantic_fpn", terms, KD={"TEACHER": node})
