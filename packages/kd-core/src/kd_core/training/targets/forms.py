"""How the values of a teacher's tap become rows of a file, and come back."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

from kd_core.criteria.topk_labels import largest, spread
from kd_core.errors import UserError

_UINT16_CLASSES = 2**16
_LEAST = 1e-12  # of a probability, so that its logarithm is finite


class Form(ABC):
    """A row for every image, of `width` numbers of 16 bits; the views of an image share a row."""

    width: int

    @abstractmethod
    def encode(self, value: Tensor) -> np.ndarray:
        """Return the rows, float16 [N, width], of a tap's values [V * N, ...], view-major.

        Raises:
            UserError: If a value is not finite, or too large for float16.
        """

    @abstractmethod
    def decode(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """Return the values, float32 [V * N, ...] on a device."""

    @abstractmethod
    def kept_and_new(self, rows: np.ndarray, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return kept numbers and, in the same form, those of a tap's values [V * N, ...]."""

    @abstractmethod
    def described(self) -> dict[str, str]:
        """Return what a store of this form depends on, beside its pixels and its teacher."""


class Whole(Form):
    """All numbers of a tap: logits, vectors, tokens or maps.

    Args:
        shape: Of the values for one image.
        views: Images of one sample in a batch.
    """

    def __init__(self, shape: Sequence[int], views: int = 1) -> None:
        self.shape, self.views, self.width = tuple(shape), views, views * prod(shape)

    def encode(self, value: Tensor) -> np.ndarray:
        """Round to float16."""
        return _rows(_finite(value.half()), self.views).numpy()

    def decode(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """Return the rounded values."""
        values = torch.from_numpy(rows).to(device, non_blocking=True).float()
        return _view_major(values, self.views).reshape(-1, *self.shape)

    def kept_and_new(self, rows: np.ndarray, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values themselves."""
        return self.decode(rows, value.device), value.float()

    def described(self) -> dict[str, str]:
        """Return shape and number of views."""
        return {"shape": str(list(self.shape)), "views": str(self.views), "topk": "off"}


class TopK(Form):
    """The k largest probabilities of logits, in float16, and their classes.

    What comes back is temperature * log of the labels that `spread` makes of them: the softmax of
    it, at this temperature, is the top-k label, and its k largest probabilities are the same.

    Args:
        num_classes: C.
        k: How many are kept; the number of classes at most.
        temperature: Divides the logits.
        views: Images of one sample in a batch.
    """

    def __init__(self, num_classes: int, k: int, temperature: float, views: int = 1) -> None:
        self.num_classes, self.k = num_classes, min(k, num_classes)
        self.temperature, self.views = temperature, views
        self.index = np.uint16 if num_classes <= _UINT16_CLASSES else np.int32
        self.width = views * topk_width(self.k, num_classes)

    def encode(self, value: Tensor) -> np.ndarray:
        """Return the bits of the classes, then the probabilities, view after view."""
        index, probability = largest(_finite(value), k=self.k, temperature=self.temperature)
        classes = _rows(index, self.views).numpy().astype(self.index)
        values = _rows(probability.half(), self.views).numpy()
        return np.concatenate([classes.view(np.float16), values], axis=1)

    def decode(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """Return temperature * log of the spread labels, float32 [V * N, C]."""
        index, value = self._pairs(rows, device)
        labels = spread(index, value, num_classes=self.num_classes)
        return labels.clamp(min=_LEAST).log() * self.temperature

    def kept_and_new(self, rows: np.ndarray, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities of the classes that were kept."""
        index, kept = self._pairs(rows, value.device)
        return kept, (value.float() / self.temperature).softmax(1).gather(1, index)

    def described(self) -> dict[str, str]:
        """Return number of classes and views, k and temperature."""
        return {
            "shape": str([self.num_classes]),
            "views": str(self.views),
            "topk": str(self.k),
            "temperature": f"{self.temperature:g}",
        }

    def _pairs(self, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return classes, int64 [V * N, k], and probabilities, float32 [V * N, k]."""
        bits, values = np.split(rows, [rows.shape[1] - self.views * self.k], axis=1)
        classes = np.ascontiguousarray(bits).view(self.index).astype(np.int64)
        index, value = (
            _view_major(torch.from_numpy(part).to(device, non_blocking=True), self.views)
            for part in (classes, np.ascontiguousarray(values))
        )
        return index, value.float()


def topk_width(k: int, num_classes: int) -> int:
    """Return the numbers of 16 bits that the top k of so many classes take for one image.

    A class takes 16 bits, 32 where there are more than 65,536; a probability takes 16.
    """
    return k * (2 if num_classes <= _UINT16_CLASSES else 3)


def _finite(value: Tensor) -> Tensor:
    if not value.isfinite().all():
        raise UserError("gives values that float16 cannot hold; leave trainer.teacher_cache out")
    return value


def _rows(value: Tensor, views: int) -> Tensor:
    """Return [N, V * numbers] of [V * N, ...], on the host."""
    by_view = value.detach().flatten(1).unflatten(0, (views, -1))
    return by_view.transpose(0, 1).flatten(1).contiguous().cpu()


def _view_major(rows: Tensor, views: int) -> Tensor:
    """Return [V * N, numbers] of [N, V * numbers]."""
    return rows.unflatten(1, (views, -1)).transpose(0, 1).flatten(0, 1)
