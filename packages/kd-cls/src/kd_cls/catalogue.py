"""The short names of the configs of classification; nothing here imports torch."""

import re
from functools import cache
from pathlib import Path

from kd_core.catalogue.names import Catalogue

_BUILDER = re.compile(r"^def (\w+)\(num_classes: int = (\d+)", re.MULTILINE)
_MADE_FOR = {"100": "small images", "200": "images of 64 pixels", "1000": "images of 224 pixels"}


@cache
def _zoo() -> dict[str, str]:
    """Return the networks of the zoo, as the types for editors have them."""
    stub = Path(__file__).parent / "models" / "__init__.pyi"
    found = _BUILDER.findall(stub.read_text(encoding="utf-8"))
    return {name: f"{name} of the zoo, for {_MADE_FOR[count]}" for name, count in found}


CATALOGUE = Catalogue(
    "cls",
    zoo=_zoo,
    zoo_node={"type": "kd_cls.models.build_model"},
    library="torchvision_",
    library_model={"new_head": True},
    untrained_on=("imagenet", "unlabelled"),
    of_folder="image_folder TEACHER,STUDENT METHOD --cfg-options data.root={}, or unlabelled in "
    "place of image_folder where images have no class",
)
