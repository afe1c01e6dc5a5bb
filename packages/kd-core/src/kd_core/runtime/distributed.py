"""The few collective operations that the trainer and the criteria need; no-ops in one process."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kd_core.errors import RunError, UserError
from kd_core.runtime import launchers, meeting, ranks
from kd_core.runtime.console import err
from kd_core.runtime.failures import first_line
from kd_core.runtime.processes import this_process

_T = TypeVar("_T")


def is_distributed() -> bool:
    """Return whether a process group of more than one process exists."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Return this process's rank; 0 in one process."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if is_distributed() else 1


def start(device: torch.device) -> torch.device:
    """Join the process group if we are one of several; return the device of this process.

    Raises:
        UserError: If the launcher's variables are wrong, or the others are not reached.
    """
    if launchers.adopt() < 2 or dist.is_initialized():
        return device
    if device.type == "cuda":
        device = torch.device("cuda", _gpu(torch.cuda.device_count()))
        torch.cuda.set_device(device)
    backend, timeout = "nccl" if device.type == "cuda" else "gloo", ranks.timeout()
    try:
        meeting.join(backend, timeout)
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise RunError(
            f"the processes did not meet at {place} ({first_line(error)}); if that is another "
            "host or port than that of the first process, or in use, set MASTER_ADDR and "
            "MASTER_PORT"
        ) from error
    return device


def _gpu(count: int) -> int:
    """Return which of the GPUs that are seen is this process's."""
    local, rank_ = os.environ.get("LOCAL_RANK"), os.environ["RANK"]
    if local is None and count > 1:
        raise UserError(f"RANK is {rank_} and LOCAL_RANK is not set; set it: which GPU is mine?")
    number = int(local or 0)
    if number < count:
        return number
    if count == 1 and launchers.is_bound_to_its_gpu():
        return 0
    raise UserError(
        f"LOCAL_RANK is {number}, and this machine has {count} GPUs; start as many processes on it"
    )


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def joined() -> Iterator[torch.device]:
    """Join the process group if there is one, and leave it at the end; yields the device.

    Only one process reports an error inside; see `ranks.one_reports`.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = start(device)
        if (idle := launchers.idle_tasks()) and not is_distributed():
            err.print(
                f"this process runs alone, and {idle} more tasks of the SLURM job are idle; srun "
                "starts all of them"
            )
        with ranks.one_reports() if is_distributed() else nullcontext():
            yield device
    finally:
        stop()


def print_note(line: str) -> None:
    """Print a line to stderr, in rank 0 alone."""
    if rank() == 0:
        err.print(line)


def wait_for_all() -> None:
    """Wait until all processes are here, so that all can read what one of them wrote."""
    if is_distributed():
        dist.barrier()


def on_rank_0(function: Callable[[], _T]) -> _T:
    """Call a function in rank 0 alone; all processes return what it returns, or raise its error.

    Args:
        function: Must return soon: the others wait, up to the timeout of the process group.
    """
    if not is_distributed():
        return function()
    found: list[Any] = [None, None]
    failed: Exception | None = None
    if rank() == 0:
        try:
            found[0] = function()
        except Exception as error:  # any error: the others must not wait for this rank
            failed, found[1] = error, str(error)
    dist.broadcast_object_list(found)
    if failed is not None:
        raise failed
    if found[1] is not None:
        raise UserError(found[1])
    return found[0]


def gather_objects(value: _T) -> list[_T]:
    """Return the plain values of all processes in rank 0, in rank order; nothing in the others."""
    if not is_distributed():
        return [value]
    found: list[Any] | None = [None] * world_size() if rank() == 0 else None
    dist.gather_object(value, found)
    return found or []


def on_one_machine() -> bool:
    """Return whether all processes are on one machine, whoever started them."""
    return len(set(values_of_all(this_process().machine))) == 1


def values_of_all(value: _T) -> list[_T]:
    """Return the plain values of all processes in all of them, in rank order."""
    if not is_distributed():
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def reduce_sum(value: Tensor) -> Tensor:
    """Add a tensor over all processes."""
    return _reduce(value, dist.ReduceOp.SUM)


def reduce_min(value: Tensor) -> Tensor:
    """Take the smallest of all processes, element by element."""
    return _reduce(value, dist.ReduceOp.MIN)


def any_process(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set in any process."""
    if not is_distributed():
        return flag
    return bool(reduce_sum(torch.tensor(int(flag), device=device)))


def shard(loader: Any) -> Any:
    """Return this process's part of a loader."""
    return loader.shard(rank(), world_size())


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate the rows of all processes in rank order; their numbers may differ."""
    return torch.cat(_rows_by_rank(rows)) if is_distributed() else rows


def gather_with_gradient(rows: Tensor) -> Tensor:
    """Concatenate rows as `gather_rows` does, and let gradients through.

    Each row gets the sum of its gradients in all processes, and all processes must run the
    backward. If each computes the same loss of all rows, that sum is the gradient of one loss times
    the number of processes; DDP's average turns it into the gradient of one process on the joint
    batch.
    """
    return _GatherRows.apply(rows) if is_distributed() else rows


def average_buffers(module: nn.Module) -> None:
    """Average floating buffers (BatchNorm statistics) over processes; DDP does not do it."""
    if is_distributed():
        for buffer in module.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer.div_(world_size())


class _GatherRows(torch.autograd.Function):
    """Gathers rows; the backward sums their gradients."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = _rows_by_rank(rows)
        ctx.counts = [len(part) for part in parts]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return reduce_sum(gradient.contiguous()).split(ctx.counts)[rank()]


def _rows_by_rank(rows: Tensor) -> list[Tensor]:
    """Return the rows of every process."""
    counts = [torch.zeros((), dtype=torch.int64, device=rows.device) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor(len(rows), device=rows.device))
    most = int(max(counts))
    padded = rows.new_zeros((most, *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return [part[: int(count)] for part, count in zip(parts, counts, strict=True)]


def _reduce(value: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
    if not is_distributed():
        return value
    value = value.clone()
    dist.all_reduce(value, operation)
    return value
