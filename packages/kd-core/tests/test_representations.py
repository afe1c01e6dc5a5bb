import math

import pytest
import torch
from kd_core.errors import UserError
from kd_core.representations import FeatureError, effective_rank, measured


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(30, 8), (6, 20), (12, 2, 3)])
def test_effective_rank_is_the_exponential_of_the_entropy_of_singular_values(shape):
    x = normal(*shape) * torch.linspace(0.1, 3, shape[-1], dtype=torch.float64)
    flat = x.flatten(1)
    values = torch.linalg.svdvals(flat - flat.mean(0)).tolist()
    values = values[: min(shape[0] - 1, flat.shape[1])]  # centred rows have one direction less
    shares = [value / sum(values) for value in values]
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    assert effective_rank(x).item() == pytest.approx(expected, rel=1e-7)


def test_effective_rank_counts_equal_directions_whatever_their_scale_and_mean():
    directions = torch.cat([torch.eye(5), -torch.eye(5)])
    shown = torch.cat([directions, torch.zeros(10, 7)], 1)
    assert effective_rank(1e-3 * shown + 1).item() == pytest.approx(5, rel=1e-3)
    assert effective_rank(shown.half()).item() == pytest.approx(5, rel=1e-6)


@pytest.mark.parametrize("features", [torch.full((9, 4), 0.1), torch.zeros(9, 4), torch.ones(1, 3)])
def test_collapsed_features_have_rank_zero(features):
    assert effective_rank(features).item() == 0


def test_one_direction_has_rank_one():
    x = normal(20, 1) @ normal(1, 6, seed=1)
    assert effective_rank(x).item() == pytest.approx(1, abs=1e-4)


def test_cosine_and_relative_error_are_those_of_all_vectors_whatever_the_batches():
    p, t = normal(10, 3, 4), normal(10, 3, 4, seed=1)
    seen = FeatureError()
    for part in (slice(0, 4), slice(4, 5), slice(5, 10)):
        seen.add(p[part].float(), t[part].float())
    rows = list(zip(p.flatten(0, 1), t.flatten(0, 1), strict=True))
    cosines = [(a @ b / a.norm() / b.norm()).item() for a, b in rows]
    found = measured(seen.sums())
    assert found["cosine"] == pytest.approx(sum(cosines) / len(cosines), rel=1e-5)
    assert found["relative_error"] == pytest.approx(((p - t).norm() / t.norm()).item(), rel=1e-5)


def test_sums_of_processes_add_up():
    p, t = normal(8, 4), normal(8, 4, seed=1)
    parts = [FeatureError(), FeatureError(), FeatureError()]
    parts[0].add(p[:3], t[:3])
    parts[1].add(p[3:], t[3:])
    whole = FeatureError()
    whole.add(p, t)
    assert measured(sum(part.sums() for part in parts)) == pytest.approx(measured(whole.sums()))


def test_exact_predictions_have_no_error_and_zeros_a_finite_one():
    exact, zero = FeatureError(), FeatureError()
    exact.add(normal(4, 3), normal(4, 3))
    zero.add(torch.ones(4, 3), torch.zeros(4, 3))
    assert measured(exact.sums()) == pytest.approx({"cosine": 1, "relative_error": 0})
    assert measured(zero.sums()) == pytest.approx({"cosine": 0, "relative_error": 3**0.5})
    assert measured(FeatureError().sums()) == {"cosine": 0, "relative_error": 0}


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UserError, match="same shape"):
        FeatureError().add(torch.ones(4, 3), torch.ones(4, 2))
