import pytest
import torch
from kd_core.criteria.aligners import linear, project_maps
from kd_core.criteria.dense_mse import DenseMSE
from kd_core.testing.golden_inputs import fill_with_sines, normal, value_and_gradients


def test_equals_the_value_and_gradient_of_the_authors_code(golden):
    criterion = fill_with_sines(DenseMSE(((5, 3, 3),), ((6, 4, 4),)))
    teacher = (normal("c.dm0.t", 4, 6, 4, 4),)
    value, [gradient] = value_and_gradients(
        lambda s: criterion((s,), teacher, {}), [normal("c.dm0.s", 4, 5, 3, 3)]
    )
    golden(value, 1.0720721873)
    golden(gradient[0], 0.00640125603067)
    golden(gradient[1], 0.00148975132098)


def test_levels_count_as_if_their_channels_were_joined():
    criterion = DenseMSE(((5, 4, 4), (5, 4, 4)), ((6, 4, 4), (2, 4, 4)))
    map = torch.randn(3, 5, 4, 4)
    teacher = torch.randn(3, 6, 4, 4), torch.randn(3, 2, 4, 4)
    heads = [head(map.movedim(1, -1)).movedim(-1, 1) for head in criterion.heads]
    expected = (torch.cat(heads, 1) - torch.cat(teacher, 1)).square().mean()
    torch.testing.assert_close(criterion((map, map), teacher, {}), expected)


def test_gradient_is_that_of_finite_differences():
    criterion = DenseMSE(((2, 2, 3),), ((3, 3, 2),)).double()
    student = normal("s", 2, 2, 2, 3).requires_grad_()
    teacher = (normal("t", 2, 3, 3, 2),)
    assert torch.autograd.gradcheck(lambda s: criterion((s,), teacher, {}), student)


@pytest.mark.parametrize("widths", [(3, 7), (7, 3)])
@pytest.mark.parametrize("size", [(2, 9), (8, 4), (4, 6)])
def test_whichever_side_is_narrower_is_resized_with_the_same_result(widths, size):
    layer, maps = linear(*widths), torch.randn(2, widths[0], 4, 6)
    projected = layer(maps.movedim(1, -1)).movedim(-1, 1)
    expected = torch.nn.functional.interpolate(projected, size, mode="bilinear")
    torch.testing.assert_close(project_maps(layer, maps, size), expected.movedim(1, -1))


def test_biases_start_at_zero():
    (head,) = DenseMSE(((5, 3, 3),), ((6, 4, 4),)).heads
    assert not head.bias.any()
    assert head.weight.abs().max() < 0.2
