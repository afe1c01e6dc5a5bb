"""The primitives that methods share."""

import pytest
import torch
from kd_core.errors import UserError
from kd_core.functional import (
    batch_mean,
    full_precision,
    halving_sum,
    kl_divergence,
    levels,
    mse,
    pool_to_match,
    promote,
    require_same_channels,
    spatial_attention,
    tensors,
    z_score,
)


def test_low_precision_is_promoted_inside_containers_and_the_rest_left_alone():
    given = ({"a": torch.zeros(1, dtype=torch.float16)}, [torch.zeros(1, dtype=torch.bfloat16)])
    assert [x.dtype for x in tensors(promote(given))] == [torch.float32, torch.float32]
    for dtype in (torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool):
        x = torch.zeros(1, dtype=dtype)
        assert promote(x) is x
    assert promote("name") == "name"


def test_a_function_in_full_precision_ignores_autocast_and_restores_it():
    product = full_precision(lambda x, y: x @ y)
    x = torch.randn(3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(product(x, y=x), x.double() @ x.double(), check_dtype=False)
        assert (x @ x).dtype == torch.bfloat16
    assert product(x.bfloat16(), x).dtype == torch.float32
    assert product(x.double(), x.double()).dtype == torch.float64


def test_gradients_come_back_in_the_precision_of_the_input():
    x = torch.randn(3, dtype=torch.bfloat16, requires_grad=True)
    full_precision(lambda y: y.square().sum())(x).backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())


def test_batch_mean_sums_all_but_the_batch():
    assert batch_mean(torch.ones(4, 3, 2)) == 6


@pytest.mark.parametrize("mean", [batch_mean, lambda x: mse(x, x), lambda x: kl_divergence(x, x)])
def test_a_mean_over_no_sample_is_zero_and_keeps_its_graph(mean):
    values = torch.zeros(0, 5, requires_grad=True)
    loss = mean(values)
    loss.backward()
    assert loss == 0
    assert values.grad.shape == (0, 5)


@pytest.mark.parametrize("compare", [mse, kl_divergence])
def test_nothing_is_broadcast(compare):
    with pytest.raises(UserError, match=r"student is \[4, 3\], teacher \[1, 3\]"):
        compare(torch.zeros(4, 3), torch.zeros(1, 3))


def test_mse_is_the_mean_over_all_elements():
    student, teacher = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    torch.testing.assert_close(mse(student, teacher), ((student - teacher) ** 2).mean())


def test_divergence_equals_the_sum_written_out():
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.rand(3, 4, generator=generator).softmax(1) for _ in range(2))
    expected = sum(p[n, c] * (p[n, c].log() - q[n, c].log()) for n in range(3) for c in range(4))
    torch.testing.assert_close(kl_divergence(q.log(), p.log()), expected / 3)


def test_levels_are_paired_and_a_single_map_is_one_level():
    a, b, c, d = (torch.zeros(1) for _ in range(4))
    assert [tuple(map(id, pair)) for pair in levels((a, b), [c, d])] == [
        (id(a), id(c)),
        (id(b), id(d)),
    ]
    assert len(levels(a, c)) == len(levels(a, (c,))) == 1


def test_different_numbers_of_levels_are_refused():
    with pytest.raises(UserError, match="student has 1 maps, teacher 2"):
        levels(torch.zeros(1), (torch.zeros(1), torch.zeros(1)))


def test_z_scores_have_mean_zero_and_unbiased_deviation_one():
    logits = 3 * torch.randn(4, 5, dtype=torch.float64) + 2
    scores = z_score(logits)
    torch.testing.assert_close(scores.mean(1), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(
        scores.square().sum(1) / 4, torch.ones(4, dtype=torch.float64), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(z_score(5 * logits - 1), scores, rtol=1e-6, atol=1e-6)


def test_equal_logits_are_standardised_to_zero_with_a_finite_gradient():
    logits = torch.ones(2, 3, requires_grad=True)
    scores = z_score(logits)
    scores[0, 0].backward()
    assert not scores.any()
    assert logits.grad.isfinite().all()


def test_two_classes_are_not_standardised():
    with pytest.raises(UserError, match="standardize=True needs at least 3 classes, there are 2"):
        z_score(torch.zeros(4, 2))


@pytest.mark.parametrize(
    ("student", "teacher", "size"),
    [((8, 8), (4, 4), (4, 4)), ((3, 3), (5, 7), (3, 3)), ((2, 9), (4, 4), (2, 4))],
)
def test_the_larger_map_is_pooled_to_the_smaller_whichever_it_is(student, teacher, size):
    maps = torch.randn(2, 3, *student), torch.randn(2, 5, *teacher)
    for pooled, given in zip(pool_to_match(*maps), maps, strict=True):
        torch.testing.assert_close(pooled, torch.nn.functional.adaptive_avg_pool2d(given, size))


def test_maps_of_one_size_are_left_alone():
    maps = torch.zeros(2, 3, 4, 5), torch.zeros(2, 6, 4, 5)
    assert [a is b for a, b in zip(pool_to_match(*maps), maps, strict=True)] == [True, True]


def test_the_loss_of_the_deepest_level_counts_whole():
    assert halving_sum([torch.tensor(8.0), torch.tensor(2.0), torch.tensor(1.0)]) == 2 + 1 + 1


def test_attention_is_the_mean_power_of_channels_as_a_unit_vector():
    maps = torch.tensor([3.0, -1.0, -4.0, 0.0]).view(1, 2, 1, 2)
    expected = torch.tensor([[7.0, 1.0]]) / 50**0.5
    torch.testing.assert_close(spatial_attention(maps, power=1), expected)
    expected = torch.tensor([[25.0, 1.0]]) / 626**0.5
    torch.testing.assert_close(spatial_attention(maps), expected)


def test_channels_may_be_required_to_agree_at_every_level():
    require_same_channels("X", ((4, 8, 8), (6, 4, 4)), ((4, 2, 2), (6, 1, 1)))
    with pytest.raises(UserError, match=r"X compares .*have \[4, 6\], the teacher's \[4, 8\]"):
        require_same_channels("X", ((4, 8, 8), (6, 4, 4)), ((4, 8, 8), (8, 4, 4)))
