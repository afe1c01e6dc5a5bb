"""The short names of the configs of re-identification; nothing here imports torch."""

import importlib.util
import re
from functools import cache
from pathlib import Path

from kd_core.catalogue.names import Catalogue

_ENTRY = re.compile(r"^    '(\w+)': ", re.MULTILINE)


@cache
def _of_torchreid() -> dict[str, str]:
    """Return the networks that torchreid's source lists; none where it is not found."""
    spec = importlib.util.find_spec("torchreid")
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    lists = [path for place in places for path in place.glob("**/models/__init__.py")]
    names = [name for path in lists for name in _ENTRY.findall(path.read_text(encoding="utf-8"))]
    return {name: f"{name} of torchreid" for name in names}


def _recipe(network: str) -> str:
    """Return torchreid's recipe of a network."""
    return "osnet" if network.startswith("osnet") else "resnet50"


CATALOGUE = Catalogue(
    "reid",
    zoo=_of_torchreid,
    zoo_node={"type": "kd_reid.models.build_model", "pretrained": True},
    recipe=_recipe,
    of_folder="people TEACHER,STUDENT METHOD --cfg-options data.source={}, or crops and data.root "
    "where nobody is named",
)
