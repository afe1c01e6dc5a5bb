"""Knowledge distillation: criteria, feature taps, and the machinery that trains with them."""

from kd_core.build import build
from kd_core.config import load_config
from kd_core.criterion import Criterion
from kd_core.distiller import Distiller
from kd_core.hooks import Hook
from kd_core.taps import FeatureTap
from kd_core.term import Term
from kd_core.trainer import Trainer

__all__ = [
    "Criterion",
    "Distiller",
    "FeatureTap",
    "Hook",
    "Term",
    "Trainer",
    "build",
    "load_config",
]
