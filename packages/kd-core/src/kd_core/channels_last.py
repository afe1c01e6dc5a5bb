"""NHWC memory: where networks and images are kept in it."""

import torch

from kd_core.distiller import Distiller
from kd_core.task import Task


def use_channels_last(distiller: Distiller) -> None:
    """Keep student, peers and teachers in NHWC memory."""
    teachers = [model for teacher in distiller.teachers.values() for model in teacher.models]
    for model in (distiller.student, *distiller.peers.values(), *teachers):
        if isinstance(model, Task):
            model.use_channels_last()


def prefers_channels_last(device: torch.device, precision: str = "fp32") -> bool:
    """Tell whether NHWC memory makes convolutions faster (benchmarks/step.py measures it)."""
    return device.type == "cpu" or precision == "bf16"
