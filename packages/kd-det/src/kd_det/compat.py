"""Make Detectron2 0.6 importable with newer libraries."""

import importlib.util
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from fvcore.nn import sigmoid_focal_loss
from kd_core.runtime import ranks
from PIL import Image

_MISSING = (
    "kd_det needs detectron2, which is not installed. Two ways to get it: in the root of the kd "
    "workspace, `uv sync` installs release 0.6 (a re-upload, whose compiled extension is not "
    "needed); with git and a compiler, `pip install --no-build-isolation "
    "'detectron2 @ git+https://github.com/facebookresearch/detectron2'` builds the official main."
)


def require_detectron2() -> None:
    """Prepare the import of detectron2; call it before the first such import.

    Pillow's LINEAR, removed in Pillow 10, is set again. If Detectron2 has no compiled extension, a
    stand-in replaces it: boxes, RoIAlign and NMS come from torchvision.

    Raises:
        ImportError: If detectron2 is not installed; it says how to get it.
    """
    if importlib.util.find_spec("detectron2") is None:
        raise ImportError(_MISSING, name="detectron2")
    if not hasattr(Image, "LINEAR"):
        Image.LINEAR = Image.BILINEAR  # type: ignore[attr-defined]
    if importlib.util.find_spec("detectron2._C") is None:
        _stand_in_for_extension()
    # Detectron2's own use of PyTorch, which users cannot change.
    warnings.filterwarnings("ignore", r"`?torch\.jit\.script", FutureWarning)
    warnings.filterwarnings("ignore", r"torch\.meshgrid", UserWarning)


def has_extension() -> bool:
    """Return whether Detectron2's own compiled extension is there; call `require_detectron2` first.

    Without it there are no rotated boxes, no deformable convolution and no fast COCO evaluation.
    """
    return not isinstance(sys.modules.get("detectron2._C"), _Extension)


class _Extension(ModuleType):
    """Replaces `detectron2._C`: it has the build information only."""

    def __init__(self) -> None:
        super().__init__("detectron2._C")
        self.__spec__ = ModuleSpec("detectron2._C", loader=None)  # so that an import finds it

    @staticmethod
    def has_cuda() -> bool:
        return False

    @staticmethod
    def get_compiler_version() -> str:
        return "not compiled"

    @staticmethod
    def get_cuda_version() -> str:
        return "not compiled"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"detectron2._C has no {name!r}: this Detectron2 was installed without its compiled "
            "extension. Rotated boxes, deformable convolution and fast COCO evaluation need it; "
            "evaluate with COCOEvaluator(..., use_fast_impl=False), or build the official main"
        )


def _stand_in_for_extension() -> None:
    extension = _Extension()
    sys.modules["detectron2._C"] = extension
    sys.modules["detectron2"]._C = extension  # type: ignore[attr-defined]


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
    dist.destroy_process_group()
