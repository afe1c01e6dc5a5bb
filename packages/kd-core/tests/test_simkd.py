import copy

import pytest
import torch
from kd_core.config.build import build
from kd_core.criteria.simkd import Projector, SimKD, SimKDNetwork
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.networks.task import Task
from kd_core.testing import fill, signals
from torch import nn

# Last map [C, H, W] of student and teacher on 32-pixel images, and the projector's parameters.
PAIRS = {
    "resnet32x4_resnet8x4": ((256, 8, 8), (256, 8, 8), 214_016),
    "wrn_40_2_wrn_40_1": ((64, 8, 8), (128, 8, 8), 49_664),
    "vgg13_vgg8": ((512, 4, 4), (512, 4, 4), 854_016),
    "ResNet50_MobileNetV2": ((1280, 2, 2), (2048, 4, 4), 12_853_248),
}


@pytest.mark.parametrize(("student", "teacher", "count"), PAIRS.values(), ids=PAIRS)
def test_projector_has_as_many_parameters_as_its_formula(student, teacher, count):
    criterion = SimKD((student,), (teacher,), 100)
    (inputs, *_), (outputs, *_) = student, teacher
    half = outputs // 2
    convolutions = inputs * half + 9 * half * half + half * outputs
    assert sum(p.numel() for p in criterion.parameters()) == count
    assert count == convolutions + 2 * (half + half + outputs)


def test_equals_the_value_of_the_authors_code(golden):
    criterion = SimKD(((6, 8, 8),), ((12, 8, 8),), 10)
    fill(criterion)
    maps = signals((4, 6, 8, 8), 0.7, 0.3)
    loss = criterion((maps,), (signals((4, 12, 8, 8), 0.7, 0.6),), {})
    golden(loss.detach(), 1.0413284788431947)

    head = nn.Linear(12, 10)
    fill(head)
    logits = SimKDNetwork(nn.Identity(), "output", criterion.projector, head)(maps)
    references = (
        0.1770247447096995,
        0.19593830343894364,
        0.021835876945717758,
        0.2948167670262939,
    )
    for value, reference in zip(logits[0].detach(), references, strict=False):
        golden(value, reference)


def test_equals_the_mean_square_written_as_a_loop():
    criterion = SimKD(((3, 2, 2),), ((4, 2, 2),), 10)
    student, teacher = torch.randn(2, 3, 2, 2), torch.randn(2, 4, 2, 2)
    projected = criterion.projector(student).flatten().tolist()
    pairs = list(zip(projected, teacher.flatten().tolist(), strict=True))
    expected = sum((s - t) ** 2 for s, t in pairs) / len(pairs)
    assert criterion((student,), (teacher,), {}).item() == pytest.approx(expected, rel=1e-5)


def test_projected_maps_are_of_the_teachers_channels_and_never_negative():
    projected = Projector(3, 8, factor=4)(torch.randn(2, 3, 5, 5))
    assert projected.shape == (2, 8, 5, 5)
    assert (projected >= 0).all()
    assert all(layer.bias is None for layer in Projector(3, 8) if isinstance(layer, nn.Conv2d))


def test_gradient_is_that_of_finite_differences():
    criterion = SimKD(((3, 2, 2),), ((4, 2, 2),), 10).double()
    student = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    teacher = (torch.randn(2, 4, 2, 2, dtype=torch.float64),)
    assert torch.autograd.gradcheck(lambda maps: criterion((maps,), teacher, {}), student)


class Network(nn.Module):
    """A ReLU in place follows the last map, as in many networks."""

    def __init__(self, width, stride=1):
        super().__init__()
        self.last = nn.Conv2d(3, width, 3, stride=stride, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(width, 10)

    def forward(self, image):
        return self.head(self.dropout(self.relu(self.last(image)).mean((2, 3))))


class Small(Task):
    def forward(self, batch):
        logits = self.network(batch["image"])
        if self.training:
            return {"ce": nn.functional.cross_entropy(logits, batch["label"])}
        return logits


def distilled(student_stride=1, teacher_stride=1):
    torch.manual_seed(0)
    student, teacher = Network(6, student_stride), Network(8, teacher_stride)
    shapes = tuple(
        ((network.last.out_channels, 8 // stride, 8 // stride),)
        for network, stride in ((student, student_stride), (teacher, teacher_stride))
    )
    term = Term(SimKD(*shapes, 10), student="last", teacher="last")
    batch = {"image": torch.randn(4, 3, 8, 8), "label": torch.tensor([1, 2, 3, 4])}
    distiller = Distiller(
        Small(student), Small(teacher), {"simkd": term}, task_weight=0.0, sample=batch
    )
    return distiller, batch


@pytest.mark.parametrize("strides", [(1, 1), (1, 2), (2, 1)])
def test_what_is_deployed_computes_what_was_trained(strides):
    distiller, batch = distilled(*strides)
    distiller(batch)["simkd"].backward()  # moves BatchNorm's statistics too
    network = distiller.eval().deploy()
    criterion, teacher = distiller.criteria["simkd"], distiller.teachers["teacher"].network
    maps = [net.last(batch["image"]) for net in (network.network, teacher)]
    side = 8 // max(strides)
    student, shown = (nn.functional.adaptive_avg_pool2d(m, side) for m in maps)
    projected = criterion.projector(student)
    torch.testing.assert_close(
        criterion((maps[0],), (maps[1],), {}), (projected - shown).square().mean()
    )
    logits = teacher.head(projected.mean((2, 3)))
    torch.testing.assert_close(network(batch["image"]), logits)
    torch.testing.assert_close(distiller(batch), logits)


def test_the_deployed_network_shares_all_its_parts_and_draws_no_random_number():
    distiller, _ = distilled()
    state = torch.get_rng_state()
    network = distiller.deploy()
    assert torch.equal(torch.get_rng_state(), state)
    assert network.network is distiller.student.network
    assert network.projector is distiller.criteria["simkd"].projector
    assert network.head is distiller.teachers["teacher"].network.head


def test_another_copy_of_the_student_can_be_deployed():
    distiller, batch = distilled()
    average = copy.deepcopy(distiller.student.network)
    average.last.weight.data.zero_()
    logits = [distiller.eval().deploy(net)(batch["image"]) for net in (None, average)]
    assert not torch.allclose(*logits)


def test_the_teachers_head_is_saved_with_the_deployed_network_only():
    distiller, _ = distilled()
    assert not [name for name in distiller.state_dict() if "head" in name and "student" not in name]
    names = set(distiller.deploy().state_dict())
    assert {"head.weight", "head.bias", "network.last.weight", "projector.0.weight"} <= names


@pytest.mark.parametrize("strides", [(1, 1), (1, 2)])
def test_the_deployed_network_is_rebuilt_from_its_config_node(strides):
    distiller, batch = distilled(*strides)
    node = distiller.deploy_node({"type": Network, "width": 6, "stride": strides[0]})
    rebuilt = build(node, num_classes=10)
    rebuilt.load_state_dict(distiller.deploy().state_dict())
    logits = distiller.eval().deploy()(batch["image"])
    torch.testing.assert_close(rebuilt.eval()(batch["image"]), logits)


def test_a_head_without_bias_is_rebuilt_without():
    criterion = SimKD(((6, 8, 8),), ((8, 8, 8),), 10)
    criterion.bind(Network(6), nn.Sequential(nn.Linear(8, 10, bias=False)), (["last"], ["0"]))
    assert build(criterion.deploy_node({"type": Network, "width": 6})).head.bias is None


def test_the_students_own_classifier_and_the_teachers_are_not_trained():
    distiller, batch = distilled()
    distiller(batch)["simkd"].backward()
    assert distiller.student.network.head.weight.grad is None
    assert distiller.student.network.last.weight.grad.any()
    assert distiller.teachers["teacher"].network.head.weight.grad is None


def test_a_teacher_without_such_a_classifier_is_refused():
    criterion = SimKD(((6, 8, 8),), ((8, 8, 8),), 10)
    with pytest.raises(UserError, match="Network has no linear layer from the map's 8 channels"):
        criterion.bind(Network(6), Network(9), (["last"], ["last"]))


def test_several_maps_are_refused():
    shapes = ((6, 8, 8), (6, 4, 4))
    with pytest.raises(UserError, match="SimKD takes one map of each network"):
        SimKD(shapes, shapes, 10)


def test_a_factor_that_leaves_no_channel_is_refused():
    with pytest.raises(UserError, match="factor 16 leaves nothing of 8 channels"):
        SimKD(((6, 8, 8),), ((8, 8, 8),), 10, factor=16)
