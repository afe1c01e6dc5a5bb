"""Parts of release 0.6 that today's libraries break, repaired as they are imported.

Each fault is looked for in the module itself. So a release without it, such as the official main,
is left as it is.
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from kd_det.release.extension import is_stand_in

_OLD_NAMES = {
    each.__name__: each  # of NumPy until 1.23: np.int was int
    for each in (bool, int, float, complex, object, str)
}
_USES_OLD = re.compile(rf"\bnp\.({'|'.join(_OLD_NAMES)})\b|\bnp\.array\(\w+, copy=False\)")
_DROPPED = ("caffe2", "onnx")  # by PyTorch; only the code for the first imports the second
_NO_CAFFE2 = (
    "detectron2.export has no {name!r} here: it needs caffe2, which PyTorch does not contain any "
    "more. TracingAdapter and scripting_with_instances work; so does tools/det_export.py"
)


class RepairingLoader(SourceFileLoader):
    """Imports a module of Detectron2 and repairs it, if there is anything to repair."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        with _resources_found(module.__name__):
            try:
                super().exec_module(module)
            except ModuleNotFoundError as error:
                if module.__name__ != "detectron2.export.api" or error.name not in _DROPPED:
                    raise
                _explain_caffe2(module)
        repair(module)


def repair(module: ModuleType) -> None:
    """Repair a module of Detectron2 that has been imported."""
    give_old_names(module)
    if special := _SPECIAL.get(module.__name__):
        special(module)


def give_old_names(module: ModuleType) -> None:
    """Give a module NumPy with the names that it uses and NumPy has dropped.

    Where Detectron2 expects an `AttributeError` for another reason, a missing name is not seen: its
    message about the categories of a data set and the check of their numbers are left out.
    """
    numpy = sys.modules.get("numpy")
    if numpy and vars(module).get("np") is numpy and _USES_OLD.search(_source(module)):
        vars(module)["np"] = _OldNumpy(numpy)


class _OldNumpy(ModuleType):
    """NumPy as it was: for one module of Detectron2, not for anybody else."""

    def __init__(self, numpy: Any) -> None:
        super().__init__("numpy", numpy.__doc__)
        self._numpy: Any = numpy
        for name, kind in _OLD_NAMES.items():
            setattr(self, name, kind)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._numpy, name)

    def array(self, value: Any, *args: Any, copy: bool = True, **kwargs: Any) -> Any:
        """Return an array; without `copy`, one is made only where it must, as until NumPy 1."""
        make = self._numpy.array if copy else self._numpy.asarray
        return make(value, *args, **kwargs)


def probe_with_channels(module: Any) -> None:
    """Let a RetinaNet's head have GroupNorm.

    To learn a norm's type, it builds one of a single channel, which 32 groups cannot share.
    """
    if "get_norm(norm, 1)" not in _source(module):
        return
    get_norm = module.get_norm

    def get_norm_of_many(norm: Any, channels: int) -> Any:
        return get_norm(norm, 32 if channels == 1 else channels)

    module.get_norm = get_norm_of_many


def deform_by_torchvision(module: Any) -> None:
    """Let deformable convolution, whose code is not compiled, be torchvision's: on a CPU too."""
    if not is_stand_in(getattr(module, "_C", None)):
        return
    from torchvision.ops import deform_conv2d

    def deform_conv(x: Any, offset: Any, weight: Any, *sizes: Any) -> Any:
        return deform_conv2d(x, offset, weight, None, *sizes[:3])  # the groups follow from shapes

    def modulated(x: Any, offset: Any, mask: Any, weight: Any, bias: Any, *sizes: Any) -> Any:
        return deform_conv2d(x, offset, weight, bias, *sizes[:3], mask=mask)

    module.deform_conv, module.modulated_deform_conv = deform_conv, modulated


def explain_rotated(module: Any) -> None:
    """Let what needs compiled code for rotated boxes say so, in place of an error of torch."""
    extension = importlib.import_module("detectron2._C")
    if is_stand_in(extension):
        name, operator = _ROTATED[module.__name__]
        setattr(module, name, lambda *_: getattr(extension, operator))


_ROTATED = {
    "detectron2.layers.nms": ("nms_rotated", "nms_rotated"),
    "detectron2.layers.rotated_boxes": ("pairwise_iou_rotated", "box_iou_rotated"),
    "detectron2.layers.roi_align_rotated": ("roi_align_rotated", "roi_align_rotated_forward"),
}
_SPECIAL: dict[str, Callable[[Any], None]] = {
    "detectron2.modeling.meta_arch.retinanet": probe_with_channels,
    "detectron2.layers.deform_conv": deform_by_torchvision,
    **dict.fromkeys(_ROTATED, explain_rotated),
}


@contextmanager
def _resources_found(name: str) -> Iterator[None]:
    """Lend the model zoo the one function that it takes from `pkg_resources`, where that is gone.

    Setuptools has dropped it in version 82.
    """
    key = "pkg_resources"
    if not name.startswith("detectron2.model_zoo.") or importlib.util.find_spec(key) is not None:
        yield
        return
    lent: Any = ModuleType(key)
    lent.resource_filename = _resource_file
    sys.modules[key] = lent
    try:
        yield
    finally:
        sys.modules.pop(key, None)


def _resource_file(package: str, name: str) -> str:
    (folder,) = importlib.import_module(package).__path__
    return str(Path(folder) / name)


def _explain_caffe2(module: Any) -> None:
    """Leave a module empty, except for an explanation of what it would have."""

    def missing(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(_NO_CAFFE2.format(name=name))

    for name in [name for name in vars(module) if not name.startswith("__")]:
        delattr(module, name)
    module.__all__, module.__getattr__ = [], missing


def _source(module: ModuleType) -> str:
    loader = module.__spec__.loader if module.__spec__ else None
    return loader.get_source(module.__name__) or "" if isinstance(loader, SourceFileLoader) else ""
