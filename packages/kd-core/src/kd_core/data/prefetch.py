"""Copy batches to the device while the step before them still computes."""

from collections.abc import Callable

import torch
from torch import Tensor


def copier(device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return a function that copies host batches to a device; on the host it does nothing."""
    return SideStream(device) if device.type == "cuda" else lambda images: images.to(device)


class SideStream:
    """Copy pinned host batches to a GPU on a separate stream.

    A step only queues its work and reads nothing back, so the host asks for the next batch while
    the GPU still computes. On the step's own stream the copy would wait for that; here it runs at
    the same time. Its target is a fixed buffer, from which the step's stream copies its own tensor.
    That is fast, and batches do not pile up on the GPU however far the host runs ahead, as they
    would if each copy allocated its own memory.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)
        self._buffer = torch.empty(0)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the images on the device, for use on its current stream."""
        current = torch.cuda.current_stream(self.device)
        if self._buffer.shape[1:] != images.shape[1:] or len(self._buffer) < len(images):
            self._buffer = torch.empty_like(images, device=self.device)
            self._emptied = current.record_event()
        buffer = self._buffer[: len(images)]
        self.stream.wait_event(self._emptied)  # of the last batch, not of the step that uses it
        with torch.cuda.stream(self.stream):
            buffer.copy_(images, non_blocking=True)
        current.wait_stream(self.stream)
        images = buffer.clone()
        self._emptied = current.record_event()
        return images
