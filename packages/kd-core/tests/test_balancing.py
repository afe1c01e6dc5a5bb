"""Features of several teachers on one scale."""

import pytest
import torch
from kd_core.criteria import balancing
from kd_core.criteria.balancing import RunningStandardizer, hadamard, phi_s
from kd_core.errors import UserError
from kd_core.testing import NoHostReads
from kd_core.testing.golden_inputs import normal, probe


def test_running_statistics_equal_those_of_the_authors_code(golden):
    module = RunningStandardizer(5).double()
    values = 7.48748007491, 4.24441810506, 12.0145015652
    for number, (momentum, expected) in enumerate(zip((1.0, 0.5, 0.25), values, strict=True)):
        features = normal(f"c.run.{number}", 5, 5, scale=number + 2)
        golden(probe(module(features, momentum)), expected)


@pytest.mark.parametrize(
    ("key", "shape", "scale", "expected"),
    [
        (
            "c.phis.a",
            (40, 8),
            1.3,
            (1.30831058008, -0.242623292581, 0.431184563838, -9.23496128289),
        ),
        (
            "c.phis.b",
            (50, 12),
            0.7,
            (0.673003213781, 0.249303208075, -10.2943895457, 21.2644925191),
        ),
    ],
)
def test_phi_s_equals_the_authors_code_but_for_signs(key, shape, scale, expected, golden):
    features = normal(key, *shape, scale=scale)
    mean, matrix = phi_s(features)
    balanced = (features - mean) @ matrix.T
    found = 1 / matrix[0].norm(), probe(mean), probe(matrix), probe(balanced)
    for value, reference in zip(found, expected, strict=True):
        golden(value, reference)
    variances = balanced.var(0)
    golden(variances.max(), 1.0)
    golden(variances.min(), 1.0)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (4, (0.00961726161491, 10, 0.415048030675)),
        (12, (2.48326010777, 78, 0.309497278496)),
        (24, (16.245646236, 300, 0.805938940371)),
        (36, (-1.16416038409, 664, -0.146491309474)),
    ],
)
def test_hadamard_matrices_equal_those_of_the_authors_code(size, expected, golden):
    matrix = hadamard(size)
    for value, reference in zip(
        (probe(matrix), (matrix > 0).sum(), probe(matrix[1])), expected, strict=True
    ):
        golden(value, reference)


@pytest.mark.parametrize("size", [1, 2, 20, 28, 44, 60, 84, 192, 768, 1024, 1152, 1280])
def test_hadamard_matrices_are_orthogonal_and_of_one_size_of_entry(size):
    matrix = hadamard(size)
    identity = torch.eye(size, dtype=torch.float64)
    torch.testing.assert_close(matrix @ matrix.T, identity, rtol=0, atol=1e-12)
    torch.testing.assert_close(matrix.abs(), torch.full_like(matrix, size**-0.5))


@pytest.mark.parametrize("size", [3, 6, 52, 92])
def test_a_size_without_a_construction_gets_the_same_random_rotation_and_says_so_once(
    size, capsys, monkeypatch
):
    monkeypatch.setattr(balancing, "_noted", set())
    torch.manual_seed(0)
    first = hadamard(size)
    torch.manual_seed(1)
    assert torch.equal(first, hadamard(size))
    identity = torch.eye(size, dtype=torch.float64)
    torch.testing.assert_close(first @ first.T, identity, rtol=0, atol=1e-12)
    said = capsys.readouterr().err
    assert said.count(f"no Hadamard matrix of size {size}") == 1


def test_phi_s_turns_and_scales_only():
    features = normal("a", 60, 12) @ normal("b", 12, 12)
    mean, matrix = phi_s(features)
    factor = 1 / matrix[0].norm()
    turned = factor * matrix
    torch.testing.assert_close(turned @ turned.T, torch.eye(12, dtype=torch.float64))
    balanced = (features - mean) @ matrix.T
    torch.testing.assert_close(balanced.var(0), torch.ones(12, dtype=torch.float64))
    ratios = torch.pdist(features) / torch.pdist(balanced)
    torch.testing.assert_close(ratios, factor.expand_as(ratios))
    torch.testing.assert_close(factor**2 * balanced @ matrix + mean, features)


def test_phi_s_of_fewer_rows_than_channels_is_finite_and_balanced():
    features = normal("a", 5, 8)
    mean, matrix = phi_s(features)
    balanced = (features - mean) @ matrix.T
    torch.testing.assert_close(balanced.var(0), torch.ones(8, dtype=torch.float64))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(9, 4), "the same for all images"),
        (torch.full((9, 4), torch.nan), "not finite"),
        (torch.zeros(1, 4), r"two images at least, not \[1, 4\]"),
        (torch.zeros(2, 3, 4), r"\[2, 3, 4\]"),
    ],
)
def test_features_without_variance_are_refused(features, message):
    with pytest.raises(UserError, match=message):
        phi_s(features)


def test_no_matrix_of_no_size():
    with pytest.raises(UserError, match="at least 1, got 0"):
        hadamard(0)


def test_the_first_batch_is_raw_and_sets_the_statistics_of_tokens_too():
    module, tokens = RunningStandardizer(3).double(), normal("a", 4, 5, 3, scale=7)
    torch.testing.assert_close(module(tokens, 1.0), tokens, rtol=2e-6, atol=0)
    again = module.balanced(tokens).flatten(0, 1)
    torch.testing.assert_close(again.mean(0), torch.zeros(3).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(again.std(0), torch.ones(3).double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("count", "momentum"), [(0, 1.0), (1, 1.0), (4, 0.0)])
def test_too_few_features_and_no_momentum_leave_the_statistics(count, momentum):
    module = RunningStandardizer(3)
    module(torch.full((count, 3), 9.0), momentum)
    assert module.mean.tolist() == [0, 0, 0]
    assert module.std.tolist() == [1, 1, 1]


def test_statistics_move_in_place_without_a_host_read():
    module = RunningStandardizer(3)
    place = module.mean.data_ptr()
    with NoHostReads():
        module(torch.randn(4, 3), torch.tensor(0.5))
    assert module.mean.data_ptr() == place
    assert module.mean.any()
