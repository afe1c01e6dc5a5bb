"""The model zoo: networks by name, with the keys of the public checkpoints, and their tap paths.

Every network is importable from here, `from kd_cls.models import resnet8x4`: a function that builds
it, `resnet8x4(num_classes=100)`. The zoo is imported when a name is first used. The types for
editors are in `__init__.pyi`, which `python tests/test_stubs.py` writes.
"""

from importlib import import_module
from typing import Any

from kd_core.errors import missing_attribute

_NAMES = ("MODELS", "Taps", "build_model", "taps")


def __getattr__(name: str) -> Any:
    if name.startswith("_") and name != "__all__":
        raise missing_attribute(__name__, name, ())
    zoo = import_module("kd_cls.models.zoo")
    names = sorted({*_NAMES, *zoo.MODELS})
    if name == "__all__":
        return names
    if name not in names:
        raise missing_attribute(__name__, name, names)
    value = getattr(zoo, name) if name in _NAMES else zoo.MODELS[name]
    globals()[name] = value  # next time Python finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
