"""What differs between releases of Detectron2, and what it cannot do on a CPU."""

import gc
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.config import CfgNode
from detectron2.structures import ImageList
from fvcore.nn import sigmoid_focal_loss
from kd_core.runtime import ranks
from torch import Tensor


def restart_loader(trainer: Any, build: Callable[[], Any]) -> None:
    """Set another data loader of Detectron2's inner trainer and start it, which draws a seed.

    Release 0.6 keeps an iterator made in its constructor; the official main has a method, and makes
    the iterator at its first use.
    """
    if hasattr(trainer, "reset_data_loader"):
        trainer.reset_data_loader(build)
        iter(trainer._data_loader_iter)
    else:
        trainer.data_loader = build()
        trainer._data_loader_iter = iter(trainer.data_loader)


def normalised(network: Any, inputs: list[dict[str, Any]]) -> Tensor:
    """Return the padded batch [N, C, H, W] of images, normalised as a model does it.

    Semantic models and models of proposals do it inside `forward` alone.

    Args:
        network: A model with a backbone.
        inputs: What the model takes.
    """
    if hasattr(network, "preprocess_image"):
        images: Tensor = network.preprocess_image(inputs).tensor
        return images
    shown = [one["image"].to(network.pixel_mean.device) for one in inputs]
    shown = [(image - network.pixel_mean) / network.pixel_std for image in shown]
    constraints = getattr(network.backbone, "padding_constraints", None)  # of the official main
    more = {"padding_constraints": constraints} if constraints else {}
    batch: Tensor = ImageList.from_tensors(shown, network.backbone.size_divisibility, **more).tensor
    return batch


@contextmanager
def as_written() -> Iterator[None]:
    """Run scripted functions as plain Python, so that a step rounds the same in any process.

    TorchScript profiles the first calls in a process and then runs optimised code, whose gradients
    round differently: RetinaNet's first step after a resume would differ. Code that is optimised
    already stays so, hence the focal loss itself is replaced too.
    """
    scripted: dict[Any, Any] = {}
    for name in ("retinanet", "fcos"):
        module: Any = sys.modules.get(f"detectron2.modeling.meta_arch.{name}")
        if hasattr(module, "sigmoid_focal_loss_jit"):
            scripted[module] = module.sigmoid_focal_loss_jit
            module.sigmoid_focal_loss_jit = sigmoid_focal_loss
    try:
        with torch.jit.optimized_execution(False):
            yield
    finally:
        for module, function in scripted.items():
            module.sigmoid_focal_loss_jit = function


@contextmanager
def traced() -> Iterator[None]:
    """Let Detectron2's code be traced, as its `TracingAdapter` does: sizes stay tensors.

    Release 0.6 scales gradients in the heads of a Cascade R-CNN in evaluation too, by an autograd
    function, which a file cannot hold.
    """
    from detectron2.export.torchscript_patch import patch_builtin_len
    from detectron2.modeling.roi_heads import cascade_rcnn

    scale = cascade_rcnn._ScaleGradient
    cascade_rcnn._ScaleGradient = _Unscaled
    try:
        with patch_builtin_len():
            yield
    finally:
        cascade_rcnn._ScaleGradient = scale


class _Unscaled:
    @staticmethod
    def apply(value: torch.Tensor, _: float) -> torch.Tensor:
        return value


@contextmanager
def keys_read_directly() -> Iterator[None]:
    """Let `default_setup` read a config's keys: it would parse the whole as YAML for each."""
    from detectron2.engine import defaults

    before = getattr(defaults, "_try_get_key", None)
    if before is None:  # another release
        yield
        return

    def found(cfg: Any, *keys: str, default: Any = None) -> Any:
        if not isinstance(cfg, CfgNode):
            return before(cfg, *keys, default=default)
        known = [key for key in keys if key in cfg]  # nodes have capitals, LazyConfigs dots
        return cfg[known[0]] if known else default

    defaults._try_get_key = found
    try:
        yield
    finally:
        defaults._try_get_key = before


def launch_on_cpu(main: Callable[..., None], processes: int, args: tuple[Any, ...]) -> None:
    """Run a function in several processes with gloo; Detectron2's launcher demands CUDA and NCCL.

    Args:
        main: Function that every process calls, picklable.
        processes: Number of processes.
        args: Arguments of `main`.
    """
    if processes == 1:
        main(*args)
        return
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_cpu_process, (main, processes, f"file://{folder}/store", args), nprocs=processes)


def _cpu_process(
    rank: int, main: Callable[..., None], processes: int, store: str, args: tuple[Any, ...]
) -> None:
    from detectron2.engine import defaults
    from detectron2.utils import comm

    dist.init_process_group(
        "gloo", init_method=store, world_size=processes, rank=rank, timeout=ranks.timeout()
    )
    comm._LOCAL_PROCESS_GROUP = dist.new_group(list(range(processes)))
    # DefaultTrainer passes a CUDA device to DDP, which rejects it for a model on the CPU.
    defaults.create_ddp_model = partial(defaults.create_ddp_model, device_ids=None)
    main(*args)
    # Threads of a group that is still referred to abort the process if they wake as it exits.
    dist.destroy_process_group()
    comm._LOCAL_PROCESS_GROUP = None
    gc.collect()
