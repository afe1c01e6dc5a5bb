"""Networks that the file of a finished student may name without `--trust`."""

from collections.abc import Mapping
from typing import Any

from kd_core.config.trust import Known
from kd_core.criteria.headless import without_head

from kd_reid import torchreid
from kd_reid.models import build_model, model_names


def _is_of_torchreid(found: Any, node: Mapping[str, Any]) -> bool:
    """Return whether it is one of torchreid's functions that build a network."""
    names = ("build_model", *model_names())
    return any(found is getattr(torchreid.models, name, None) for name in names)


def _leaves_head_out(found: Any, node: Mapping[str, Any]) -> bool:
    return found is without_head


KNOWN = (
    Known(("kd_core.criteria.headless.",), _leaves_head_out),
    Known(("kd_reid.models.",), lambda found, node: found is build_model),
    Known(("torchreid.models.",), _is_of_torchreid),
)
