"""Processes that are started again meet one another, not what is left of the last attempt."""

import threading
import time
from datetime import timedelta

import pytest
import torch.distributed as dist
from kd_core.runtime.meeting import unused_part

SECONDS = timedelta(seconds=20)


def meet(store, late, size=3):
    """Let threads meet as processes do, one of them late; return what the first told the others."""
    heard = {}

    def come(rank):
        time.sleep(0.2 if rank == late else 0)
        part = unused_part(store, rank, size, SECONDS)
        if rank:
            heard[rank] = part.get("told").decode()
        else:
            part.set("told", str(late))

    threads = [threading.Thread(target=come, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return heard


def test_each_attempt_meets_in_a_part_of_its_own_whoever_is_late():
    store = dist.HashStore()
    for late in (0, 1, 2, 0):
        assert meet(store, late) == {1: str(late), 2: str(late)}


def test_who_does_not_come_is_named():
    store = dist.HashStore()
    with pytest.raises(RuntimeError, match="Timed out waiting for rank 1 of 2"):
        unused_part(store, 0, 2, timedelta(seconds=0.1))
