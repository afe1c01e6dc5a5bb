"""A detector learns from another by one node in its config."""

import pytest
import torch
from kd_core.errors import UserError

pytest.importorskip("detectron2")
import kd_det  # noqa: F401  before Detectron2

REVIEW = {"CRITERION": "kd_core.criteria.reviewkd.ReviewKD"}
DKD = {
    "CRITERION": "kd_core.criteria.dkd.DKD",
    "ARGS": {"alpha": 1.0, "beta": 0.25, "temperature": 1.0},
    "STUDENT": "@roi_logits",
    "TEACHER": "@roi_logits",
}
FITNET = {"CRITERION": "kd_core.criteria.fitnet.FitNet", "STUDENT": "@fpn[0]", "TEACHER": "@fpn[0]"}


def test_detector_keeps_its_losses_and_gets_one_a_term(build, inputs, storage):
    losses = build("faster_rcnn", {"review": REVIEW, "dkd": DKD})(inputs)
    own = {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"}
    assert set(losses) == own | {"loss_review", "loss_dkd"}
    assert all(loss.isfinite() and loss.shape == () for loss in losses.values())


def test_retinanet_learns_from_all_levels(build, inputs, storage):
    distiller = build("retinanet", {"review": REVIEW})
    losses = distiller(inputs)
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_review"}
    losses["loss_review"].backward()
    laterals = distiller.network.backbone.fpn_lateral3.weight
    assert laterals.grad.abs().sum() > 0


def test_teacher_is_asked_about_the_students_regions(build, inputs, storage):
    distiller = build("faster_rcnn", {"dkd": DKD})
    seen = []
    teacher = distiller.teachers["teacher"].network
    teacher.roi_heads.box_pooler.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    pooler = distiller.network.roi_heads.box_pooler
    pooler.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    distiller(inputs)
    students, teachers = seen
    assert len(students) == 2
    assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(students, teachers, strict=True))


def test_equal_detectors_agree_about_every_region(build, inputs, storage):
    distiller = build("faster_rcnn", {"dkd": DKD})
    teacher = distiller.teachers["teacher"].network
    distiller.network.load_state_dict(teacher.state_dict())
    for module in distiller.modules():  # the teacher's statistics are running ones
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    kd = distiller(inputs)["loss_dkd"]
    assert kd.abs() < 1e-6


def test_teacher_runs_only_what_is_tapped(build, inputs, storage):
    distiller = build("faster_rcnn", {"fitnet": FITNET})
    teacher = distiller.teachers["teacher"].network
    teacher.proposal_generator = teacher.roi_heads = None
    assert distiller(inputs)["loss_fitnet"] > 0


def test_teachers_own_normalisation_and_channel_order_are_used(build, inputs, storage):
    changes = ["INPUT.FORMAT", "RGB", "MODEL.PIXEL_STD", "[50.0, 60.0, 70.0]"]
    distiller = build(
        "retinanet",
        {"fitnet": FITNET},
        KD={"TEACHER": {"CONFIG": "teacher.yaml", "WEIGHTS": "random", "OPTS": changes}},
    )
    images = []
    teacher = distiller.teachers["teacher"].network
    teacher.backbone.register_forward_pre_hook(lambda _, args: images.append(args[0]))
    distiller(inputs)
    rgb = inputs[0]["image"].flip(0).float()
    mean, std = torch.tensor([103.530, 116.280, 123.675]), torch.tensor([50.0, 60.0, 70.0])
    wanted = (rgb - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(images[0][0, :, :64, :64], wanted)


def test_criteria_are_told_boxes_and_sizes(build, inputs, storage):
    distiller = build("faster_rcnn", {"dkd": DKD})
    batches = []
    distiller.criteria["loss_dkd"].register_forward_pre_hook(
        lambda _, args: batches.append(args[2])
    )
    distiller(inputs)
    (batch,) = batches
    assert [len(boxes) for boxes in batch["boxes"]] == [3, 1]
    assert batch["image_sizes"].tolist() == [[64, 64], [48, 80]]
    assert batch["padded_size"] == (64, 96)  # to a multiple of 32
    assert batch["label"].max() <= 3
    assert len(batch["label"]) <= 16


def test_only_the_student_is_trained_and_evaluated(build, inputs, storage):
    distiller = build("faster_rcnn", {"review": REVIEW})
    trained = {name for name, p in distiller.named_parameters() if p.requires_grad}
    assert all(name.startswith(("student.network.", "criteria.loss_review.")) for name in trained)
    (first, _) = distiller.eval()(inputs)
    assert first["instances"].image_size == (64, 64)


def test_a_batch_without_any_box_is_finite(build, inputs, storage):
    for one in inputs:
        one["instances"] = one["instances"][:0]
    losses = build("faster_rcnn", {"dkd": DKD, "review": REVIEW})(inputs)
    assert all(loss.isfinite() for loss in losses.values())


def test_warm_up_counts_iterations(build, inputs, storage):
    distiller = build("retinanet", {"fitnet": FITNET | {"WARMUP_ITERS": 4}})
    full = build("retinanet", {"fitnet": FITNET})(inputs)["loss_fitnet"]
    assert distiller(inputs)["loss_fitnet"].item() == pytest.approx(full.item() / 4, rel=1e-5)
    distiller.advance()
    term = distiller.terms["loss_fitnet"]
    factor = term.factor(distiller.steps, distiller._steps_per_epoch)
    assert factor == 0.5


def test_a_warm_up_longer_than_the_run_is_told_in_iterations(build, capsys):
    build("retinanet", {"fitnet": FITNET | {"WARMUP_ITERS": 4}})
    assert not capsys.readouterr().err
    build("retinanet", {"fitnet": FITNET | {"WARMUP_ITERS": 5}})
    expected = "term 'fitnet': its warm-up of 5 iterations is longer than the run of 4"
    assert expected in capsys.readouterr().err


def test_weights_can_start_as_the_teachers(build):
    from kd_det.distiller import inherit

    distiller = build("retinanet", {"fitnet": FITNET})
    student, teacher = distiller.network, distiller.teachers["teacher"].network
    student.backbone.fpn_lateral3.weight.data.add_(1.0)  # one seed made both
    inherit(student, teacher, ["head."])
    assert torch.equal(student.head.cls_score.weight, teacher.head.cls_score.weight)
    lateral = student.backbone.fpn_lateral3.weight
    assert not torch.equal(lateral, teacher.backbone.fpn_lateral3.weight)
    with pytest.raises(UserError, match=r"KD.INHERIT: 'neck.': nothing"):
        inherit(student, teacher, ["neck."])
    with pytest.raises(UserError, match=r"KD.INHERIT: 3: wanted a prefix"):
        inherit(student, teacher, [3])


def test_weights_of_another_shape_cannot_be_inherited(build):
    from kd_det.distiller import inherit

    distiller = build("retinanet", {"fitnet": FITNET}, width=8)
    with pytest.raises(UserError, match=r"'head.cls_subnet.0.weight' has no counterpart"):
        inherit(distiller.network, distiller.teachers["teacher"].network, ["head."])


@pytest.fixture
def wrapped():
    """Register a meta-architecture of a user's own, which hides its parts."""
    from detectron2.modeling import META_ARCH_REGISTRY, build_model

    class Wrapped(torch.nn.Module):
        def __init__(self, cfg):
            super().__init__()
            cfg = cfg.clone()
            cfg.defrost()
            cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
            self.inner = build_model(cfg)

        def forward(self, inputs):
            return self.inner(inputs)

    META_ARCH_REGISTRY.register(Wrapped)
    yield
    META_ARCH_REGISTRY._obj_map.pop("Wrapped")


def test_a_meta_architecture_of_ones_own_is_tapped_by_path(wrapped, build, inputs, storage):
    paths = {"STUDENT": "inner.backbone[p3]", "TEACHER": "inner.backbone[p3]"}
    other = {"CONFIG": "teacher.yaml", "WEIGHTS": "random"}
    other["OPTS"] = ["MODEL.META_ARCHITECTURE", "Wrapped"]
    options = ["MODEL.META_ARCHITECTURE", "Wrapped"]
    distiller = build("retinanet", {"fitnet": FITNET | paths}, options, KD={"TEACHER": other})
    losses = distiller(inputs)
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_fitnet"}
    losses["loss_fitnet"].backward()
    assert distiller.network.inner.backbone.fpn_lateral3.weight.grad.abs().sum() > 0


class TestRefusals:
    def test_unknown_key_of_a_term(self, build):
        with pytest.raises(UserError, match=r"KD.TERMS.dkd has no key 'WEIHGT'.*'WEIGHT'"):
            build("faster_rcnn", {"dkd": DKD | {"WEIHGT": 2.0}})

    def test_unknown_key_of_the_node(self, build):
        with pytest.raises(UserError, match=r"no key KD.TEACHR.*'TEACHER'"):
            build("faster_rcnn", {"dkd": DKD}, KD={"TEACHR": {"WEIGHTS": "x"}})

    def test_unknown_option(self, build):
        with pytest.raises(UserError, match=r"no key SOLVER.BASE_RL.*'BASE_LR'"):
            build("faster_rcnn", {"dkd": DKD}, ["SOLVER.BASE_RL", "0.1"])

    def test_unknown_argument_of_a_criterion(self, build):
        with pytest.raises(UserError, match=r"KD.TERMS.dkd.ARGS.*'bta'.*'beta'"):
            build("faster_rcnn", {"dkd": DKD | {"ARGS": {"bta": 1.0}}})

    def test_missing_weights_of_the_teacher(self, build):
        with pytest.raises(UserError, match=r"KD.TEACHER.WEIGHTS is empty"):
            build("faster_rcnn", {"dkd": DKD}, ["KD.TEACHER.WEIGHTS", ""])

    def test_weights_that_do_not_exist(self, build):
        with pytest.raises(UserError, match=r"KD.TEACHER.WEIGHTS: .*nowhere.pth"):
            build("faster_rcnn", {"dkd": DKD}, ["KD.TEACHER.WEIGHTS", "nowhere.pth"])

    def test_logits_of_regions_of_a_retinanet(self, build):
        with pytest.raises(UserError, match=r"KD.TERMS.dkd.student.*'@roi_logits'.*no such role"):
            build("retinanet", {"dkd": DKD})

    def test_teacher_of_other_classes(self, build):
        other = {"CONFIG": "teacher.yaml", "WEIGHTS": "random"}
        other["OPTS"] = ["MODEL.ROI_HEADS.NUM_CLASSES", 5]
        with pytest.raises(UserError, match=r"student has 4 classes, teacher 6"):
            build("faster_rcnn", {"dkd": DKD}, KD={"TEACHER": other})

    def test_unknown_tap(self, build):
        with pytest.raises(UserError, match=r"KD.TERMS.fitnet.student.*'backbone.fpn_lateral7'"):
            build("retinanet", {"fitnet": FITNET | {"STUDENT": "backbone.fpn_lateral7"}})

    def test_code_in_yaml(self, write):
        from kd_det.config import read_config

        path = write("retinanet")
        path.write_text("SEED: !!python/object/apply:os.getpid []\n")
        with pytest.raises(UserError, match="not plain YAML"):
            read_config(path)


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
@pytest.mark.parametrize("terms", [{"review": REVIEW}, {"dkd": DKD}])
def test_a_folded_teacher_teaches_the_same(norm, terms, build, inputs, storage):
    options = ["KD.TEACHER.OPTS", f"['MODEL.RESNETS.NORM', '{norm}']"]
    distiller = build("faster_rcnn", terms, options)
    before, after = ({}, {})
    for losses in (before, after):
        torch.manual_seed(1)
        losses |= distiller(inputs)
        distiller.accelerate_teachers()
    model, running = distiller.teachers["teacher"].models
    assert not [name for name in dict(running.named_modules()) if _is_batchnorm(running, name)]
    assert [name for name in dict(model.named_modules()) if _is_batchnorm(model, name)]
    for name, loss in before.items():
        torch.testing.assert_close(after[name], loss, rtol=1e-4, atol=1e-6)


def _is_batchnorm(model, name):
    return "BatchNorm" in type(model.get_submodule(name)).__name__


@pytest.mark.parametrize(
    ("terms", "first"), [({"review": REVIEW}, "teacher"), ({"dkd": DKD}, "student")]
)
def test_a_teacher_runs_first_unless_it_needs_the_students_regions(
    terms, first, build, inputs, storage
):
    distiller, ran = build("faster_rcnn", terms), []
    networks = {"student": distiller.network, "teacher": distiller.teachers["teacher"].network}
    for name, network in networks.items():
        network.backbone.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
    distiller(inputs)
    assert ran[0] == first
    assert len(ran) == 2
