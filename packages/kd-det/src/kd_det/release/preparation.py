"""Make Detectron2 0.6 importable with libraries that are younger than it.

It is prepared when it is imported, so that `import kd_det` imports neither it nor torch. What its
modules need beyond that is in `repairs`.
"""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from types import ModuleType

from kd_core.errors import UserError

from kd_det.release.extension import StandIn, is_stand_in
from kd_det.release.repairs import RepairingLoader, repair

_MISSING = (
    "kd_det needs detectron2, which is not installed. Two ways to get it: in the root of the kd "
    "workspace, `uv sync` installs release 0.6 (a re-upload, whose compiled extension is not "
    "needed); with git and a compiler, `pip install --no-build-isolation "
    "'detectron2 @ git+https://github.com/facebookresearch/detectron2'` builds the official main."
)


class MissingDetectron2Error(UserError, ModuleNotFoundError):
    """Detectron2 is not installed; the text says how to get it."""


def prepare() -> None:
    """Call `require_detectron2`; if it is not installed, say so whenever it is imported."""
    try:
        require_detectron2()
    except MissingDetectron2Error:
        if not any(isinstance(finder, _Explained) for finder in sys.meta_path):
            sys.meta_path.append(_Explained())  # asked only for what nobody else has


def require_detectron2() -> None:
    """Prepare the import of detectron2; call it before the first such import.

    Pillow's LINEAR, removed in Pillow 10, is set again. If Detectron2 has no compiled extension, a
    stand-in replaces it: boxes, RoIAlign and NMS come from torchvision.

    Raises:
        MissingDetectron2Error: If it is not installed; an ImportError.
    """
    if importlib.util.find_spec("detectron2") is None:
        raise MissingDetectron2Error(_MISSING)
    if not any(isinstance(finder, _StandIn) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Preparation())
        sys.meta_path.append(_StandIn())  # asked only for what nobody else has
        for name in [name for name in sys.modules if name.startswith("detectron2.")]:
            repair(sys.modules[name])
    if "detectron2" in sys.modules:
        _prepare_pillow()
    # Detectron2's own use of PyTorch, which no user can change.
    warnings.filterwarnings("ignore", r"`?torch\.jit\.script", FutureWarning)
    warnings.filterwarnings("ignore", r"torch\.meshgrid", UserWarning)


def has_extension() -> bool:
    """Return whether Detectron2's own compiled extension is there; call `require_detectron2` first.

    Without it there are no rotated boxes and no fast COCO evaluation.
    """
    return not is_stand_in(importlib.import_module("detectron2._C"))


class _Preparation(MetaPathFinder):
    """Sees that Detectron2 is about to be imported, and has its modules repaired."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "detectron2":
            _prepare_pillow()
        if not fullname.startswith("detectron2."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader:
            return None  # not plain source: others find it
        folders = spec.submodule_search_locations
        loader = RepairingLoader(fullname, spec.loader.path)
        return spec_from_file_location(fullname, loader=loader, submodule_search_locations=folders)


class _StandIn(MetaPathFinder, Loader):
    """Gives the stand-in for the compiled extension, where no other finder has the real one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname == "detectron2._C" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return StandIn()

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the stand-in is complete."""


class _Explained(MetaPathFinder):
    """Says how to get Detectron2 to whatever imports it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        if fullname == "detectron2":
            raise MissingDetectron2Error(_MISSING)


def _prepare_pillow() -> None:
    from PIL import Image

    if not hasattr(Image, "LINEAR"):
        Image.LINEAR = Image.BILINEAR  # type: ignore[attr-defined]
