import pytest
import torch
from kd_core.criteria.theia import Theia, theia
from kd_core.errors import UserError
from kd_core.testing.golden_inputs import fill_with_sines, normal, value_and_gradients


def test_equals_the_value_and_gradient_of_the_authors_code(golden):
    teacher = normal("c.theia.t", 5, 9, 8, scale=1.4)
    value, [gradient] = value_and_gradients(
        lambda s: theia(s, teacher), [normal("c.theia.s", 5, 9, 8)]
    )
    golden(value, 1.0750962601)
    golden(gradient[0], 0.0544959436852)
    golden(gradient[1], -0.0260597199142)


def test_with_its_head_it_equals_the_authors_code(golden):
    criterion = fill_with_sines(Theia(((4, 16, 16),), ((5, 16, 16),)))
    teacher = (normal("c.theia.mt", 2, 5, 16, 16),)
    value, [gradient] = value_and_gradients(
        lambda s: criterion((s,), teacher, {}), [normal("c.theia.ms", 2, 4, 16, 16)]
    )
    golden(value, 0.929118157801)
    golden(gradient[0], 0.0199992355874)
    golden(gradient[1], -0.0136902838918)


def test_equals_the_equation_written_as_a_loop():
    student, teacher = normal("s", 3, 4, 2, scale=2), normal("t", 3, 4, 2)
    cosines, distances = [], []
    for s, t in zip(student.flatten(1).tolist(), teacher.flatten(1).tolist(), strict=True):
        dot = sum(a * b for a, b in zip(s, t, strict=True))
        lengths = [sum(a * a for a in side) ** 0.5 for side in (s, t)]
        cosines.append(1 - dot / lengths[0] / lengths[1])
        gaps = [abs(a - b) for a, b in zip(s, t, strict=True)]
        distances += [gap**2 / 2 if gap < 1 else gap - 0.5 for gap in gaps]
    expected = 0.7 * sum(cosines) / 3 + 0.4 * sum(distances) / len(distances)
    found = theia(student, teacher, cosine_weight=0.7, smooth_l1_weight=0.4)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_that_of_finite_differences():
    student, teacher = normal("s", 3, 4, 2).requires_grad_(), normal("t", 3, 4, 2)
    assert torch.autograd.gradcheck(lambda s: theia(s, teacher), student)


def test_another_size_is_brought_to_the_teachers():
    criterion = Theia(((4, 3, 5),), ((6, 7, 2),), hidden_factor=2.0)
    maps = torch.randn(2, 4, 3, 5), torch.randn(2, 6, 7, 2)
    ((own, shown),) = criterion.compared(maps[:1], maps[1:])
    assert own.shape == shown.shape == (2, 7, 2, 6)
    assert criterion.projection.in_features == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((((4, 8, 8), (4, 4, 4)), ((6, 8, 8), (6, 4, 4))), "takes one map of each network"),
        ((((4, 8, 8),), ((6, 8, 8),)), "hidden_factor 0.1 leaves nothing of 4 channels"),
    ],
)
def test_what_it_cannot_do_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Theia(*arguments, hidden_factor=0.1)


def test_images_of_another_size_than_at_first_are_refused():
    criterion = Theia(((4, 8, 8),), ((6, 8, 8),))
    with pytest.raises(UserError, match=r"map is \[4, 4\], but its head was made for \[8, 8\]"):
        criterion((torch.randn(2, 4, 4, 4),), (torch.randn(2, 6, 8, 8),), {})
