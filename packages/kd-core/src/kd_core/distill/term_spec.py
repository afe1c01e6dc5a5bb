"""A term as a config has it."""

from dataclasses import dataclass
from typing import Any

from kd_core.config.node import Node
from kd_core.criteria.criterion import Criterion
from kd_core.errors import UserError


@dataclass(frozen=True)
class TermSpec:
    """A term as a config has it, checked.

    Args:
        call: Of `Term`; the criterion in it is a node.
        has_weights: Whether the config says `weights` of the criterion, if only that they are yet
            to be made.
        weights: File of them: of the whole criterion or of some of its submodules.
        sources: Several teachers; see `kd_core.distill.sources`.
    """

    call: Node
    has_weights: bool = False
    weights: str | None = None
    sources: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return the term as it was written."""
        weights = {"weights": self.weights} if self.has_weights else {}
        sources = {"source": list(self.sources)} if self.sources else {}
        return {**self.call.plain(), **sources, **weights}


def require_criterion(criterion: Any) -> None:
    """Reject what a term cannot call.

    Raises:
        UserError: If it is not a criterion, or its constructor has left out that of its parent.
    """
    name = type(criterion).__name__
    if not isinstance(criterion, Criterion):
        raise UserError(
            f"criterion is a {name}; a term needs a Criterion, which is called with "
            "(student, teacher, batch)"
        )
    if "_modules" not in vars(criterion):
        raise UserError(
            f"criterion {name} is not a module yet; let its __init__ begin with super().__init__()"
        )
