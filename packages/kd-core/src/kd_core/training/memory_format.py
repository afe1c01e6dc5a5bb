"""NHWC memory of networks and images."""

import torch

from kd_core.distill.distiller import Distiller
from kd_core.networks.sharding import is_sharded
from kd_core.networks.task import Batch, Task
from kd_core.runtime.seed import rng_state, set_rng_state


def use_channels_last(
    distiller: Distiller, flag: bool | None, *, precision: str = "fp32", sample: Batch | None = None
) -> None:
    """Keep student, peers and teachers in NHWC memory, if it is asked for or faster.

    Args:
        distiller: On its device.
        flag: None does so where it is faster (benchmarks/step.py): on CPUs, and with autocast;
            only for networks that can run a sample in it. Networks that take views of maps
            (`x.view(len(x), -1)`) cannot, unless the maps have one pixel.
        precision: In which the networks run; see `TrainStep`.
        sample: A small batch.
    """
    faster = distiller.steps.device.type == "cpu" or precision != "fp32"
    if flag is False or (flag is None and not faster):
        return
    teachers = [model for teacher in distiller.teachers.values() for model in teacher.models]
    teachers = [model for model in teachers if not is_sharded(model)]  # parts have no such layout
    for model in (distiller.student, *distiller.peers.values(), *teachers):
        if isinstance(model, Task):
            model.use_channels_last()
            if flag is None and sample is not None and not _runs(model, sample):
                model.use_channels_last(False)


def _runs(model: Task, sample: Batch) -> bool:
    """Return whether a model can run a batch; the model is unchanged."""
    state, before = rng_state(), [buffer.clone() for buffer in model.buffers()]
    try:
        with torch.no_grad():
            model(sample)
    except Exception:  # any error: the usual memory format shows whether it is a real one
        return False
    finally:
        set_rng_state(state)
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)
    return True
