"""Wraps a network with its task loss."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypedDict, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kd_core.errors import UserError


class Batch(TypedDict, total=False):
    """What a loader gives to a model, and what is added on the way to the criteria.

    Every task fills its part; nothing else is needed of a batch than what its model and criteria
    read. N is the number of images of one view, V that of views. A task of yours may add keys.
    """

    image: Tensor
    """uint8, or floats in [0, 1], [V * N, 3, H, W], view-major; each network normalises itself."""
    label: Tensor
    """int64 [N]; of multi-label data floats [N, C], 0, 1, or -1 where unknown; of detection's
    regions [R], background included; of a task of yours anything."""
    index: Tensor
    """Place of every image in the training set, int64 [N]."""
    crop_id: Tensor
    """Which crop and flip every image got, int64 [N]; with `index` it names a view."""
    num_views: int
    """V, where it is not 1."""
    mixed_labels: Tensor
    """Labels of the images that were mixed into each, int64 [N, sources], or [N, sources, C]; not
    where there are no labels."""
    mixed_weights: Tensor
    """Their shares, [N, sources]; a row adds up to 1."""

    teacher_features: dict[str, dict[str, Any]]
    """What teachers' taps give, by teacher and tap, where a teacher need not be run."""
    epoch: Tensor
    """Epochs that are done, with their part, a float on the device; added by the distiller."""
    progress: Tensor
    """Place in the run, from 0 at its first step to 1 at its last one; added likewise."""

    inputs: list[dict[str, Any]]
    """Detection: what Detectron2's models take."""
    regions: dict[str, Any]
    """Detection: regions of the student's heads, filled in by its pass, by head; for a teacher
    boxes of every image, by the head of the teacher that runs on them."""
    boxes: tuple[Tensor, ...]
    """Detection: true boxes of every image, [boxes, 4], in pixels of the resized image."""
    image_sizes: Tensor
    """Detection: height and width of every resized image, int64 [N, 2]."""
    padded_size: tuple[int, int]
    """Detection: height and width of the padded batch."""
    anchors: list[Tensor]
    """Detection: boxes of RetinaNet's anchors, [R, 4], one tensor a level."""
    gt_labels: Tensor
    """Detection: class of every anchor, [N, all R]; C is background, -1 is ignored."""

    mask: Sequence[Tensor]
    """Instead of what `MGD` draws: masks [N, 1, H, W], one a level."""
    noise: Tensor
    """Instead of what `SLEnc` draws."""
    contrast: Tensor
    """Instead of what `CRD` draws: indices of samples, int64 [N, 1 + K], the positive first."""


def rows_of(batch: Batch, rows: Tensor | slice) -> Batch:
    """Return some rows of every tensor of a batch; what is not a tensor is left out."""
    parts = {name: value[rows] for name, value in batch.items() if isinstance(value, Tensor)}
    return cast(Batch, parts)


class Task(nn.Module):
    """Wraps a network with its task: returns a dict of losses in training, else a prediction.

    Taps, exported weights and FLOP counts refer to `network`, the plain module that users know, so
    their names do not contain the wrapper. A model that is its own task (a Detectron2
    meta-architecture) need not be wrapped.

    Args:
        network: The plain network.
        roles: Its tap paths by role, shallow to deep; see `kd_core.networks.roles`.
    """

    changes_data: ClassVar[bool] = False
    """Whether training changes which samples come next, so that students cannot share a pass."""

    other_classes: str = ""
    """Why the logits of a trained model are not those of the data's classes; "" if they are."""

    def __init__(
        self, network: nn.Module, *, roles: Mapping[str, str | Sequence[str]] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.roles = dict(roles or {})
        self.channels_last = False

    def forward(self, batch: Batch) -> Any:
        """Return named scalar losses while training, else the prediction."""
        raise NotImplementedError

    def run_for_taps(self, batch: Batch) -> Any:
        """Run the network on a training batch whose losses have no weight.

        What it returns is not used. A task whose losses alone need labels runs without them too.
        """
        return self(batch)

    def check_sample(self, batch: Batch) -> None:
        """Look once at a batch and what the network makes of it, before training; may raise."""

    def passes(self, batch: Batch) -> int:
        """Return in how many passes of the network a call runs, each over an equal part of a batch.

        The parts are in the batch's order. Taps join their values in these passes.
        """
        return 1

    def training_metrics(self) -> dict[str, float]:
        """Return what all processes measured in training since the last call, or nothing."""
        return {}

    def without_role(self, role: str) -> str:
        """Return what to do where a tap asks for a role that this task lacks; "" if not known."""
        return ""

    def set_ema(self, network: nn.Module) -> None:
        """Receive the moving average of the network, if the trainer keeps one."""

    def begin_epoch(self, epoch: int) -> None:
        """Prepare for an epoch of training, counted from 0; called in training mode."""

    def products(self) -> dict[str, dict[str, Tensor]]:
        """Return the weights that a finished run writes, by file name.

        Those of `student` must fit the plain network.
        """
        return {"student": self.network.state_dict()}

    def use_channels_last(self, flag: bool = True) -> None:
        """Set whether the network is in NHWC memory; a subclass converts its images too."""
        self.channels_last = flag
        self.to(memory_format=torch.channels_last if flag else torch.contiguous_format)


def network_of(model: nn.Module) -> nn.Module:
    """Return the network inside a `Task`, or the model itself."""
    return model.network if isinstance(model, Task) else model


def passes_of(model: nn.Module, batch: Batch) -> int:
    """Return in how many passes a model runs over a batch; see `Task.passes`."""
    return model.passes(batch) if isinstance(model, Task) else 1


def refuse_untrainable(student: nn.Module) -> None:
    """Reject a student whose parameters cannot be trained, read or exported by their names."""
    for name, module in student.named_modules():
        if problem := _untrainable(module):
            raise UserError(f"student module {name or '(the whole)'!r} is {problem}")


def _untrainable(module: nn.Module) -> str:
    if ".quantized." in f"{type(module).__module__}.":
        return "quantised, so it has no weights to train; take the network before quantisation"
    if type(module).__name__.startswith(("FullySharded", "FSDP")):
        return (
            "sharded by FSDP, so its parameters are not whole where criteria read them; use DDP "
            "(torchrun does)"
        )
    if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None):
        return (
            "compiled already, so taps in it would not fire, and its exported weights would have "
            "other names; give the plain network, and set trainer.compile=True"
        )
    if any(map(is_lazy, (*module.parameters(recurse=False), *module.buffers(recurse=False)))):
        return "lazy, so it has no weights before its first pass; run a batch through it first"
    return ""
