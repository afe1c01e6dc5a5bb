"""How much of a run is done: for criteria that ask, and for weights that change over it."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from kd_core.distill.term import Term
from kd_core.networks.task import Batch
from kd_core.runtime.console import err


class Position(NamedTuple):
    """Where a run is.

    Attributes:
        steps: Optimizer steps that are done.
        steps_per_epoch: 0 if nobody has said.
        epochs: Of the whole run; None if nobody has said.
        seed: Of the run.
    """

    steps: Tensor
    steps_per_epoch: int
    epochs: int | None
    seed: int


def with_progress(batch: Batch, position: Position) -> Batch:
    """Return the batch with `epoch` and `progress`, as far as they are known."""
    steps, steps_per_epoch, epochs, _ = position
    if not steps_per_epoch:
        return batch
    batch = {**batch, "epoch": steps / steps_per_epoch}
    if epochs is not None:
        batch["progress"] = (steps / max(epochs * steps_per_epoch - 1, 1)).clamp(max=1)
    return batch


def note_schedules(terms: Mapping[str, Term], length: int, unit: str = "epochs") -> None:
    """Print which terms do not reach their weight, or its fall, in a run of this length."""
    for name, term in terms.items():
        if term.warmup_epochs > length:
            share = length / term.warmup_epochs
            err.print(
                f"term {name!r}: its warm-up of {term.warmup_epochs:g} {unit} is longer than the "
                f"run of {length}, so it ends at {share:.0%} of its weight; shorten the warm-up, "
                "or train longer"
            )
        if term.decay_after is not None and term.decay_after >= length:
            err.print(
                f"term {name!r}: its weight is to fall after {term.decay_after:g} {unit}, which a "
                f"run of {length} does not reach; set a smaller decay_after, or None to keep it"
            )
