"""StopSignal: signals wait for the end of a step, unless the user insists."""

import signal
import threading

import pytest
from kd_core.runtime import distributed
from kd_core.runtime.signals import Interrupted, StopSignal


@pytest.fixture(autouse=True)
def _handlers_are_as_before():
    # Python's own, which a test run in the background would not have.
    outside = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    signal.signal(signal.SIGINT, outside)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_does_not_stop_the_step(number):
    with StopSignal() as stop:
        assert not stop.received
        signal.raise_signal(number)
        assert stop.received
        assert stop.signum == number


def test_the_second_signal_acts_at_once():
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.received
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_of_several_processes_none_dies_when_torchrun_repeats_the_signal(monkeypatch):
    monkeypatch.setattr(distributed, "is_distributed", lambda: True)
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.received


def test_handlers_come_back_after_an_error():
    with pytest.raises(ValueError, match="in the step"), StopSignal():
        raise ValueError("in the step")


def test_without_a_signal_nothing_is_received_and_in_another_thread_nothing_breaks():
    received = []

    def use():
        with StopSignal() as stop:
            received.append(stop.received)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert received == [False]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (None, 143)]
)
def test_leaving_says_how_to_resume_and_exits_with_128_plus_the_signal(
    tmp_path, capsys, number, status
):
    with StopSignal() as stop:
        if number:  # None: only another process received one
            signal.raise_signal(number)
        with pytest.raises(Interrupted) as exit_:
            stop.leave(tmp_path)
    assert exit_.value.code == status
    assert exit_.value.work_dir == tmp_path
    assert isinstance(exit_.value, SystemExit)
    said = capsys.readouterr().err
    assert str(tmp_path) in said
    assert "--resume" in said
