"""Teacher: a frozen model that is never trained, saved or set to training mode."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kd_core.config.names import named
from kd_core.errors import UserError
from kd_core.networks.fold import folded_copy, is_plain, sharing_copy
from kd_core.networks.map_layout import map_values
from kd_core.networks.sharding import is_sharded
from kd_core.networks.taps import FeatureTap
from kd_core.networks.task import Batch, Task, network_of


class Teacher:
    """Holds a frozen model without registering it as a submodule.

    Because this is not a module, a teacher inside one is neither in `parameters()` nor in
    `state_dict()`, DDP does not wrap it and `train()` does not reach it. It follows the holder's
    `.to()` through `Distiller`, and `deepcopy` shares it.

    Args:
        model: A `Task` or any model that can be called with a batch. It is frozen permanently: eval
            mode, no parameter requires a gradient.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)
        self._runs = self.model  # the model that runs in training; see `accelerate`
        self._tap: FeatureTap | None = None

    @property
    def network(self) -> nn.Module:
        """The plain network, which taps refer to."""
        return network_of(self.model)

    @property
    def models(self) -> list[nn.Module]:
        """The model and, where there is one, its faster copy."""
        return [self.model] if self._runs is self.model else [self.model, self._runs]

    def infer_shapes(
        self, paths: Iterable[str], sample: Batch | None = None, maps: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Set the taps; with a sample batch, return their values for it.

        Later passes end at the last of them.

        Args:
            paths: All taps.
            sample: The batch.
            maps: Those among the taps that criteria on maps read.
        """
        tap, student_features = FeatureTap(self.network, paths), dict[str, Any]()
        if sample is not None:
            tap, student_features = map_values(self.model, tap, sample, maps)
        # A pass of a sharded model that ended early would leave its blocks whole.
        self._runs, self._tap = self.model, tap.of(self.network, stop=not is_sharded(self.model))
        return student_features

    def __call__(self, batch: Batch) -> dict[str, Any]:
        """Run the model on the batch, without gradients, and return what the taps recorded.

        Not under inference mode: its tensors could not be saved for the student's backward.
        """
        if self._tap is None:
            raise RuntimeError("infer_shapes() was not called")
        if not self._tap.paths:
            return {}
        if any(module.training for module in self._runs.modules()):  # set so by hand
            self._runs.eval()
        with torch.no_grad(), self._tap as student_features:
            self._runs(batch)
        return student_features

    def accelerate(self, sample: Batch, dtype: torch.dtype | None = None) -> int:
        """Run a faster copy with the same outputs from now on.

        BatchNorms are folded into the convolutions before them, except for convolutions whose own
        output is tapped, and not at all if the outputs would change. Float32 outputs differ by
        rounding, about 1e-6 of the largest. A sharded model has no copy.

        Args:
            sample: A batch for the comparison.
            dtype: That of autocast, if the teacher runs under it: convolutions and linear layers
                then hold their weights in it, rather than being cast in every pass.

        Returns:
            The number of BatchNorms folded.
        """
        if self._tap is None or not self._tap.paths or is_sharded(self.model):
            return 0
        tap = self._tap

        def run(model: nn.Module) -> Any:
            with torch.no_grad(), tap.of(network_of(model)) as student_features:
                model(sample)
            return student_features

        inside = "network." if isinstance(self.model, Task) else ""
        kept = {inside + path for path in tap.hooked}
        self._runs, count = folded_copy(self.model, run, kept)
        if dtype is not None:
            copied = sharing_copy(self.model) if self._runs is self.model else self._runs
            self._runs = self.model if copied is None else _held_in(copied, dtype)
        self._tap = tap.of(network_of(self._runs), stop=True)
        return count

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teacher":
        return self


def _held_in(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Cast the weights that autocast would cast in every pass; leave the others in float32."""
    for path, module in model.named_modules():
        # Not what computes the weights of another layer, nor a layer whose own are computed.
        computes = "parametrizations" in path.split(".")
        if type(module) in (nn.Conv2d, nn.Linear) and is_plain(module) and not computes:
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(parameter.to(dtype), requires_grad=False))
    return model


def as_teachers(
    models: nn.Module | Mapping[str, nn.Module], student: nn.Module
) -> dict[str, Teacher]:
    """Freeze models and name them; one alone is called "teacher".

    Raises:
        UserError: If one shares memory or dropout with the student (nothing is frozen then), or
            its name.
    """
    if isinstance(models, nn.ModuleDict):
        models = dict(models.items())
    by_name = {"teacher": models} if isinstance(models, nn.Module) else models
    for name, model in named(by_name, "teachers").items():
        if name == "student":
            raise UserError("a teacher cannot be named 'student'; give it another name")
        if shared := _shared(model, student):
            raise UserError(
                f"teacher {name!r} shares {shared}, so freezing it would freeze "
                "the student too, or training would change it; give it a copy (copy.deepcopy)"
            )
    return {name: Teacher(model) for name, model in by_name.items()}


def _shared(teacher: nn.Module, student: nn.Module) -> str:
    """Return what a teacher has in common with the student that one of them changes; or ""."""
    trained = {_place(tensor) for tensor in (*student.parameters(), *student.buffers())} - {None}
    parameters, buffers = teacher.named_parameters(), teacher.named_buffers()
    for what, tensors in (("parameters", parameters), ("buffers", buffers)):
        for name, tensor in tensors:
            if _place(tensor) in trained:
                return f"{what} with the student ({name})"
    modules = {id(module) for module in student.modules()}
    for name, module in teacher.named_modules():
        # A teacher would switch it off in the student. What has no state, as a ReLU, does no harm.
        if id(module) in modules and "drop" in type(module).__name__.lower():
            return f"dropout with the student ({name})"
    return ""


def _place(tensor: Tensor) -> tuple[str, int] | None:
    """Return where a tensor's memory is; None for one without any."""
    if is_lazy(tensor) or tensor.layout != torch.strided or not tensor.numel():
        return None
    if hasattr(tensor, "full_tensor"):
        return None  # a part, which only its own network has
    address = tensor.untyped_storage().data_ptr()
    return (str(tensor.device), address) if address else None
