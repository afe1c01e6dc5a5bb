"""LossScale: keeps the gradients of fp16 in its range, without reading the device."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from kd_core.errors import UserError
from kd_core.training.meter import NonFiniteLossError

GROWTH, BACKOFF, INTERVAL = 2.0, 0.5, 2000  # as torch.amp.GradScaler
SMALLEST = 2.0**-10
_STATE = ("factor", "good_steps", "skipped")


class LossScale:
    """Multiplies the loss before the backward pass, and divides the gradients after it.

    fp16 holds nothing above 65504 and little below 6e-8. A step whose gradients are not finite is
    skipped and halves the scale; 2000 steps without one double it. The rule and its numbers are
    those of `torch.amp.GradScaler`, whose kernels are used. What was found stays on the device: an
    optimizer with a fused form skips the step there; for any other the host reads it.

    Args:
        device: That of the parameters.
    """

    def __init__(self, device: torch.device) -> None:
        self.factor = torch.full((), 2.0**16, device=device)
        self.good_steps = torch.zeros((), dtype=torch.int32, device=device)  # since the last change
        self.skipped = torch.zeros((), device=device)

    def unscale(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """Divide gradients in place; return 1.0 on the device if one is not finite, else 0.0."""
        found = torch.zeros_like(self.factor)
        inverse = self.factor.double().reciprocal().float()
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for gradient in gradients:
            if gradient is not None:
                by_type.setdefault(gradient.dtype, []).append(gradient)
        for alike in by_type.values():
            torch._amp_foreach_non_finite_check_and_unscale_(alike, found, inverse)
        return found

    def step(self, optimizer: Optimizer, found: Tensor) -> None:
        """Let an optimizer take its step with unscaled gradients, unless something was found."""
        if not skips_on_device(optimizer):
            if not found.item():
                optimizer.step()
            return
        _begin_momenta(optimizer)
        fused: Any = optimizer
        fused.grad_scale, fused.found_inf = None, found
        try:
            optimizer.step()
        finally:
            del fused.grad_scale, fused.found_inf

    def update(self, found: Tensor) -> None:
        """Bring the scale to the next step."""
        self.skipped += found
        torch._amp_update_scale_(self.factor, self.good_steps, found, GROWTH, BACKOFF, INTERVAL)

    def check(self, step: int) -> None:
        """Raise if no scale has helped, so that nothing is learned; waits for the device.

        Args:
            step: Number of the step, for the message.
        """
        if self.factor.item() < SMALLEST:
            raise NonFiniteLossError(
                f"precision=fp16: gradients are not finite in step {step} and before, whatever "
                "the loss is scaled by, so no step was taken. Look for a root or a division by 0 "
                "in the last term added; or set trainer.precision=fp32. Nothing was saved"
            )

    def record(self) -> dict[str, float]:
        """Return what the log shows of it; waits for the device."""
        return {"loss_scale": self.factor.item(), "skipped_steps": int(self.skipped.item())}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state that a resumed run needs."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in the same memory."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])


def require_scale(step: object, precision: str) -> None:
    """Reject a training step of a user that would lose the gradients of fp16.

    Raises:
        UserError: If it scales no loss.
    """
    if precision == "fp16" and getattr(step, "loss_scale", None) is None:
        raise UserError(
            f"trainer.step: {type(step).__name__} has no `loss_scale` (a `LossScale`), without "
            "which small gradients of fp16 are 0; set trainer.precision to bf16 or fp32"
        )


def skips_on_device(optimizer: Optimizer) -> bool:
    """Return whether an optimizer can skip its step without telling the host."""
    damped = isinstance(optimizer, SGD) and any(g["dampening"] for g in optimizer.param_groups)
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False)) and not damped


def is_state(value: Any) -> bool:
    """Return whether a value read from a file can be the state of a `LossScale`."""
    if not isinstance(value, Mapping) or set(value) != set(_STATE):
        return False
    tensors = list(value.values())
    if not all(isinstance(t, Tensor) and t.numel() == 1 and not t.is_sparse for t in tensors):
        return False
    factor, *counts = (float(value[name]) for name in _STATE)
    return 0 < factor < math.inf and all(0 <= count < math.inf for count in counts)


def _begin_momenta(optimizer: Optimizer) -> None:
    """Begin the momenta of fused SGD at 0; its first step, if skipped, would leave any values."""
    if not isinstance(optimizer, SGD):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            if optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
