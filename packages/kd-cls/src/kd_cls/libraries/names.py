"""The node of a network in a finished student's file, which needs no download."""

from collections.abc import Mapping
from typing import Any

from kd_core.errors import UserError
from torch import nn

from kd_cls.libraries.hugging_face import image_classifier, settings_of
from kd_cls.libraries.timm_names import is_of_timm
from kd_cls.models.with_head import WithHead

_OF_HUB = "kd_cls.libraries.hugging_face.image_classifier"
_FROM_SETTINGS = "kd_cls.libraries.hugging_face.from_settings"
_OF_SOURCE = ("model_name", "pretrained", "num_classes", "cache_dir")


def exported_node(node: Mapping[str, Any], network: nn.Module) -> dict[str, Any]:
    """Return the node from which a network can be built again, whatever was fetched for it.

    A head that was added is in it. A model of timm that a hub or a folder described is named by
    its architecture and arguments.

    Args:
        node: As it was written.
        network: What was built from it, and fitted to the data.

    Raises:
        UserError: If the description was not kept.
    """
    if isinstance(network, WithHead):
        return {
            "type": "kd_cls.models.with_head.WithHead",
            "backbone": exported_node(node, network.backbone),
            "in_features": network.head.in_features,
            "num_classes": network.head.out_features,
            "output": network.output,
        }
    if node.get("type") in (image_classifier, _OF_HUB):
        return {"type": _FROM_SETTINGS, "settings": settings_of(network)}
    if not is_of_timm(node):
        return dict(node)
    kept = {**node}
    if "num_classes" in node:  # 0, or other classes than the new head has
        kept["num_classes"] = getattr(network, "num_classes", node["num_classes"])
    name = str(node.get("model_name"))
    if ":" not in name:
        return kept
    facts = getattr(network, "pretrained_cfg", None) or {}
    arguments = getattr(network, "_model_args", None)
    if arguments is None or not facts.get("architecture"):
        raise UserError(
            f"{name}: this timm does not keep a model's arguments; take 1.0.23 or later"
        )
    own = {key: value for key, value in node.items() if key not in _OF_SOURCE}
    of_source = {key: value for key, value in arguments.items() if key not in _OF_SOURCE}
    return {**of_source, **own, "type": node["type"], "model_name": facts["architecture"]}
