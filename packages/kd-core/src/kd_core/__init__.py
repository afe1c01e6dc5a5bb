"""Knowledge distillation: criteria, feature taps, and the machinery that trains with them.

Importing this imports nothing else; each public name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kd_core.errors import missing_attribute

if TYPE_CHECKING:
    from kd_core.config.build import build
    from kd_core.config.reading import load_config
    from kd_core.criteria.criterion import Criterion
    from kd_core.distill.distiller import Distiller
    from kd_core.distill.term import Term
    from kd_core.experiment.adapter import TaskAdapter
    from kd_core.networks.taps import FeatureTap
    from kd_core.training.hooks import Hook
    from kd_core.training.trainer import Trainer

    __version__: str

__all__ = [
    "Criterion",
    "Distiller",
    "FeatureTap",
    "Hook",
    "TaskAdapter",
    "Term",
    "Trainer",
    "__version__",
    "build",
    "load_config",
]

_DEFINED_IN = {
    "Criterion": "criteria.criterion",
    "Distiller": "distill.distiller",
    "FeatureTap": "networks.taps",
    "Hook": "training.hooks",
    "TaskAdapter": "experiment.adapter",
    "Term": "distill.term",
    "Trainer": "training.trainer",
    "build": "config.build",
    "load_config": "config.reading",
}
"""The module of each public name below this package."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _DEFINED_IN:
        raise missing_attribute(__name__, name, __all__)
    value = getattr(import_module(f"{__name__}.{_DEFINED_IN[name]}"), name)
    globals()[name] = value  # next time Python finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """Return the installed version; reading it takes longer than all else here."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("kd-core")
    except PackageNotFoundError:  # a source tree on Python's path
        return "0+not-installed"
