import copy
import math

import pytest
import torch
from kd_core.criteria.dkd import dkd
from kd_core.criteria.kd import kd
from kd_core.criteria.nkd import nkd
from kd_core.criteria.sdd import SDD, region_logits, sdd
from kd_core.errors import UserError
from kd_core.testing import signals
from torch import nn

STUDENT, TEACHER = signals((4, 10, 5), 0.7, 0.1, 3), signals((4, 10, 5), 1.3, 0.5, 3)
LABEL = torch.tensor([5, 9, 6, 9])
ALONE = {
    "kd": lambda student, teacher, label: kd(student, teacher),
    "dkd": dkd,
    "nkd": lambda *inputs: nkd(*inputs, gamma=8.0, temperature=4.0),
}


@pytest.mark.parametrize(
    ("arguments", "reference"),
    [
        ({}, 32.3660933971),
        ({"base": "kd"}, 4.06407953153),
        ({"base": "nkd"}, 418.402311137),
        ({"base": "nkd", "all_classes": True}, 437.561228247),
    ],
)
def test_equals_the_value_of_the_authors_code(arguments, reference, golden):
    golden(sdd(STUDENT, TEACHER, LABEL, **arguments), reference)


def test_the_teachers_arg_max_is_that_of_the_specification():
    expected = [[5, 0, 9, 4], [0, 9, 8, 0], [0, 9, 2, 0], [9, 6, 0, 9], [9, 0, 9, 9]]
    assert TEACHER.argmax(1).mT.tolist() == expected


@pytest.mark.parametrize("base", ALONE)
def test_equals_a_loop_over_regions_that_counts_those_twice_that_contradict_the_whole(base):
    expected = 0.0
    for n, label in enumerate(LABEL):
        whole = TEACHER[n, :, 0].argmax() == label
        for region in range(5):
            student, teacher = STUDENT[None, n, :, region], TEACHER[None, n, :, region]
            part = teacher.argmax() == label
            expected += (1 if part == whole else 2) * ALONE[base](student, teacher, label[None])
    loss = sdd(STUDENT, TEACHER, LABEL, base=base)
    torch.testing.assert_close(loss, expected / 20)


@pytest.mark.parametrize("base", ALONE)
def test_of_one_region_it_is_the_method_itself(base):
    loss = sdd(STUDENT[:, :, :1], TEACHER[:, :, :1], LABEL, base=base)
    torch.testing.assert_close(loss, ALONE[base](STUDENT[..., 0], TEACHER[..., 0], LABEL))


def test_alpha_and_beta_weight_the_parts_of_dkd():
    target = sdd(STUDENT, TEACHER, LABEL, beta=0.0)
    rest = sdd(STUDENT, TEACHER, LABEL, alpha=0.0, beta=1.0)
    whole = sdd(STUDENT, TEACHER, LABEL, alpha=2.0, beta=3.0)
    torch.testing.assert_close(whole, 2 * target + 3 * rest)


def test_nkds_other_classes_do_not_depend_on_the_target_unless_told_so():
    other = STUDENT.scatter(1, LABEL[:, None, None].expand(-1, -1, 5), 2.0)

    def others(logits, **arguments):  # what is in proportion to beta
        one, two = (
            sdd(logits, TEACHER, LABEL, base="nkd", beta=b, **arguments) for b in (1.0, 2.0)
        )
        return two - one

    torch.testing.assert_close(others(STUDENT), others(other))
    assert (others(STUDENT, all_classes=True) - others(other, all_classes=True)).abs() > 0.1


@pytest.mark.parametrize("arguments", [{}, {"base": "kd"}, {"base": "nkd"}])
def test_gradient_is_that_of_finite_differences(arguments):
    student = STUDENT[:2, :4, :2].clone().requires_grad_()
    teacher, label = TEACHER[:2, :4, :2], torch.tensor([1, 3])
    assert torch.autograd.gradcheck(lambda x: sdd(x, teacher, label, **arguments), student)


@pytest.mark.parametrize("base", ALONE)
def test_a_saturated_student_gives_a_finite_loss_and_gradient(base):
    student = torch.tensor([[[1e3], [0.0], [-1e3]]], requires_grad=True)
    teacher = torch.tensor([[[-1e3], [0.0], [1e3]]])
    loss = sdd(student, teacher, torch.tensor([2]), base=base, temperature=1.0)
    loss.backward()
    assert loss.isfinite()
    assert loss > 0
    assert student.grad.isfinite().all()


def test_a_loss_that_is_not_finite_is_not_made_zero():
    student = STUDENT.clone()
    student[1, 2, 3] = math.inf
    assert not sdd(student, TEACHER, LABEL, base="kd").isfinite()


@pytest.mark.parametrize(
    "maker", [lambda: sdd(STUDENT, TEACHER, LABEL, base="dkf"), lambda: made("dkf")]
)
def test_a_misspelt_base_is_refused(maker):
    with pytest.raises(UserError, match="base is 'dkf'; did you mean 'dkd'"):
        maker()


def test_logits_of_different_shapes_are_not_broadcast():
    with pytest.raises(UserError, match="needs the same shape"):
        sdd(STUDENT, TEACHER[:, :, :1], LABEL)


class Network(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.convolution = nn.Conv2d(3, width, 1)
        self.head = nn.Linear(width, 10)

    def forward(self, image):
        return self.head(self.convolution(image).mean((2, 3)))


def made(base="dkd", **arguments):
    shapes = ((6, 8, 8),), ((9, 8, 8),)
    return SDD(*shapes, 10, base=base, **arguments)


def bound(**arguments):
    torch.manual_seed(0)
    criterion, student, teacher = made(**arguments), Network(6), Network(9).requires_grad_(False)
    criterion.bind(student, teacher, (["convolution"], ["convolution"]))
    return criterion, student, teacher


def test_the_class_feeds_the_regions_of_both_classifiers():
    criterion, student, teacher = bound(base="nkd", beta=2.0, temperature=3.0, scales=(1, 2))
    image, label = torch.randn(4, 3, 8, 8), {"label": LABEL}
    maps = [network.convolution(image) for network in (student, teacher)]
    heads = student.head, teacher.head
    regions = [
        region_logits(m, head.weight, head.bias, scales=(1, 2))
        for m, head in zip(maps, heads, strict=True)
    ]
    expected = sdd(*regions, LABEL, base="nkd", beta=2.0, temperature=3.0)
    torch.testing.assert_close(criterion(maps[:1], maps[1:], label), expected)
    torch.testing.assert_close(regions[0][:, :, 0], student(image))


def test_the_students_classifier_is_trained_but_is_no_part_of_the_criterion():
    criterion, student, teacher = bound()
    image = torch.randn(4, 3, 8, 8)
    maps = [(network.convolution(image),) for network in (student, teacher)]
    criterion(*maps, {"label": LABEL}).backward()
    assert student.head.weight.grad.any()
    assert teacher.head.weight.grad is None
    assert not criterion.state_dict()
    assert not list(criterion.parameters())


def test_equal_networks_have_nothing_to_teach_one_another():
    criterion = SDD(((6, 8, 8),), ((6, 8, 8),), 10)
    network = Network(6)
    criterion.bind(network, copy.deepcopy(network), ([], []))
    maps = (torch.randn(4, 6, 8, 8),)
    assert abs(criterion(maps, maps, {"label": LABEL}).item()) < 1e-6


def test_a_copy_of_network_and_criterion_uses_the_copied_classifier():
    criterion, student, _ = bound()
    pair = copy.deepcopy(nn.ModuleList([student, criterion]))
    assert pair[1].heads[0].module is pair[0].head is not student.head


@pytest.mark.parametrize("scales", [(), (2, 1), (4,), (1, 8)])
def test_scales_that_do_not_begin_with_the_whole_or_are_finer_than_the_cells_are_refused(scales):
    with pytest.raises(UserError, match=r"wanted (1 first, then others up to 4|at least 1 value)"):
        made(scales=scales)


def test_several_maps_are_refused():
    shapes = ((6, 8, 8), (6, 4, 4))
    with pytest.raises(UserError, match=r"SDD takes one map .* tap that one alone \(@map\)"):
        SDD(shapes, shapes, 10)


def test_a_classifier_of_another_size_is_refused():
    with pytest.raises(UserError, match="student: Network has no linear layer from the map's 6"):
        made().bind(Network(7), Network(9), ([], []))
