"""Frozen networks whose blocks are spread over all processes, by torch's fully_shard."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from kd_core.errors import UserError, nearest
from kd_core.networks.parameters import blocks_of
from kd_core.networks.task import network_of
from kd_core.runtime import distributed
from kd_core.runtime.failures import explain, first_line

KEY = "trainer.shard_teachers"


def chosen(wanted: bool | Sequence[str], teachers: Mapping[str, nn.Module]) -> list[str]:
    """Return the names of the teachers that a config asks to shard.

    Args:
        wanted: True for all that have parameters, or names.
        teachers: By name.

    Raises:
        UserError: If there is no such teacher, or only one process.
    """
    if wanted is False:
        return []
    with_parameters = [n for n, t in teachers.items() if any(True for _ in t.parameters())]
    names = with_parameters if wanted is True else list(wanted)
    for name in names:
        if name not in with_parameters:
            missing = "has no parameters" if name in teachers else "is not there"
            near = nearest(name, with_parameters)
            raise UserError(f"{KEY}: teacher {name!r} {missing}{near}")
    if not names:
        raise UserError(f"{KEY}: there is no teacher with parameters; leave it out")
    if not distributed.is_distributed():
        raise UserError(
            f"{KEY} spreads teachers over processes, and there is one; start several, such as "
            "torchrun --nproc-per-node 2, or leave it out"
        )
    return names


def shard(model: nn.Module, where: str, device: torch.device) -> str:
    """Spread the parameters of a frozen model's blocks over all processes, and move it to a device.

    Each process holds its part of every block. A block is whole for the time of its own pass. What
    is outside of blocks stays whole: criteria may read a classifier. The model gives the same
    outputs, bit for bit, and all processes must run it equally often.

    Args:
        model: On the CPU, where it is whole in every process; frozen and changed.
        where: Its place, for messages.
        device: Where it will run.

    Returns:
        A line to print.

    Raises:
        UserError: If it has no blocks, or they cannot be sharded.
    """
    from torch.distributed.device_mesh import init_device_mesh  # slow to import
    from torch.distributed.fsdp import fully_shard

    network = network_of(model)
    blocks = [network.get_submodule(name) for name in blocks_of(network)]
    if not blocks:
        raise UserError(
            f"{where}: {KEY} shards blocks in an nn.Sequential or nn.ModuleList, and "
            f"{type(network).__name__} has none"
        )
    model.eval().requires_grad_(False)
    inside = {parameter for block in blocks for parameter in block.parameters()}
    outside = set(network.parameters()) - inside
    count, total = (sum(p.numel() for p in each) for each in (inside, network.parameters()))
    mesh = init_device_mesh(device.type, (distributed.world_size(),))
    try:
        for block in blocks:
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        fully_shard(network, mesh=mesh, reshard_after_forward=True, ignored_params=outside)
    except (RuntimeError, ValueError, NotImplementedError, AssertionError) as error:
        if known := explain(error):
            raise known from error
        raise UserError(
            f"{where}: {type(network).__name__} cannot be sharded: {first_line(error)}; leave it "
            f"out of {KEY}"
        ) from error
    model.to(device)
    share, processes = 100 * count / total, distributed.world_size()
    spread = f"are spread over {processes} processes"
    return f"{len(blocks)} blocks, {share:.1f} % of the parameters, {spread}"


def is_sharded(model: nn.Module) -> bool:
    """Return whether parameters of a model, or of a part of it, are spread over processes."""
    return any(hasattr(parameter, "full_tensor") for parameter in model.parameters())


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor as it is in one process; all processes must ask for it."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def refuse_parts(modules: Iterable[nn.Module]) -> None:
    """Reject parts of a sharded network that are used outside of its own passes.

    Raises:
        UserError: If one is sharded.
    """
    for module in modules:
        if is_sharded(module):
            raise UserError(
                f"the criterion uses the teacher's {type(module).__name__} itself, which "
                f"{KEY} spreads over processes; leave this teacher out of it"
            )
