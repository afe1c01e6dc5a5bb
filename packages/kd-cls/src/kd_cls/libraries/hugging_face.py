"""Image classifiers of Hugging Face's transformers, by the name of a repository or a folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_core.errors import UserError
from kd_core.runtime.console import err
from torch import nn

_NOT_SETTINGS = (
    *("_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype"),
    *("id2label", "label2id"),
)
"""Entries of a config that do not shape the network."""


def image_classifier(
    name: str, pretrained: bool = False, num_classes: int | None = None, **settings: Any
) -> nn.Module:
    """Return a classifier of transformers.

    Args:
        name: ORG/NAME on the Hugging Face Hub, or a folder.
        pretrained: Load its weights; else they are random.
        num_classes: Number of labels; None takes those of the repository.
        settings: Of its config, in the place of what the repository says.
    """
    auto = _library()
    config = auto.AutoConfig.from_pretrained(name, trust_remote_code=False, **settings)
    if num_classes is not None:
        config.num_labels = num_classes
    make = auto.AutoModelForImageClassification
    if not pretrained:
        built: Any = make.from_config(config)
    else:
        built = make.from_pretrained(name, config=config, trust_remote_code=False)
        built.pretrained_cfg = _statistics(name)
    network: nn.Module = built
    return network


def from_settings(settings: Mapping[str, Any], num_classes: int | None = None) -> nn.Module:
    """Return a classifier with random weights from the settings in a finished student's file."""
    auto = _library()
    config = auto.AutoConfig.for_model(**settings)
    if num_classes is not None:
        config.num_labels = num_classes
    network: nn.Module = auto.AutoModelForImageClassification.from_config(config)
    return network


def settings_of(network: Any) -> dict[str, Any]:
    """Return the settings from which `from_settings` builds a network again."""
    settings = network.config.to_diff_dict()
    kept = {key: value for key, value in settings.items() if key not in _NOT_SETTINGS}
    return {**kept, "model_type": network.config.model_type}


def is_of_transformers(description: Mapping[str, Any]) -> bool:
    """Return whether a repository's config.json is of transformers, not of timm."""
    return "architecture" not in description and "model_type" in description


def require_library(where: str) -> None:
    """Reject a network of transformers where that is not installed.

    Raises:
        UserError: If it is not.
    """
    try:
        _library()
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            "this is a network of Hugging Face's transformers, which cannot be imported "
            f"({error}); install it: pip install transformers"
        ) from error
    return transformers


def _statistics(name: str) -> dict[str, Any] | None:
    """Return mean and std of the images that a pretrained network was trained with."""
    from huggingface_hub import hf_hub_download

    file = Path(name) / "preprocessor_config.json"
    try:
        path = file if file.parent.is_dir() else hf_hub_download(name, file.name)
        facts = json.loads(Path(path).read_text(encoding="utf-8"))
        return {"mean": facts["image_mean"], "std": facts["image_std"]}
    except (OSError, ValueError, KeyError) as error:
        err.print(
            f"{name}: its {file.name} is not there or does not name mean and std "
            f"({type(error).__name__}); those of the data are used, or set `mean` and `std`"
        )
        return None
