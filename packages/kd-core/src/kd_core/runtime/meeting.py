"""Where processes meet: a store that has nothing of an earlier attempt of theirs."""

import os
import time
from datetime import timedelta
from uuid import uuid4

import torch.distributed as dist

_POLL = 0.02


def join(backend: str, timeout: timedelta) -> None:
    """Join the process group that torchrun's variables describe."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True):
        dist.init_process_group(backend, timeout=timeout)
        return
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    agent = dist.TCPStore(address, port, is_master=False, timeout=timeout)
    store = unused_part(agent, rank, size, timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)


def unused_part(store: dist.Store, rank: int, size: int, timeout: timedelta) -> dist.Store:
    """Return a part of a store that these processes alone know.

    torchrun keeps its store when it restarts processes, with the addresses of those that it has
    ended, and gloo in a process that is faster than another connects to them in vain. So each says
    a word of its own, and the first answers it with the name of a new part.

    Args:
        store: Of the launcher.
        rank: Of this process.
        size: Number of processes.
        timeout: For all of them to come.

    Raises:
        RuntimeError: If some do not come.
    """
    if rank:
        word = uuid4().hex
        store.set(f"kd/word/{rank}", word)
        name = store.get(f"kd/answer/{word}").decode()
        store.set(f"kd/here/{name}/{rank}", "")
    else:
        name = uuid4().hex
        _answer_all(store, name, size, timeout)
    return dist.PrefixStore(f"kd/{name}", store)


def _answer_all(store: dist.Store, name: str, size: int, timeout: timedelta) -> None:
    """Give the name to every process until it has it; words may be of an earlier attempt."""
    missing, answered = set(range(1, size)), dict[int, str]()
    deadline = time.monotonic() + timeout.total_seconds()
    while missing:
        for rank in sorted(missing):
            if store.check([f"kd/here/{name}/{rank}"]):
                missing.remove(rank)
            elif store.check([f"kd/word/{rank}"]):
                word = store.get(f"kd/word/{rank}").decode()
                if answered.get(rank) != word:
                    store.set(f"kd/answer/{word}", name)
                    answered[rank] = word
        if missing and time.monotonic() > deadline:
            raise RuntimeError(f"Timed out waiting for rank {min(missing)} of {size}")
        time.sleep(_POLL)
