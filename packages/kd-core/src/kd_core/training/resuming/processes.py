"""What differs between the processes of a run, in its checkpoints.

All have the same weights. Each has its own random numbers and, inside an epoch, its own sums of
losses and statistics of BatchNorm; some criteria have a queue of their own in each. A checkpoint
holds the state of the first process, and beside it what the others have instead.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kd_core.files.fingerprint import fingerprint
from kd_core.runtime import distributed
from kd_core.runtime.seed import rng_state, set_rng_state
from kd_core.training.hooks import TrainerLike

State = Mapping[str, Any]

NETWORKS = ("distiller", "average")
"""Parts of a training state whose tensors a process may have another of."""

_STATISTICS = {"distiller": "student.", "average": ""}  # what an epoch's end averages


def gather(trainer: TrainerLike) -> list[dict[str, Any]]:
    """Return what the second process and all after it have; empty in all but the first.

    All processes call it at the same step.
    """
    if not distributed.is_distributed():
        return []
    own = {name: _buffers(trainer, name) for name in NETWORKS}
    marks = {name: {k: fingerprint(v) for k, v in own[name].items()} for name in NETWORKS}
    first = distributed.on_rank_0(lambda: marks)
    different = {
        name: {k: v.cpu() for k, v in own[name].items() if marks[name][k] != first[name][k]}
        for name in NETWORKS
    }
    meter = {key: _on_host(value) for key, value in trainer.meter.state_dict().items()}
    return distributed.gather_objects({"rng": rng_state(), "meter": meter, **different})[1:]


def of_this_process(state: State) -> State:
    """Return a training state as this process continues from it.

    With as many processes as wrote it, each gets its own part. With another number, all get the
    means of statistics and losses, and what the first process has of all else.
    """
    others: Sequence[State] = state["others"]
    if distributed.world_size() != len(others) + 1:
        return {**state, **_means(state, others)}
    if not distributed.rank():
        return state
    own = others[distributed.rank() - 1]
    tensors = {name: {**state[name], **own[name]} for name in NETWORKS if state[name] is not None}
    return {**state, **tensors, "meter": own["meter"], "rng": own["rng"]}


def draw_on(state: State) -> None:
    """Continue the random numbers of this process's part of a training state.

    With another number of processes, only the first continues; with its numbers, all would drop the
    same units.
    """
    if not distributed.rank() or distributed.world_size() == len(state["others"]) + 1:
        set_rng_state(state["rng"])


def _means(state: State, others: Sequence[State]) -> dict[str, Any]:
    meters = [state["meter"], *(other["meter"] for other in others)]
    found: dict[str, Any] = {
        "meter": {**state["meter"], "sums": _mean([meter["sums"] for meter in meters])}
    }
    for part, prefix in _STATISTICS.items():
        names = {k for other in others for k in other[part] if k.startswith(prefix)}
        means = {
            name: _mean(
                [state[part][name], *(o[part].get(name, state[part][name]) for o in others)]
            )
            for name in names
            if state[part][name].is_floating_point()
        }
        if means:
            found[part] = {**state[part], **means}
    return found


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack([value.cpu() for value in values]).mean(0)


def _buffers(trainer: TrainerLike, part: str) -> dict[str, Tensor]:
    """Return the tensors of a part of the state that are not the same by construction."""
    network = trainer.distiller if part == "distiller" else trainer.average
    if network is None:
        return {}
    module = network if isinstance(network, torch.nn.Module) else network.network
    names = {name for name, _ in module.named_buffers()}
    return {name: value for name, value in module.state_dict().items() if name in names}


def _on_host(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value
