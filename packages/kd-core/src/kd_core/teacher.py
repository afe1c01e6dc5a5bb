"""A teacher: a model that is looked at, never trained, saved or switched to train mode."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from kd_core.errors import UserError
from kd_core.probe import tap_values
from kd_core.taps import FeatureTap
from kd_core.task import Batch, network_of


class Teacher:
    """Hold a frozen model out of `nn.Module`'s sight.

    Because this is no module, a teacher held by one appears in neither `parameters()` nor
    `state_dict()`, DDP does not wrap it and `train()` does not reach it. It follows the holder's
    `.to()` through `Distiller`, and `deepcopy` shares it.

    Args:
        model: A `Task` or any model that can be called with a batch. It is frozen for good: eval
            mode, no parameter requires a gradient.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)
        self._tap: FeatureTap | None = None

    @property
    def network(self) -> nn.Module:
        """The plain network, which taps refer to."""
        return network_of(self.model)

    def listen(self, paths: Iterable[str], sample: Batch | None = None) -> dict[str, Any]:
        """Choose the taps; with a sample batch, return what they give for it."""
        self._tap = FeatureTap(self.network, paths)
        if sample is None:
            return {}
        self._tap, seen = tap_values(self.model, self._tap, sample)
        return seen

    def __call__(self, batch: Batch) -> dict[str, Any]:
        """Run the model on the batch, without gradients, and return what the taps recorded.

        Not under inference mode: its tensors could not be saved for the student's backward.
        """
        if self._tap is None:
            raise RuntimeError("listen() was not called")
        if any(module.training for module in self.model.modules()):  # set so by hand
            self.model.eval()
        with torch.no_grad(), self._tap as seen:
            self.model(batch)
        return seen

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teacher":
        return self


def as_teachers(
    models: nn.Module | Mapping[str, nn.Module], student: nn.Module
) -> dict[str, Teacher]:
    """Freeze models and name them; one alone is called "teacher".

    Raises:
        UserError: If one shares parameters with the student (nothing is frozen then), or its name.
    """
    if isinstance(models, nn.ModuleDict):
        models = dict(models.items())
    named = {"teacher": models} if isinstance(models, nn.Module) else models
    trained = {id(parameter) for parameter in student.parameters()}
    for name, model in named.items():
        if name == "student":
            raise UserError("a teacher cannot be named 'student'; give it another name")
        if any(id(parameter) in trained for parameter in model.parameters()):
            raise UserError(
                f"teacher {name!r} shares parameters with the student, so freezing it would freeze "
                "the student too; give it a copy (copy.deepcopy)"
            )
    return {name: Teacher(model) for name, model in named.items()}
