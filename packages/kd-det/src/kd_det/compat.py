"""Make Detectron2 0.6 importable with libraries that are younger than it."""

import importlib.util
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from PIL import Image

_MISSING = (
    "kd_det needs detectron2, which is not installed. Two ways to get it: in the root of the kd "
    "workspace, `uv sync` installs release 0.6 (a re-upload, whose compiled extension is not "
    "needed); with git and a compiler, `pip install --no-build-isolation "
    "'detectron2 @ git+https://github.com/facebookresearch/detectron2'` builds the official main."
)


def require_detectron2() -> None:
    """Prepare what `import detectron2` and its parts need; call it before the first of them.

    Pillow's LINEAR, gone since Pillow 10, is set again. Where Detectron2 was installed without its
    compiled extension, a stand-in takes that place: boxes, RoIAlign and NMS come from torchvision.

    Raises:
        ImportError: If detectron2 is not installed; it says how to get it.
    """
    if importlib.util.find_spec("detectron2") is None:
        raise ImportError(_MISSING, name="detectron2")
    if not hasattr(Image, "LINEAR"):
        Image.LINEAR = Image.BILINEAR  # type: ignore[attr-defined]
    if importlib.util.find_spec("detectron2._C") is None:
        _stand_in_for_extension()
    # Detectron2's own use of PyTorch, which no user can change.
    warnings.filterwarnings("ignore", r"`?torch\.jit\.script", FutureWarning)
    warnings.filterwarnings("ignore", r"torch\.meshgrid", UserWarning)


def has_extension() -> bool:
    """Tell whether Detectron2's own compiled extension is there; call `require_detectron2` first.

    Without it there are no rotated boxes, no deformable convolution and no fast COCO evaluation.
    """
    return not isinstance(sys.modules.get("detectron2._C"), _Extension)


class _Extension(ModuleType):
    """Stands in for `detectron2._C`: can be asked what it was built with, and no more."""

    def __init__(self) -> None:
        super().__init__("detectron2._C")
        self.__spec__ = ModuleSpec("detectron2._C", loader=None)  # found by whoever looks for it

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
