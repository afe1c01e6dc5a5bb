"""Latencies are measured in turns, within a time, by a number of threads."""

import time

import pytest
import torch
from kd_core.networks import latency
from kd_core.networks.latency import Plan, Timed, measure


class Clock:
    """A clock that only networks move, by `seconds` for each image."""

    def __init__(self, monkeypatch):
        self.now, self.calls = 0.0, []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def network(self, name, seconds):
        def run(images):
            self.calls.append((name, tuple(images.shape)))
            self.now += seconds * len(images)

        return Timed(run, (3, 2, 2))


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_networks_take_turns_in_changing_order(clock):
    timed = {"a": clock.network("a", 0.001), "b": clock.network("b", 0.002)}
    found = measure(timed, Plan(batch_sizes=(2,), repeats=4))
    order = "".join(name for name, _ in clock.calls)
    assert order == "ab" * latency._WARM_UP + "abba" * 2
    assert {shape for _, shape in clock.calls} == {(2, 3, 2, 2)}
    assert found["a"][2] == pytest.approx((2.0, 2.0, 4))
    assert found["b"][2] == pytest.approx((4.0, 4.0, 4))


def test_the_median_and_the_95th_percentile_are_of_the_calls_after_the_warm_up(clock):
    seconds = iter([9.0] * latency._WARM_UP + [number / 1000 for number in range(1, 102)])

    def run(images):
        clock.now += next(seconds)

    plan = Plan(batch_sizes=(1,), repeats=101, seconds=1000)
    (found,) = measure({"a": Timed(run, (3, 2, 2))}, plan)["a"].values()
    assert found == pytest.approx((51.0, 96.0, 101))


def test_slow_networks_are_called_less_often_and_large_batches_left_out(clock, capsys):
    timed = {"a": clock.network("a", 1.0), "b": clock.network("b", 1.0)}
    found = measure(timed, Plan(batch_sizes=(1, 32), repeats=100, seconds=10))
    assert list(found["a"]) == [1]
    assert latency._FEWEST <= found["a"][1].calls < 10
    assert clock.now <= 20
    said = capsys.readouterr().err
    assert "batch 32 is not measured: it would take 256 s or more" in said


def test_each_batch_size_has_its_share_of_the_time(clock):
    found = measure({"a": clock.network("a", 0.1)}, Plan(batch_sizes=(1, 2), seconds=10))
    assert 30 < found["a"][1].calls < 60
    assert 15 < found["a"][2].calls < 30
    assert clock.now < 11


def test_threads_are_set_while_it_is_measured_and_gradients_are_off():
    before, seen = torch.get_num_threads(), set()

    def run(images):
        seen.add((torch.get_num_threads(), torch.is_inference_mode_enabled()))

    measure({"a": Timed(run, (1, 2, 2))}, Plan(repeats=1, threads=before + 1))
    assert seen == {(before + 1, True)}
    assert torch.get_num_threads() == before
    assert Plan().thread_count == before


def test_nothing_to_measure_takes_no_time_and_no_line(capsys):
    assert measure({}, Plan()) == {}
    assert capsys.readouterr().err == ""
