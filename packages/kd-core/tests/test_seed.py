"""Randomness: seeded generators, saved states, and draws that are functions of counters."""

import random

import numpy as np
import pytest
import torch
from kd_core.runtime.seed import (
    mix,
    random_below,
    random_bits,
    random_uniform,
    rng_state,
    seed_everything,
    set_rng_state,
)

INDEX = torch.arange(100_000)


def numbers():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_a_seed_fixes_all_generators():
    seed_everything(3)
    first = numbers()
    seed_everything(3)
    assert numbers() == first
    seed_everything(4)
    assert all(new != old for new, old in zip(numbers(), first, strict=True))


@pytest.mark.parametrize("seed", [-1, 2**40])
def test_seeds_that_numpy_refuses_work(seed):
    seed_everything(seed)
    first = numbers()
    seed_everything(seed)
    assert numbers() == first


def test_a_saved_state_continues_and_can_be_read_safely(tmp_path):
    torch.save(rng_state(), tmp_path / "rng.pth")
    expected = torch.rand(3)
    set_rng_state(torch.load(tmp_path / "rng.pth", weights_only=True))
    assert torch.equal(torch.rand(3), expected)


def test_draws_are_the_same_on_every_machine():
    # Written down once: caches, resumed runs and published results rest on them.
    assert mix(0, 1) == 1374039259
    assert random_bits(INDEX[:3], 7, 1).tolist() == [234920688, 258583945, 2022640068]


def test_a_draw_depends_on_its_index_alone_not_on_its_neighbours():
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    drawn = random_bits(INDEX[:1000], 5, 2)
    both = random_bits(INDEX[:1000], 5, torch.tensor([[2], [3]]))
    assert torch.equal(both, torch.stack([drawn, random_bits(INDEX[:1000], 5, 3)]))
    assert torch.equal(random_bits(order, 5, 2), drawn[order])
    assert torch.equal(random_bits(order[:1], 5, 2), drawn[order[:1]])


def test_every_counter_changes_the_draws_also_beyond_32_bits():
    counters = [(), (0,), (0, 0), (1,), (0, 1), (1, 0), (2**32,), (-1,), (2**33,)]
    assert len({mix(*each) for each in counters}) == len(counters)
    drawn = {tuple(random_bits(INDEX[:4], *each).tolist()) for each in counters}
    assert len(drawn) == len(counters)


def test_no_generator_is_moved():
    before = torch.get_rng_state()
    random_uniform(INDEX, 1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("counters", [(0,), (1, 2), (2**31, 7)])
def test_numbers_are_uniform_and_neighbours_independent(counters):
    drawn = random_uniform(INDEX, *counters)
    assert drawn.dtype == torch.float32
    assert drawn.min() >= 0
    assert drawn.max() < 1
    shares = torch.histc(drawn, bins=20, min=0, max=1) / len(INDEX)
    assert (shares - 0.05).abs().max() < 0.004  # six standard deviations
    pairs = torch.corrcoef(torch.stack([drawn[:-1], drawn[1:]]))
    assert pairs[0, 1].abs() < 0.02
    other = random_uniform(INDEX, *counters, 1)
    assert torch.corrcoef(torch.stack([drawn, other]))[0, 1].abs() < 0.02


@pytest.mark.parametrize("limit", [1, 2, 7, 162, 5_000])
def test_integers_are_below_their_limit_and_reach_all_of_it(limit):
    drawn = random_below(limit, INDEX, 3)
    assert drawn.dtype == torch.int64
    assert drawn.min() == 0
    assert drawn.max() < limit
    counts = torch.bincount(drawn, minlength=limit).double()
    expected = len(INDEX) / limit
    assert (counts - expected).abs().max() < 7 * expected**0.5


def test_bits_are_31_and_none_for_no_index():
    drawn = random_bits(INDEX, 9)
    assert drawn.min() >= 0
    assert 2**30 < drawn.max() < 2**31
    assert random_bits(INDEX[:0], 9).shape == (0,)
