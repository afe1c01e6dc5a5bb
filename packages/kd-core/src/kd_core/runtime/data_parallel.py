"""What several processes do to one network: average its gradients, share its statistics."""

import inspect
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kd_core.errors import UserError
from kd_core.runtime import distributed


def averaged(module: nn.Module, *, find_unused_parameters: bool) -> nn.Module:
    """Return a module whose gradients are averaged over processes.

    Buffers are averaged where they are read (evaluation, checkpoints): criteria with memory banks
    must not be overwritten by rank 0 in every forward.
    """
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers"  # torch 2.13 renamed it
    kept: dict[str, Any] = {name if name in known else "broadcast_buffers": False}
    return DistributedDataParallel(module, find_unused_parameters=find_unused_parameters, **kept)


def require_synced_batchnorm(asked: bool, device: torch.device) -> None:
    """Reject statistics of BatchNorm over all processes where torch has none.

    Args:
        asked: `trainer.sync_batchnorm`.
        device: Of the run.

    Raises:
        UserError: If they are asked for and there are several processes on CPUs.
    """
    if asked and distributed.is_distributed() and device.type != "cuda":
        raise UserError(
            "trainer.sync_batchnorm cannot be used here: torch's SyncBatchNorm needs GPUs, and "
            f"these {distributed.world_size()} processes are on the CPU; leave it out (every "
            "process then normalises by its own part of the batch), or train in one process"
        )
