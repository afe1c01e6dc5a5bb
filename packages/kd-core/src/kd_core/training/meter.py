"""Running means of the losses on the device, and a flag for the first value that is not finite."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_core.errors import RunError, UserError
from kd_core.files.sound_weights import not_finite
from kd_core.runtime import distributed


class NonFiniteLossError(RunError):
    """A loss or a weight became NaN or infinite; the message names it and the step."""

    resumable = False


class LossMeter:
    """Accumulate named losses on their device; the host reads them only when asked.

    The first step at which each loss was not finite is kept in a device flag, so the step itself
    needs no check that would wait for the device.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._sums = torch.zeros(0)
        self._first_bad = torch.zeros(0)
        self._steps = torch.zeros(())

    def update(self, losses: dict[str, Tensor]) -> None:
        """Add one step's losses."""
        values = torch.stack([loss.detach() for loss in losses.values()]).double()
        if self.names != list(losses):
            self._start(list(losses), values)
        self._steps += 1
        self._sums += values
        bad_since = torch.where(values.isfinite(), math.inf, self._steps)
        torch.minimum(self._first_bad, bad_since, out=self._first_bad)

    def means(self, *, local: bool = False) -> dict[str, float]:
        """Return the means since the last reset, over all processes or of this one alone."""
        sums = torch.cat([self._sums, self._steps[None]])
        total = (sums if local else distributed.reduce_sum(sums)).tolist()
        return {name: s / max(total[-1], 1) for name, s in zip(self.names, total[:-1], strict=True)}

    def check(self, first_step: int) -> None:
        """Raise if a loss was not finite in any process.

        Args:
            first_step: Number, in the whole run, of the first step since the last reset.
        """
        if not self.names:
            return
        since = dict(zip(self.names, distributed.reduce_min(self._first_bad).tolist(), strict=True))
        first = min(since.values())
        if first < math.inf:
            names = ", ".join(repr(name) for name, step in since.items() if step == first)
            raise NonFiniteLossError(
                f"loss {names} is not finite since step {first_step + int(first) - 1}; nothing was "
                "saved after it. A lower learning rate, a warm-up or trainer.clip_norm may help"
            )

    def reset(self) -> None:
        """Start again, in the same memory."""
        self._sums.zero_()
        self._steps.zero_()
        self._first_bad.fill_(math.inf)

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which a resumed run reports the same means."""
        return {"names": self.names, "sums": self._sums, "bad": self._first_bad, "n": self._steps}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what `state_dict` returned."""
        self.names = list(state["names"])
        self._sums, self._first_bad, self._steps = (
            state[key].to(device, copy=True) for key in ("sums", "bad", "n")
        )

    def _start(self, names: list[str], like: Tensor) -> None:
        if self.names:
            raise UserError(f"the losses changed their names from {self.names} to {names}")
        self.names = names
        self._sums, self._steps = torch.zeros_like(like), like.new_zeros(())
        self._first_bad = torch.full_like(like, math.inf)


def check_weights(module: nn.Module, step: int, *, unbounded: Collection[str] = ()) -> None:
    """Raise if a parameter or a buffer is not finite after a step, in any process.

    A finite loss can have a gradient that is not finite (a root at 0). The next loss would show it,
    but a checkpoint may be written before. No loss shows an overflow of a running variance: in
    training, BatchNorm uses the variance of the batch.

    Args:
        module: The trained module.
        step: Number of the step, for the message.
        unbounded: Names of buffers that need not be finite, because they never were.
    """
    weights, buffers = not_finite(module)
    buffers = [name for name in buffers if name not in unbounded]
    found = torch.tensor([float(not weights), float(not buffers)], device=_device(module))
    weights_fine, buffers_fine = distributed.reduce_min(found).tolist()
    if not weights_fine:
        raise NonFiniteLossError(
            f"parameter {_named(weights)} is not finite after step {step}. The losses were, so "
            "a gradient was not: look for a root or a division by 0 in the last term added; or "
            "lower the learning rate. Nothing was saved"
        )
    if not buffers_fine:
        raise NonFiniteLossError(
            f"buffer {_named(buffers)} is not finite after step {step}. The losses were, but "
            "BatchNorm's running statistics are not: activations grew too large; lower the "
            "learning rate, or use trainer.clip_norm. Nothing was saved"
        )


def _named(names: Sequence[str]) -> str:
    """Return the first of some names, and the number of the others."""
    if not names:
        return "of another process"
    return f"{names[0]!r}" + (f" (and {len(names) - 1} more)" if names[1:] else "")


def _device(module: nn.Module) -> torch.device:
    return next(iter([*module.parameters(), *module.buffers()])).device
