"""Knowledge distillation: criteria, feature taps, and the machinery that trains with them."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_core.config.build import build
    from kd_core.config.reading import load_config
    from kd_core.criteria.criterion import Criterion
    from kd_core.distill.distiller import Distiller
    from kd_core.distill.term import Term
    from kd_core.networks.taps import FeatureTap
    from kd_core.training.hooks import Hook
    from kd_core.training.trainer import Trainer

__all__ = [
    "Criterion",
    "Distiller",
    "FeatureTap",
    "Hook",
    "Term",
    "Trainer",
    "__version__",
    "build",
    "load_config",
]

_HOMES = {
    "Criterion": "criteria.criterion",
    "Distiller": "distill.distiller",
    "FeatureTap": "networks.taps",
    "Hook": "training.hooks",
    "Term": "distill.term",
    "Trainer": "training.trainer",
    "build": "config.build",
    "load_config": "config.reading",
}
"""Where the public names are defined; imported when they are asked for, and torch with them."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("kd-core")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
