"""What a criterion must not read of a batch: labels that are not there, or not of its kind."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kd_core.errors import UserError

_MIXED = (
    "needs one {key} for every image, but these are mixed from several; use a method that takes no "
    "labels (KD, SL), or leave the mixing out"
)
_MULTI_LABEL = (
    "{what}, but these labels are [N, C], several classes an image; use kd_core.criteria.l2d (MLD, "
    "L2D), whose logits are those of a sigmoid, or a criterion on maps or vectors, such as FitNet"
)


def guarded(criterion: Any, batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a batch that refuses, in one line, what this criterion must not read of it.

    Args:
        criterion: What it takes and its `multi_label` count.
        batch: Anything.

    Raises:
        UserError: If it takes logits as those of a softmax, and the labels are [N, C].
    """
    name, refused = type(criterion).__name__, dict[str, str]()
    if is_multi_label(batch) and not criterion.multi_label:
        if criterion.takes_logits():
            what = "takes the logits as those of one class an image (softmax)"
            raise UserError(f"{name} {_MULTI_LABEL.format(what=what)}")
        refused["label"] = _MULTI_LABEL.format(what="reads one label an image")
    if is_mixed(batch):
        refused |= {key: _MIXED.format(key=key) for key in ("label", "index")}
    if refused or "label" not in batch or "index" not in batch:
        return _Guarded(name, batch, refused)
    return batch


def is_multi_label(batch: Mapping[str, Any]) -> bool:
    """Return whether the labels are [N, C]: any number of classes for each image."""
    label = batch.get("label")
    return isinstance(label, Tensor) and label.dim() == 2


def is_mixed(batch: Mapping[str, Any]) -> bool:
    """Return whether every image is mixed from several, with or without labels."""
    return "mixed_labels" in batch or "mixed_weights" in batch


class _Guarded(dict[str, Any]):
    """A batch without some entries, for one reader."""

    def __init__(self, reader: str, batch: Mapping[str, Any], refused: Mapping[str, str]) -> None:
        super().__init__(batch)
        self.reader, self.refused = reader, refused

    def __getitem__(self, key: str) -> Any:
        if key in self.refused:
            raise UserError(f"{self.reader} {self.refused[key]}")
        if key not in self:
            raise UserError(
                f"{self.reader} reads {key!r}, which the batch lacks (it has {', '.join(self)}); "
                "add it, or use a criterion that does not need it"
            )
        return super().__getitem__(key)
