"""RetinaNet, FCOS and a head with distributions of edges (GFL) learn boxes from their like."""

import pytest
import torch
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.networks.probe import calibrate_batchnorm
from kd_det.criteria.bckd import BCKD
from kd_det.criteria.crosskd import CrossKD
from kd_det.criteria.ld import LD
from torch import nn

pytest.importorskip("detectron2")
import kd_det  # noqa: F401  before Detectron2
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from kd_det.config import read_config
from kd_det.distiller import DetectionDistiller, sample_batch
from kd_det.networks.detector import Detector, TeacherDetector

CLASSES, BINS = 3, 5
FINAL, TOWERS = ["@dense_logits", "@dense_boxes"], ["@towers"]


class EdgeHead(FCOSHead):
    """Predicts a distribution of the distance to each edge, as GFL does; FCOS gets their means."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.bbox_pred = nn.Conv2d(arguments["conv_dims"][-1], 4 * BINS, 3, padding=1)

    def forward(self, features):
        logits, edges, centreness = super().forward(features)
        places = torch.arange(BINS, device=edges[0].device)
        shares = [level.unflatten(1, (4, BINS)).softmax(2) for level in edges]
        means = [(level * places.view(1, 1, -1, 1, 1)).sum(2) for level in shares]
        return logits, means, centreness


@pytest.fixture
def distiller(write):
    """Build two equal detectors, a student and its teacher, and a term between them."""

    def distiller(kind, criterion, taps=FINAL, *, teacher_classes=CLASSES):
        cfg = read_config(write("retinanet"))
        torch.manual_seed(0)
        networks = [network_of(kind, cfg, number) for number in (CLASSES, teacher_classes)]
        student = Detector(networks[0])
        teacher = TeacherDetector(networks[1], input_format="BGR", given_format="BGR")
        sample = sample_batch(student.network)
        calibrate_batchnorm(student, sample)
        calibrate_batchnorm(teacher, sample)
        terms = {"loss_kd": Term(criterion, student=taps, teacher=taps)}
        return DetectionDistiller(student, {"teacher": teacher}, terms, sample=sample).train()

    return distiller


def network_of(kind, cfg, classes):
    from detectron2.modeling import build_model

    if kind == "retinanet":
        cfg.MODEL.RETINANET.NUM_CLASSES = classes
        network = build_model(cfg)
    else:
        backbone = build_backbone(cfg)
        head = {"fcos": FCOSHead, "edges": EdgeHead}[kind](
            input_shape=[ShapeSpec(channels=16)] * 5, num_classes=classes, conv_dims=[16] * 2
        )
        statistics = {"pixel_mean": [110.0] * 3, "pixel_std": [57.0] * 3}
        network = FCOS(backbone=backbone, head=head, num_classes=classes, **statistics)
    for module in network.head.modules():  # predictions that differ between images and networks
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1)
    return network.eval()


CASES = [
    pytest.param("retinanet", BCKD, FINAL, id="BCKD-retinanet"),
    pytest.param("fcos", BCKD, FINAL, id="BCKD-fcos"),
    pytest.param("edges", lambda: BCKD(bins=BINS), FINAL, id="BCKD-edges"),
    pytest.param("edges", lambda: LD(bins=BINS), FINAL, id="LD-edges"),
    pytest.param("retinanet", CrossKD, TOWERS, id="CrossKD-retinanet"),
    pytest.param("fcos", CrossKD, TOWERS, id="CrossKD-fcos"),
]


@pytest.mark.parametrize(("kind", "make", "taps"), CASES)
class TestLosses:
    def test_the_head_learns_from_another(self, kind, make, taps, distiller, inputs, storage):
        model = distiller(kind, make(), taps)
        loss = model(inputs)["loss_kd"]
        assert loss > 1e-3
        loss.backward()
        head = model.network.head
        towers = [head.cls_subnet[0], head.bbox_subnet[0]]
        predictions = [head.cls_score, head.bbox_pred] if taps == FINAL else []
        for layer in towers + predictions:
            assert layer.weight.grad.isfinite().all()
            assert layer.weight.grad.any()

    def test_own_weights_as_teacher_give_0(self, kind, make, taps, distiller, inputs, storage):
        model = distiller(kind, make(), taps)
        model.network.load_state_dict(model.teachers["teacher"].network.state_dict())
        for module in model.modules():  # the teacher's statistics are running ones
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        loss = model(inputs)["loss_kd"]
        assert loss.item() == pytest.approx(0, abs=2e-3 if taps == TOWERS else 1e-6)
        loss.backward()
        gradients = [p.grad for p in model.network.parameters() if p.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)

    def test_images_without_objects_are_finite(self, kind, make, taps, distiller, inputs, storage):
        model = distiller(kind, make(), taps)
        inputs[1]["instances"] = inputs[1]["instances"][:0]
        assert model(inputs)["loss_kd"] > 0  # the other image has some
        inputs[0]["instances"] = inputs[0]["instances"][:0]
        losses = model(inputs)
        assert all(loss.isfinite() for loss in losses.values())
        if taps == FINAL:
            assert losses["loss_kd"] == 0
        losses["loss_kd"].backward()
        assert model.network.head.cls_subnet[0].weight.grad.isfinite().all()

    def test_autocast_loses_little(self, kind, make, taps, distiller, inputs, storage):
        model = distiller(kind, make(), taps)
        wide = model(inputs)["loss_kd"]
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(inputs)["loss_kd"]
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(wide.item(), rel=0.25)


def test_padding_does_not_shift_the_targets(distiller, inputs, storage):
    model, seen = distiller("fcos", BCKD()), []
    model.criteria["loss_kd"].register_forward_pre_hook(lambda _, args: seen.append(args))
    model(inputs)
    ((student, teacher, batch),) = seen
    sizes = [level.shape[2:] for level in student[0]]
    assert [len(level) for level in batch["anchors"]] == [h * w for h, w in sizes]
    assert [level.shape for level in teacher[1]] == [level.shape for level in student[1]]
    centres = torch.cat(batch["anchors"]).unflatten(1, (2, 2)).mean(1)
    box = inputs[1]["instances"].gt_boxes.tensor[0]
    chosen = centres[batch["gt_labels"][1] == 0]
    assert len(chosen)
    assert ((chosen > box[:2]) & (chosen < box[2:])).all()


class TestRefusals:
    def test_deltas_in_the_place_of_distributions(self, distiller):
        for kind in ("retinanet", "fcos"):
            with pytest.raises(UserError, match="GFL 4 distributions"):
                distiller(kind, LD())

    def test_towers_in_the_place_of_predictions(self, distiller):
        with pytest.raises(UserError, match="heads of 16 channels for the classes and 16 for"):
            distiller("fcos", BCKD(), TOWERS)

    def test_a_teacher_of_other_classes(self, distiller):
        for criterion, taps in ((BCKD(), FINAL), (CrossKD(), TOWERS)):
            with pytest.raises(UserError, match="student has 3 classes, the teacher 4"):
                distiller("fcos", criterion, taps, teacher_classes=4)

    @pytest.mark.parametrize("role", ["@towers", "@dense_logits"])
    def test_a_detector_without_a_dense_head(self, role, build):
        term = {"CRITERION": "kd_det.criteria.crosskd.CrossKD", "STUDENT": role, "TEACHER": role}
        with pytest.raises(UserError, match=r"no such role.* \(RetinaNet, FCOS\) have it"):
            build("faster_rcnn", {"crosskd": term})

    @pytest.mark.parametrize("name", ["bckd.BCKD", "crosskd.CrossKD"])
    def test_taps_that_are_not_of_a_head(self, name, build):
        term = {"CRITERION": f"kd_det.criteria.{name}"}  # @fpn
        for kind in ("retinanet", "faster_rcnn"):
            with pytest.raises(UserError, match=r"dense|are not taps in it") as raised:
                build(kind, {"term": term})
            assert "\n" not in str(raised.value)

    def test_an_fcos_that_learns_from_a_retinanet(self, distiller, write):
        cfg = read_config(write("retinanet"))
        for criterion, towers in ((BCKD(), FINAL), (CrossKD(), TOWERS)):
            networks = [network_of(kind, cfg, CLASSES) for kind in ("fcos", "retinanet")]
            paths = [Detector(network).roles for network in networks]
            taps = [[path for t in towers for path in p[t[1:]]] for p in paths]
            with pytest.raises(UserError, match="pairs predictions anchor by anchor"):
                criterion.bind(*networks, tuple(taps))
