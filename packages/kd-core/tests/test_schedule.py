"""Schedules: factors of the initial rate, asked at the middle of each step as the trainer does."""

import math
from itertools import pairwise

import pytest
from kd_core.errors import UserError
from kd_core.training.schedule import constant, cosine, multi_step


def factors(schedule, epochs, steps_per_epoch, wanted):
    """Return the factor of each wanted step of a run."""
    total = epochs * steps_per_epoch
    return [schedule((step + 0.5) / total) for step in wanted]


@pytest.mark.parametrize("steps_per_epoch", [1, 7, 391, 40_037])  # the last makes 9.6 M steps
def test_milestone_150_first_changes_the_151st_epoch(steps_per_epoch):
    schedule = multi_step(epochs=240, milestones=[150, 180, 210])
    for count, milestone in enumerate([150, 180, 210]):
        first = milestone * steps_per_epoch
        before, after = factors(schedule, 240, steps_per_epoch, [first - 1, first])
        assert before == pytest.approx(0.1**count)
        assert after == pytest.approx(0.1 ** (count + 1))


def test_first_and_last_step_have_the_first_and_last_factor():
    schedule = multi_step(epochs=10, milestones=[5], gamma=0.2)
    assert factors(schedule, 10, 3, [0, 29]) == [1.0, 0.2]


def test_milestones_at_and_past_the_end_are_never_reached():
    schedule = multi_step(epochs=6, milestones=[4, 6, 100])
    assert factors(schedule, 6, 2, range(12)) == pytest.approx([1.0] * 8 + [0.1] * 4)
    assert factors(multi_step(epochs=3, milestones=[9]), 3, 1, range(3)) == [1.0] * 3
    assert factors(multi_step(epochs=1, milestones=[]), 1, 2, range(2)) == [1.0] * 2


@pytest.mark.parametrize("milestones", [[3, 2], [2, 2], [0, 2], [-1]])
def test_milestones_that_do_not_rise_from_above_0_are_refused(milestones):
    with pytest.raises(UserError, match=r"must rise|a number greater than 0"):
        multi_step(epochs=5, milestones=milestones)


def test_cosine_falls_from_1_to_its_end():
    values = factors(cosine(epochs=4, end=0.1), 4, 25, range(100))
    expected = [0.1 + 0.45 * (1 + math.cos(math.pi * (step + 0.5) / 100)) for step in range(100)]
    assert values == pytest.approx(expected)
    assert values[0] == pytest.approx(1, abs=1e-3)
    assert values[-1] == pytest.approx(0.1, abs=1e-3)


def test_warmup_grows_linearly_and_then_the_schedule_is_where_it_would_be():
    plain, warm = cosine(epochs=10), cosine(epochs=10, warmup_epochs=2, warmup_start=0.1)
    grown = factors(warm, 10, 10, range(20))
    steps = [later - earlier for earlier, later in pairwise(grown)]
    assert grown[0] == pytest.approx(0.1, abs=0.03)
    assert grown[-1] == pytest.approx(plain(0.2), abs=0.03)
    assert steps == pytest.approx([steps[0]] * 19)
    assert factors(warm, 10, 10, range(20, 100)) == factors(plain, 10, 10, range(20, 100))


def test_constant_stays_at_1_after_its_warmup():
    assert factors(constant(epochs=3), 3, 5, range(15)) == [1.0] * 15
    warm = factors(constant(epochs=3, warmup_epochs=0.4), 3, 5, range(15))
    assert warm[0] < warm[1] < 1.0
    assert warm[2:] == [1.0] * 13


def test_milestones_fall_as_exactly_after_a_warmup():
    schedule = multi_step(epochs=240, milestones=[150], warmup_epochs=20)
    assert factors(schedule, 240, 391, [150 * 391 - 1, 150 * 391]) == pytest.approx([1.0, 0.1])


@pytest.mark.parametrize("warmup", [-1, 5, 9])
def test_a_warmup_longer_than_the_run_is_refused(warmup):
    with pytest.raises(UserError, match=r"of 5 epochs|wanted a number of at least 0"):
        constant(epochs=5, warmup_epochs=warmup)
