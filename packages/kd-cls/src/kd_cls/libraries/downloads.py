"""Which networks download pretrained weights, and from where."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_core.experiment.models import is_pretrained, weights_file

from kd_cls.libraries.hub import reach
from kd_cls.libraries.timm_names import is_of_timm


def loads_pretrained(network: Mapping[str, Any], weights: str | None) -> bool:
    """Return whether a network is built with its library's weights, where its node asks for them.

    A file has every weight of a network of timm, so none is downloaded only to be overwritten.
    torchvision builds some networks otherwise without their weights, and transformers' say mean
    and std: these are loaded first.
    """
    file = weights_file(weights)
    return not weights if file is None else not is_of_timm(network)


def require_hub(network: Mapping[str, Any]) -> None:
    """Ask the Hub once where a network's weights would come from it.

    Its library tries six times each file, for half a minute.

    Raises:
        Exception: See `reach`.
    """
    repository = _repository(network) if is_pretrained(network) else None
    if repository:
        reach(repository, network.get("cache_dir"))


def _repository(network: Mapping[str, Any]) -> str | None:
    """Return the repository of a network's weights; None if they come from elsewhere."""
    if not is_of_timm(network):
        name = str(network.get("name"))
        of_hub = str(network.get("type")) == "kd_cls.libraries.hugging_face.image_classifier"
        return name if of_hub and not Path(name).is_dir() else None
    import timm

    source, _, name = str(network.get("model_name")).rpartition(":")
    if source:
        return name if source == "hf-hub" else None
    settings = timm.get_pretrained_cfg(name, allow_unregistered=True)
    own = None if settings is None else settings.state_dict or settings.file
    return None if settings is None or own else settings.hf_hub_id
