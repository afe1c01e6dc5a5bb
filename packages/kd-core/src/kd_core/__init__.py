"""Knowledge distillation: criteria, feature taps, and the machinery that trains with them."""

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
    "build",
    "load_config",
]
