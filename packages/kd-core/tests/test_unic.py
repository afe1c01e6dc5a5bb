"""UNIC: class vectors and tokens of one teacher, and the loss of several teachers."""

import math

import pytest
import torch
from kd_core.criteria.unic import UNIC, drop_teachers, unic
from kd_core.errors import UserError
from kd_core.testing import NoHostReads
from kd_core.testing.golden_inputs import (
    fill_with_sines,
    normal,
    probe,
    uniform,
    value_and_gradients,
)


def compare(golden, loss, student, values, gradients):
    found, of_student = value_and_gradients(loss, student)
    for value, expected in zip(found.reshape(-1), values, strict=True):
        golden(value, expected)
    for pair, expected in zip(of_student, gradients, strict=True):
        for value, reference in zip(pair, expected, strict=True):
            golden(value, reference)


VECTORS = (0.678114586456, 1.14173931861, 0.797419567613, 1.85297046046, 0.935020003107)
TOKENS = (0.945181490856, 1.30548126071, 1.13128927342, 1.1616838241, 1.13126914991)


@pytest.mark.parametrize(
    ("student", "teacher", "values", "gradient"),
    [
        (
            normal("c.unic.v.s", 5, 8, scale=1.5),
            normal("c.unic.v.t", 5, 8, scale=2),
            VECTORS,
            (0.578328666748, 0.632998086881),
        ),
        (
            normal("c.unic.k.s", 5, 9, 8),
            normal("c.unic.k.t", 5, 9, 8, scale=1.7),
            TOKENS,
            (0.238743866742, -0.232942817839),
        ),
    ],
    ids=["vectors", "tokens"],
)
def test_losses_of_images_equal_those_of_the_authors_code(
    student, teacher, values, gradient, golden
):
    compare(golden, lambda s: unic(s, teacher), [student], values, [gradient])


def test_both_heads_equal_the_authors_code(golden):
    student = normal("c.unic.c.cs", 5, 6), normal("c.unic.c.ps", 5, 9, 6)
    teacher = normal("c.unic.c.ct", 5, 8), normal("c.unic.c.pt", 5, 9, 8)
    criterion = fill_with_sines(UNIC(((6,), (9, 6)), ((8,), (9, 8)), hidden=10))
    gradients = (
        (0.00185686079698, 0.00135198414112),
        (0.000573538578553, -0.000462336291932),
    )
    compare(golden, lambda *s: criterion(s, teacher, {}), student, (0.807644794761,), gradients)


def test_dropped_teachers_equal_the_authors_code(golden):
    losses, draws = uniform("c.unic.d.l", 3, 6, scale=2), uniform("c.unic.d.u", 3, 6)
    gradient = 0.267261241912, -0.133102882345
    compare(
        golden, lambda x: drop_teachers(x, draws=draws), [losses], (0.923003450036,), [gradient]
    )


def slow(student, teacher):
    """Return the loss of two rows, written as a loop."""
    product = sum(a * b for a, b in zip(student, teacher, strict=True))
    norms = [math.sqrt(sum(a * a for a in row)) for row in (student, teacher)]
    gaps = [abs(a - b) for a, b in zip(student, teacher, strict=True)]
    smooth = sum(g * g / 2 if g < 1 else g - 0.5 for g in gaps) / len(gaps)
    return 0.9 * (1 - product / norms[0] / norms[1]) + 0.1 * smooth


def test_the_loss_is_the_equation_written_as_a_loop():
    student, teacher = normal("a", 3, 4, 5, scale=2), normal("b", 3, 4, 5)
    found = unic(student, teacher, cosine_weight=0.9, smooth_l1_weight=0.1)
    for image in range(3):
        rows = zip(student[image].tolist(), teacher[image].tolist(), strict=True)
        assert found[image].item() == pytest.approx(sum(slow(*pair) for pair in rows) / 4)


def test_gradient_is_that_of_finite_differences():
    student, teacher = normal("a", 3, 2, 4).requires_grad_(), normal("b", 3, 2, 4)
    assert torch.autograd.gradcheck(lambda s: unic(s, teacher), student)


def test_equal_features_give_nothing_and_zeros_give_finite_gradients():
    features = normal("a", 3, 4).requires_grad_()
    torch.testing.assert_close(unic(features, features.detach().clone()), torch.zeros(3).double())
    nothing = torch.zeros(3, 4, requires_grad=True)
    unic(nothing, torch.zeros(3, 4)).sum().backward()
    assert nothing.grad.isfinite().all()


def test_drop_teachers_is_the_double_loop_over_images_and_teachers():
    losses, draws = uniform("a", 4, 7), uniform("b", 4, 7)
    losses[:, 2] = 0.3  # equal: the first stays
    total = count = 0.0
    for image in range(7):
        values = losses[:, image].tolist()
        for teacher, value in enumerate(values):
            if teacher == values.index(max(values)) or draws[teacher, image] >= 0.6:
                total, count = total + value, count + 1
    found = drop_teachers(losses, probability=0.6, draws=draws)
    assert found.item() == pytest.approx(total / count)


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 2.0), (1.0, 3.0)])
def test_none_or_all_but_the_hardest_teacher_are_dropped(probability, expected):
    losses = torch.tensor([[1.0, 3.0], [3.0, 1.0]], requires_grad=True)
    value = drop_teachers(losses, probability=probability)
    assert value.item() == expected


def test_draws_are_on_the_device_and_nothing_is_read_back():
    losses = torch.rand(3, 5, requires_grad=True)
    with NoHostReads():
        drop_teachers(losses).backward()
    assert losses.grad.isfinite().all()


def test_no_image_gives_zero_and_a_nan_of_any_teacher_is_not_hidden():
    assert drop_teachers(torch.zeros(2, 0, requires_grad=True)).item() == 0
    for place in (0, 1):
        losses = torch.ones(2, 3)
        losses[place, 1] = torch.nan
        assert drop_teachers(losses, draws=torch.zeros(2, 3)).isnan()


@pytest.mark.parametrize(
    ("losses", "draws", "message"),
    [
        (torch.zeros(5), None, r"takes losses \[T, N\], not \[5\]"),
        (torch.zeros(0, 5), None, r"takes losses \[T, N\], not \[0, 5\]"),
        (torch.zeros(2, 5), torch.zeros(5), "needs the same shape"),
    ],
)
def test_losses_that_are_not_of_teachers_and_images_are_refused(losses, draws, message):
    with pytest.raises(UserError, match=message):
        drop_teachers(losses, draws=draws)


def test_tokens_of_another_grid_are_resized_behind_the_head():
    student = normal("a", 2, 6), normal("b", 2, 16, 6)
    teacher = normal("c", 2, 8), normal("d", 2, 9, 8)
    criterion = UNIC(((6,), (16, 6)), ((8,), (9, 8)), hidden=5).double()
    pairs = criterion.compared(student, teacher)
    assert [list(side.shape) for pair in pairs for side in pair] == [
        [2, 8],
        [2, 8],
        *[[2, 9, 8]] * 2,
    ]
    expected = torch.stack([unic(*pair) for pair in pairs]).mean()
    torch.testing.assert_close(criterion(student, teacher, {}), expected)


def test_grids_that_are_not_squares_are_refused_before_training():
    with pytest.raises(UserError, match="10 tokens of the student cannot be laid"):
        UNIC(((6,), (10, 6)), ((8,), (9, 8)))


def test_features_of_other_shapes_are_refused():
    with pytest.raises(UserError, match="needs the same shape"):
        unic(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(UserError, match=r"unic compares \[N, D\] or \[N, L, D\], not \[2\]"):
        unic(torch.zeros(2), torch.zeros(2))


def test_heads_start_as_the_authors_do():
    torch.manual_seed(0)
    criterion = UNIC(((60,), (9, 60)), ((8,), (9, 8)), hidden=50)
    first = criterion.heads[0][0]
    assert first.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not first.bias.any()
    assert probe(first.weight) != 0
