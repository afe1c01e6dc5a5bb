"""Measure a model before and after adaptation."""

from collections.abc import Callable
from dataclasses import dataclass, field

from kd_core.runtime.seed import rng_state, set_rng_state
from kd_core.training.hooks import Evaluate
from torch import nn

_SHOWN = ("rank1", "mAP")


@dataclass
class BeforeAndAfter:
    """Returns a model's metrics, and as `source_rank1`, `source_mAP` those before the adaptation.

    Args:
        evaluate: Measures a model.
        build_source: Builds the model that the adaptation started from.
    """

    evaluate: Evaluate
    build_source: Callable[[], nn.Module]
    _source: dict[str, float] = field(default_factory=dict, init=False)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Measure a model; the source only once."""
        if not self._source:
            state = rng_state()  # a resumed run must not draw additional random numbers
            source = self.build_source().to(next(model.parameters()).device).eval()
            set_rng_state(state)
            found = self.evaluate(source)
            self._source = {f"source_{name}": found[name] for name in _SHOWN}
        return {**self.evaluate(model), **self._source}
