import pytest
import torch
from kd_core.criteria.ab import AB, ab
from kd_core.errors import UserError
from kd_core.testing import signals
from torch import nn

STUDENT = signals((4, 6, 8, 8), 0.7, 0.3), signals((4, 12, 4, 4), 0.7, 0.5)
TEACHER = signals((4, 6, 8, 8), 0.7, 0.8), signals((4, 12, 4, 4), 0.7, 1.0)


def test_equals_the_value_of_the_authors_code(golden):
    weighted = 0.22119657702478274, 0.21856542472561535
    golden(ab(STUDENT[1], TEACHER[1]), weighted[1])
    golden(ab(STUDENT[0], TEACHER[0]) / 2, weighted[0])
    golden(ab(STUDENT, TEACHER), sum(weighted))
    shapes = [tuple(maps.shape[1:]) for maps in STUDENT]
    golden(AB(shapes, shapes)(STUDENT, TEACHER, {}), sum(weighted))


def slow_ab(student, teacher, margin):
    """Levels of plain lists: the two cases of the formula, neuron by neuron."""
    loss = 0.0
    for i, (maps, targets) in enumerate(zip(student, teacher, strict=True)):
        for s, t in zip(maps.flatten().tolist(), targets.flatten().tolist(), strict=True):
            if s > -margin and t <= 0:
                loss += 2 ** (i - len(student) + 1) * (s + margin) ** 2
            if s <= margin and t > 0:
                loss += 2 ** (i - len(student) + 1) * (s - margin) ** 2
    return loss / len(student[0]) * 3 / 1000


@pytest.mark.parametrize("margin", [0.3, 1.0, 2.0])
def test_equals_the_equation_written_as_a_loop(margin):
    student = [maps[:2] for maps in (*STUDENT, signals((4, 3, 2, 2), 1.9, 0.1))]
    teacher = [maps[:2] for maps in (*TEACHER, signals((4, 3, 2, 2), 1.1, 0.1))]
    teacher[2][0, 0] = 0.0  # not active
    expected = slow_ab(student, teacher, margin)
    assert ab(student, teacher, margin=margin).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_that_of_finite_differences():
    student, teacher = (maps[:2, :2, :3, :3] for maps in (STUDENT[0], TEACHER[0]))
    assert torch.autograd.gradcheck(
        lambda maps: ab(maps, teacher, margin=0.5), (2 * student).requires_grad_()
    )


def test_neurons_beyond_the_margin_on_the_teachers_side_cost_nothing():
    teacher = torch.tensor([3.0, -3.0]).view(1, 2, 1, 1)
    assert ab(teacher, teacher) == 0
    assert ab(-teacher, teacher) == pytest.approx(2 * 16 * 3 / 1000)


def test_the_module_takes_the_margin_too():
    shapes = [tuple(maps.shape[1:]) for maps in STUDENT]
    loss = AB(shapes, shapes, margin=0.3)(STUDENT, TEACHER, {})
    torch.testing.assert_close(loss, ab(STUDENT, TEACHER, margin=0.3))


def test_only_the_sign_of_the_teacher_counts():
    torch.testing.assert_close(ab(STUDENT, [100 * maps for maps in TEACHER]), ab(STUDENT, TEACHER))


@pytest.mark.parametrize(
    ("student", "teacher", "layers"),
    [
        ((4, 8, 8), (4, 8, 8), [nn.Identity]),
        ((4, 8, 8), (6, 8, 8), [nn.Conv2d, nn.BatchNorm2d]),
        ((4, 8, 8), (4, 4, 4), [nn.Conv2d, nn.BatchNorm2d]),
        ((4, 4, 4), (6, 8, 8), [nn.ConvTranspose2d, nn.BatchNorm2d]),
    ],
)
def test_a_connector_stands_where_shapes_differ_and_ends_before_the_activation(
    student, teacher, layers
):
    connector = AB([student], [teacher]).connectors[0]
    assert [type(m) for m in connector.modules() if not isinstance(m, nn.Sequential)] == layers
    assert connector(torch.randn(2, *student)).shape == (2, *teacher)


def test_a_map_that_no_connector_fits_is_refused_at_construction():
    with pytest.raises(UserError, match="tap a student map of half that size, or of at least it"):
        AB(((3, 3, 3),), ((5, 4, 4),))


def test_maps_of_different_shapes_are_not_broadcast():
    with pytest.raises(UserError, match="needs the same shape"):
        ab(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 1, 1))


@pytest.mark.parametrize("active", [1.0, -1.0])
def test_a_nan_is_not_hidden_whatever_the_teacher_says(active):
    student = torch.full((1, 1, 1, 1), torch.nan)
    assert ab(student, torch.full_like(student, active)).isnan()
