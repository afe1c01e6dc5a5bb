"""Of several processes, one tells what happened."""

import os
import re
import signal
import socket
import sys
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from kd_core.errors import UserError
from kd_core.experiment.cli import run_main
from kd_core.runtime import distributed, ranks


def die(number):
    if distributed.rank() == 1:
        os.kill(os.getpid(), number)
    for _ in range(100):
        distributed.reduce_sum(torch.ones(1))
        time.sleep(0.02)


def refuse(_):
    raise UserError("no such tap")


def refuse_one(_):
    if distributed.rank() == 1:
        raise UserError("1.jpg: is empty")
    distributed.wait_for_all()


def refuse_late(_):
    if distributed.rank() == 1:
        time.sleep(0.2)
    raise UserError("no such tap")


def start(function, argument, folder, *, agent=True):
    """Run a function in two processes, as torchrun would; return their statuses and lines.

    Without its agent, as with srun, the first process has their store.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = agent and dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    processes = []
    for rank in range(2):
        process = os.fork()
        if not process:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": str(agent), "KD_RANK_TIMEOUT": "3"}
            sys.stderr = (folder / str(rank)).open("w")

            def tool(arguments):
                with distributed.joined():
                    function(argument)

            status = run_main(tool, [])
            sys.stderr.flush()
            os._exit(status)
        processes.append(process)
    ended = _wait(processes)
    del store
    return ended, ["".join((folder / str(rank)).read_text()) for rank in range(2)]


def _wait(processes):
    """Return the exit codes, by rank; a stopped one is killed once the others have ended."""
    ended, started = {}, time.monotonic()
    while len(ended) < 2:
        for rank, process in enumerate(processes):
            if rank not in ended and (found := os.waitpid(process, os.WNOHANG))[0]:
                ended[rank] = os.waitstatus_to_exitcode(found[1])
        if (ended.get(0) is not None and 1 not in ended) or time.monotonic() - started > 40:
            os.kill(processes[1], signal.SIGKILL)
        time.sleep(0.02)
    return ended


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes on one GPU")
class TestTwoProcesses:
    @pytest.mark.parametrize(
        ("number", "how"),
        [(signal.SIGKILL, "died"), (signal.SIGSTOP, r"is stopped \(SIGSTOP\)")],
    )
    def test_a_lost_rank_is_named_in_one_line(self, tmp_path, number, how):
        ended, (first, other) = start(die, number, tmp_path)
        assert ended == {0: 1, 1: -signal.SIGKILL}
        assert other == ""
        (line,) = first.splitlines()

        assert re.match(rf"error: rank 1 of 2 \(process \d+\) {how}, .*--resume", line), line

    def test_what_all_refuse_is_told_once(self, tmp_path):
        ended, lines = start(refuse, None, tmp_path)
        assert ended == {0: 2, 1: 2}
        assert sorted(lines) == ["", "error: no such tap\n"]

    def test_it_is_told_once_too_where_the_first_process_has_the_store(self, tmp_path, capfd):
        ended, lines = start(refuse_late, None, tmp_path, agent=False)
        assert ended == {0: 2, 1: 2}
        assert lines == ["error: no such tap\n", ""]
        assert "TCPStore" not in capfd.readouterr().err  # torch tells of a store that is gone

    def test_what_one_refuses_is_the_cause(self, tmp_path):
        _, lines = start(refuse_one, None, tmp_path)
        assert lines == ["", "error: 1.jpg: is empty\n"]


def test_a_rank_that_is_still_dying_is_waited_for():
    class Store:
        calls, rank = 0, 0

        def gone(self):
            self.calls += 1
            return ["rank 1 of 2 (process 7) died"] if self.calls > 2 else []

    error = RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    assert str(ranks._lost(error, Store())).startswith("rank 1 of 2 (process 7) died, so training")
    assert ranks._lost(ranks.Terminated(), Store()) is None  # all are told to end: nobody is lost


@pytest.mark.parametrize("wrong", ["", "0", "-1", "nan", "soon"])
def test_a_timeout_that_is_none_is_refused(monkeypatch, wrong):
    monkeypatch.setenv("KD_RANK_TIMEOUT", wrong)
    with pytest.raises(UserError, match="KD_RANK_TIMEOUT is"):
        ranks.timeout()


def test_a_timeout_is_in_seconds(monkeypatch):
    monkeypatch.setenv("KD_RANK_TIMEOUT", "1.5")
    assert ranks.timeout() == timedelta(seconds=1.5)
