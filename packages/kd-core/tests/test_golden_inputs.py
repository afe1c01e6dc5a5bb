import math

import pytest
import torch
from kd_core.errors import UserError
from kd_core.testing.golden_inputs import (
    coins,
    fill_with_sines,
    integers,
    normal,
    orthogonal,
    probe,
    uniform,
    value_and_gradients,
)


def test_a_key_gives_the_same_numbers_again_and_another_key_others():
    for draw in (normal, uniform):
        assert torch.equal(draw("a", 2, 3), draw("a", 2, 3))
        assert not torch.equal(draw("a", 2, 3), draw("b", 2, 3))
    assert set(coins("a", 50, share=0.5).tolist()) == {0.0, 1.0}
    assert integers("a", 50, high=3).unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize("size", [(7, 4), (4, 7)])
def test_the_shorter_sides_of_an_orthogonal_matrix_are_orthonormal(size):
    matrix = orthogonal("a", *size)
    assert matrix.shape == size
    short = matrix.T @ matrix if size[0] > size[1] else matrix @ matrix.T
    torch.testing.assert_close(short, torch.eye(4, dtype=torch.float64))


def test_a_probe_sees_every_place():
    assert probe(torch.tensor([1.0, 2.0])) != probe(torch.tensor([2.0, 1.0]))


def test_parameters_are_sines_and_norms_do_nothing():
    filled = fill_with_sines(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)))
    assert filled[0].bias.tolist() == [
        0.05 * math.sin(1),
        0.05 * math.sin(2),
    ]  # not rounded to float32
    assert filled[1].weight.tolist() == [1.0, 1.0]
    assert filled[1].bias.tolist() == [0.0, 0.0]


def test_a_tensor_without_a_gradient_is_named():
    with pytest.raises(UserError, match="tensor 1"):
        value_and_gradients(lambda a, b: a.sum(), [torch.ones(2), torch.ones(2)])
