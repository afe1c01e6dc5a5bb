"""Networks that the file of a finished student may name without `--trust`."""

import sys
from collections.abc import Mapping
from typing import Any

import torchvision
from kd_core.config.kinds import returned
from kd_core.config.trust import Known, is_defined_in, known_modules
from kd_core.criteria.headless import without_head
from torch import nn
from torchvision.models import get_model, get_model_builder, list_models

from kd_cls.libraries.hugging_face import from_settings


def _is_of_zoo(found: Any, node: Mapping[str, Any]) -> bool:
    made = returned(found)
    is_builder = isinstance(made, type) and issubclass(made, nn.Module)
    return is_builder and is_defined_in(found, ["kd_cls.models"])


def _is_of_torchvision(found: Any, node: Mapping[str, Any]) -> bool:
    """Return whether it builds a classifier: detectors would download a backbone."""
    names = list_models(module=torchvision.models)
    if found is get_model:
        return node.get("name") in names
    return any(found is get_model_builder(name) for name in names)


def _is_of_timm(found: Any, node: Mapping[str, Any]) -> bool:
    return found is getattr(sys.modules.get("timm"), "create_model", None)


def _is_of_settings(found: Any, node: Mapping[str, Any]) -> bool:
    return found is from_settings


def _leaves_head_out(found: Any, node: Mapping[str, Any]) -> bool:
    return found is without_head


KNOWN = (
    Known(("kd_core.criteria.headless.",), _leaves_head_out),
    Known(("kd_cls.libraries.hugging_face.",), _is_of_settings),
    known_modules("kd_cls.models"),
    Known(("kd_cls.models.",), _is_of_zoo),
    known_modules("torchvision.models"),
    Known(("torchvision.models.",), _is_of_torchvision),
    known_modules("timm.models"),
    Known(("timm.create_model", "timm.models."), _is_of_timm),
)
