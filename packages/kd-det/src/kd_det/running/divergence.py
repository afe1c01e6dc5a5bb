"""A loss that is not finite, as one line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kd_core.errors import RunError

_NOT_FINITE = re.compile(r"'([^']+)': [\w.]*\(?(?:nan|-?inf)\b")


@contextmanager
def divergence_explained(trainer: Any) -> Iterator[None]:
    """Report which losses of Detectron2's trainer stopped being finite, and what can be done.

    Raises:
        RunError: Where Detectron2 raises FloatingPointError. No checkpoint was written since.
    """
    try:
        yield
    except FloatingPointError as error:
        names = ", ".join(_NOT_FINITE.findall(str(error))) or "their sum"
        solver = trainer.cfg.SOLVER
        raise RunError(
            f"iteration {trainer.iter}: losses are not finite ({names}); lower SOLVER.BASE_LR "
            f"({solver.BASE_LR:g}), raise SOLVER.WARMUP_ITERS ({solver.WARMUP_ITERS}) or set "
            "SOLVER.CLIP_GRADIENTS.ENABLED True, and start again from an earlier checkpoint"
        ) from error
