"""What stands in for Detectron2's compiled extension, where it was not compiled."""

from types import ModuleType
from typing import Any

from kd_core.errors import UserError


class _NotCompiledError(UserError, AttributeError):
    """What the compiled extension would have."""


class StandIn(ModuleType):
    """Stands in for `detectron2._C`: can be asked what it was built with, and no more."""

    def __init__(self) -> None:
        super().__init__("detectron2._C")

    @staticmethod
    def has_cuda() -> bool:
        """Return that there is no code for a GPU."""
        return False

    @staticmethod
    def get_compiler_version() -> str:
        """Return that there was no compiler."""
        return "not compiled"

    @staticmethod
    def get_cuda_version() -> str:
        """Return that there was no compiler for a GPU."""
        return "not compiled"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _NotCompiledError(
            f"detectron2._C has no {name!r}: this Detectron2 was installed without its compiled "
            "extension. Rotated boxes and fast COCO evaluation need it; "
            "evaluate with COCOEvaluator(..., use_fast_impl=False), or build the official main"
        )


def is_stand_in(module: object) -> bool:
    """Return whether a module only stands in for the compiled extension."""
    return isinstance(module, StandIn)
