import copy

import pytest
import torch
from kd_core.criteria.catkd import CATKD, catkd, class_maps
from kd_core.errors import UserError
from kd_core.testing import signals
from torch import nn

STUDENT, TEACHER = signals((4, 6, 8, 8), 0.7, 0.3), signals((4, 6, 8, 8), 0.7, 0.8)


@pytest.mark.parametrize(
    ("arguments", "reference"),
    [({}, 0.034194105433859694), ({"normalize": True}, 0.09628877731708785)],
)
def test_equals_the_value_of_the_authors_code(arguments, reference, golden):
    golden(catkd(STUDENT, TEACHER, **arguments), reference)


def slow_attention(rows, resolution, normalize):
    side = len(rows) // resolution
    cells = []
    for i in range(resolution):
        for j in range(resolution):
            part = [row[j * side : (j + 1) * side] for row in rows[i * side : (i + 1) * side]]
            cells.append(sum(map(sum, part)) / side**2)
    length = sum(cell**2 for cell in cells) ** 0.5 if normalize else 1.0
    return [cell / length for cell in cells]


@pytest.mark.parametrize("normalize", [False, True])
def test_equals_the_equation_written_as_a_loop(normalize):
    expected = 0.0
    for n in range(4):
        for c in range(6):
            student, teacher = (
                slow_attention(maps[n, c].tolist(), 4, normalize) for maps in (STUDENT, TEACHER)
            )
            expected += sum((s - t) ** 2 for s, t in zip(student, teacher, strict=True))
    loss = catkd(STUDENT, TEACHER, resolution=4, normalize=normalize)
    assert loss.item() == pytest.approx(expected / (4 * 6 * 16), rel=1e-12)


@pytest.mark.parametrize("normalize", [False, True])
def test_gradient_is_that_of_finite_differences(normalize):
    student, teacher = STUDENT[:2, :3, :4, :4], TEACHER[:2, :3, :4, :4]
    student = student.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: catkd(x, teacher, normalize=normalize), student)


def test_levels_are_summed_and_may_differ_in_size():
    whole = catkd((STUDENT, STUDENT), (TEACHER, TEACHER[:, :, :4, :4]))
    parts = catkd(STUDENT, TEACHER) + catkd(STUDENT, TEACHER[:, :, :4, :4])
    torch.testing.assert_close(whole, parts)


def test_normalised_maps_may_have_any_scale():
    scaled = catkd(5 * STUDENT, TEACHER / 7, normalize=True)
    torch.testing.assert_close(scaled, catkd(STUDENT, TEACHER, normalize=True))


def test_a_class_that_is_nowhere_seen_gives_a_finite_gradient():
    student = torch.zeros(1, 2, 4, 4, requires_grad=True)
    catkd(student, torch.ones(1, 2, 4, 4), normalize=True).backward()
    assert student.grad.isfinite().all()


def test_different_numbers_of_classes_are_refused():
    with pytest.raises(UserError, match="needs the same shape"):
        catkd(STUDENT, TEACHER[:, :5])


class Network(nn.Module):
    def __init__(self, width, bias=True):
        super().__init__()
        self.convolution = nn.Conv2d(3, width, 1)
        self.head = nn.Linear(width, 10, bias=bias)

    def forward(self, image):
        return self.head(self.convolution(image).mean((2, 3)))


def bound(student_bias=True, **arguments):
    torch.manual_seed(0)
    criterion = CATKD(((6, 8, 8),), ((9, 8, 8),), 10, **arguments)
    student, teacher = Network(6, student_bias), Network(9).requires_grad_(False)
    criterion.bind(student, teacher, (["convolution"], ["convolution"]))
    return criterion, student, teacher


def maps_of(*networks):
    image = torch.randn(4, 3, 8, 8)
    return [(network.convolution(image),) for network in networks]


def test_the_average_of_the_class_maps_is_the_networks_logits():
    network, image = Network(6), torch.randn(4, 3, 8, 8)
    cams = class_maps(network.convolution(image), network.head.weight, network.head.bias)
    torch.testing.assert_close(cams.mean((2, 3)), network(image))


@pytest.mark.parametrize("bias", [True, False])
def test_the_class_compares_the_class_maps_of_the_whole_last_maps(bias):
    criterion, student, teacher = bound(bias=bias, resolution=4, normalize=True)
    student_maps, teacher_maps = maps_of(student, teacher)
    cams = [
        class_maps(maps[0], head.weight, head.bias if bias else None)
        for maps, head in ((student_maps, student.head), (teacher_maps, teacher.head))
    ]
    expected = catkd(*cams, resolution=4, normalize=True)
    torch.testing.assert_close(criterion(student_maps, teacher_maps, {}), expected)


def test_the_students_classifier_is_trained_but_is_no_part_of_the_criterion():
    criterion, student, teacher = bound()
    criterion(*maps_of(student, teacher), {}).backward()
    assert student.head.weight.grad.any()
    assert student.head.bias.grad.any()
    assert teacher.head.weight.grad is None
    assert not criterion.state_dict()


def test_without_biases_the_student_has_none_for_good_and_the_teacher_keeps_its_own():
    criterion, student, teacher = bound(bias=False)
    before = teacher.head.bias.clone()
    criterion(*maps_of(student, teacher), {}).backward()
    assert not student.head.bias.any()
    assert not student.head.bias.requires_grad
    assert torch.equal(teacher.head.bias, before)


def test_a_student_whose_classifier_has_no_bias_is_taken_as_it_is():
    for bias in (True, False):
        criterion, student, teacher = bound(student_bias=False, bias=bias)
        assert criterion(*maps_of(student, teacher), {}) > 0


def test_the_student_is_deployed_as_it_is():
    criterion, student, _ = bound()
    assert criterion.deploy(student) is student


def test_equal_networks_have_nothing_to_teach_one_another():
    criterion, network = CATKD(((6, 8, 8),), ((6, 8, 8),), 10), Network(6)
    criterion.bind(network, copy.deepcopy(network), ([], []))
    (maps,) = maps_of(network)
    assert criterion(maps, maps, {}) == 0


def test_a_copy_of_network_and_criterion_uses_the_copied_classifier():
    criterion, student, _ = bound()
    pair = copy.deepcopy(nn.ModuleList([student, criterion]))
    assert pair[1].heads[0].module is pair[0].head is not student.head


def test_several_maps_are_refused():
    shapes = ((6, 8, 8), (6, 4, 4))
    with pytest.raises(UserError, match="CATKD takes one map of each network"):
        CATKD(shapes, shapes, 10)


def test_a_classifier_of_another_size_is_refused():
    with pytest.raises(UserError, match="teacher: Network has no linear layer from the map's 9"):
        CATKD(((6, 8, 8),), ((9, 8, 8),), 10).bind(Network(6), Network(8), ([], []))
