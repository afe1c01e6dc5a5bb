"""State in a detection checkpoint beside the student's weights."""

import math
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm
from kd_core.errors import UserError
from torch import Tensor, nn

from kd_det.distiller import DetectionDistiller

Numbers = dict[str, dict[str, float]]


class DistillerState:
    """State of a distiller beside the student: criteria and counter."""

    def __init__(self, distiller: DetectionDistiller) -> None:
        self.distiller = distiller

    def state_dict(self) -> dict[str, Any]:
        """Return criteria and counter."""
        return {"criteria": self.distiller.criteria.state_dict(), "steps": self.distiller.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load criteria and counter."""
        self.distiller.criteria.load_state_dict(state["criteria"])
        self.distiller.steps.copy_(state["steps"])


class RunSeed:
    """The SEED of a run; if it was not set, the drawn one is kept in checkpoints."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def state_dict(self) -> dict[str, int]:
        """Return the seed."""
        return {"seed": self.trainer.cfg.SEED}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Load the seed."""
        if type(state.get("seed")) is not int:
            raise UserError(f"the checkpoint's seed is {state!r:.80}; wanted an integer")
        self.trainer.cfg = with_options(self.trainer.cfg, "SEED", state["seed"])


def with_options(cfg: CfgNode, *options: Any) -> CfgNode:
    """Return a copy of a config with other KEY, VALUE pairs."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(list(options))
    cfg.freeze()
    return cfg


class ModelState:
    """State of a model that training changes, besides its weights.

    These are numbers that modules keep as plain attributes, such as RetinaNet's moving average
    `loss_normalizer`; with several processes also the buffers of the others, since each process
    has its own BatchNorm statistics.

    Args:
        model: Distiller or plain detector, before its first step.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.initial = numbers(model)
        self.others: list[dict[str, Any]] = []  # results of `own` in the other processes

    def own(self) -> dict[str, Any]:
        """Return the part of this process."""
        changed = {
            name: {key: value for key, value in found.items() if self._differs(name, key, value)}
            for name, found in numbers(self.model).items()
        }
        return {
            "numbers": {name: found for name, found in changed.items() if found},
            "buffers": {name: one.detach().cpu() for name, one in self._buffers().items()},
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the parts of all processes; buffers of the first are among the weights."""
        return {"processes": [{**self.own(), "buffers": {}}, *self.others]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the part of this process, or that of the first if there is none.

        Raises:
            UserError: If the state is not of this model.
        """
        try:
            parts, rank = state["processes"], comm.get_rank()
            part = parts[rank if rank < len(parts) else 0]
            modules, buffers = dict(self.model.named_modules()), self._buffers()
            for name, found in part["numbers"].items():
                for key, value in found.items():
                    _set_number(modules[name], key, value)
            for name, value in part["buffers"].items():
                buffers[name].copy_(value)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                "the checkpoint's state beside the weights does not fit this model "
                f"({error!r}): it is damaged, or of another model"
            ) from error

    def _differs(self, name: str, key: str, value: float) -> bool:
        return self.initial.get(name, {}).get(key) != value

    def _buffers(self) -> dict[str, Tensor]:
        parameters = {name for name, _ in self.model.named_parameters()}
        state = self.model.state_dict()
        return {name: one for name, one in state.items() if name not in parameters}


def numbers(model: nn.Module) -> Numbers:
    """Return the numbers that modules keep as plain attributes, by the module's name."""
    return {
        name: {key: value for key, value in vars(module).items() if _is_number(value)}
        for name, module in model.named_modules()
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _set_number(module: nn.Module, key: str, value: Any) -> None:
    """Set a number of a module, in place of a number or of nothing."""
    if not (_is_number(value) and math.isfinite(value) and _is_number(getattr(module, key, 0))):
        raise ValueError(f"{type(module).__name__}.{key} as {value!r:.80}")
    setattr(module, key, value)
