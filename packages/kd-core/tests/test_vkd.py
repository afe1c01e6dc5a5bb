import copy
import math

import pytest
import torch
from kd_core.criteria.vkd import VkD, vkd
from kd_core.errors import UserError
from kd_core.testing.golden_inputs import normal, orthogonal, value_and_gradients

STUDENT, TEACHER = normal("vkd.s", 5, 4), normal("vkd.t", 5, 4, scale=3)


@pytest.mark.parametrize(
    ("normalize", "key", "rows", "value", "norm", "sines"),
    [
        ("layer", "c.vkd0", 5, 1.49560445764, 0.137208891626, -0.0897968072439),
        ("standard", "c.vkd1", 6, 0.805573100336, 0.0470018580171, -0.0195687721015),
    ],
)
def test_equals_the_value_and_gradient_of_the_authors_code(
    normalize, key, rows, value, norm, sines, golden
):
    criterion = VkD(((4,),), ((7,),), normalize=normalize).double()
    criterion.projector.weight = orthogonal(f"{key}.w", 7, 4)
    teacher = normal(f"{key}.t", rows, 7, scale=3)
    found, gradients = value_and_gradients(
        lambda s: criterion(s, teacher, {}), [normal(f"{key}.s", rows, 4, scale=2)]
    )
    for one, reference in zip((found, *gradients[0]), (value, norm, sines), strict=True):
        golden(one, reference)


def normalized(values, eps, correction):
    mean = sum(values) / len(values)
    variance = sum((x - mean) ** 2 for x in values) / (len(values) - correction)
    return [(x - mean) / math.sqrt(variance + eps) for x in values]


@pytest.mark.parametrize("normalize", ["layer", "standard"])
def test_equals_the_equation_written_as_a_loop(normalize):
    student, teacher = STUDENT.tolist(), TEACHER.tolist()
    if normalize == "layer":
        teacher = [normalized(row, 1e-5, 0) for row in teacher]
    else:
        student, teacher = (
            list(zip(*(normalized(c, 0, 1) for c in zip(*rows, strict=True)), strict=True))
            for rows in (student, teacher)
        )
    expected = 0.0
    for own, shown in zip(student, teacher, strict=True):
        for s, t in zip(own, shown, strict=True):
            d = abs(s - t)
            expected += (d * d / 2 if d < 1 else d - 0.5) / 20
    value = vkd(STUDENT, TEACHER, normalize=normalize)
    assert value.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("normalize", ["layer", "standard"])
def test_gradient_is_that_of_finite_differences(normalize):
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: vkd(s, TEACHER, normalize=normalize), student)


def off(weight):
    """Return how far the shorter sides of a matrix are from orthonormal."""
    tall = weight if weight.shape[0] >= weight.shape[1] else weight.mT
    return (tall.mT @ tall - torch.eye(tall.shape[1])).abs().max().item()


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 7), (7, 4), (5, 5), (1, 1)])
def test_the_projector_stays_orthogonal_while_it_is_trained(inputs, outputs):
    torch.manual_seed(0)
    criterion = VkD(((inputs,),), ((outputs,),))
    first = criterion.projector.weight.detach().clone()
    optimizer = torch.optim.SGD(criterion.parameters(), 1.0, momentum=0.9, weight_decay=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        criterion(torch.randn(8, inputs), torch.randn(8, outputs), {}).backward()
        optimizer.step()
    weight = criterion.projector.weight
    assert weight.shape == (outputs, inputs)
    assert off(first) < 1e-6
    assert off(weight) < 1e-6
    assert inputs == 1 or not torch.allclose(weight, first, atol=1e-2)


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 7), (7, 4), (5, 5)])
def test_an_orthogonal_matrix_can_be_assigned_and_is_copied_and_saved(inputs, outputs):
    criterion, other = (VkD(((inputs,),), ((outputs,),)).double() for _ in range(2))
    matrix = orthogonal("vkd.w", outputs, inputs)
    criterion.projector.weight = matrix
    torch.testing.assert_close(criterion.projector.weight.detach(), matrix, rtol=0, atol=1e-14)
    criterion.projector.parametrizations.weight.original.data.mul_(2)  # which has no effect
    assert torch.equal(matrix, orthogonal("vkd.w", outputs, inputs))
    other.load_state_dict(criterion.state_dict())
    for one in (other, copy.deepcopy(criterion)):
        assert torch.equal(one.projector.weight, criterion.projector.weight)


@pytest.mark.parametrize("matrix", [torch.ones(7, 4), torch.full((7, 4), torch.nan)])
def test_another_matrix_is_refused(matrix):
    with pytest.raises(UserError, match="needs orthonormal columns"):
        VkD(((4,),), ((7,),)).projector.weight = matrix


def test_training_resumes_exactly():
    def steps(criterion, optimizer, numbers):
        for number in numbers:
            optimizer.zero_grad()
            criterion(normal(f"s{number}", 6, 4), normal(f"t{number}", 6, 7), {}).backward()
            optimizer.step()

    def made(seed):
        torch.manual_seed(seed)
        criterion = VkD(((4,),), ((7,),)).double()
        return criterion, torch.optim.AdamW(criterion.parameters(), 0.1)

    whole, first, second = made(0), made(0), made(1)
    steps(*whole, range(6))
    steps(*first, range(3))
    for kept, one in zip(first, second, strict=True):
        one.load_state_dict(copy.deepcopy(kept.state_dict()))
    steps(*second, range(3, 6))
    assert torch.equal(second[0].projector.weight, whole[0].projector.weight)


def test_the_projection_is_in_float32_under_autocast():
    criterion, student, teacher = VkD(((4,),), ((7,),)), STUDENT.float(), torch.randn(5, 7)
    wanted, pair = criterion(student, teacher, {}), criterion.compared(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(criterion(student, teacher, {}), wanted)
        assert torch.equal(criterion.compared(student, teacher)[0][0], pair[0][0])
        weight = criterion.projector.weight
        VkD(((64,),), ((96,),))  # its first matrix is checked in float32 too
    assert off(weight) < 1e-6


def test_what_is_compared_is_what_the_loss_compares():
    for normalize in ("layer", "standard"):
        criterion = VkD(((4,),), ((4,),), normalize=normalize).double()
        ((prediction, target),) = criterion.compared(STUDENT, TEACHER)
        loss = torch.nn.functional.smooth_l1_loss(prediction, target)
        torch.testing.assert_close(loss, criterion(STUDENT, TEACHER, {}))
    assert criterion.compared(STUDENT[:1], TEACHER[:1]) == ()


def test_a_batch_of_one_has_no_deviation():
    with pytest.raises(UserError, match=r"this batch has one image; take .*normalize=\"layer\""):
        vkd(STUDENT[:1], TEACHER[:1], normalize="standard")
    assert vkd(STUDENT[:0], TEACHER[:0], normalize="standard") == 0


def test_a_channel_that_is_constant_in_the_batch_is_finite():
    student, teacher = STUDENT.clone(), TEACHER.clone()
    student[:, 0], teacher[:, 1] = 2, 3
    student.requires_grad_()
    loss = vkd(student, teacher, normalize="standard")
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_vectors_of_other_widths_are_not_broadcast():
    with pytest.raises(UserError, match="needs the same shape"):
        vkd(STUDENT, TEACHER[:, :1])
