"""How the tensors of a file differ from those of a network, in names and shapes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

COUNTER = "num_batches_tracked"
"""Of a BatchNorm; old files lack it, and PyTorch then counts from 0."""

_LONGEST = 200  # letters of a name in a message


class Mismatch(NamedTuple):
    """Names that differ; as text, how they do in one line: "" if a file fits."""

    missing: Sequence[str]  # only the network has them
    unexpected: Sequence[str]  # only the file has them
    reshaped: Mapping[str, str]  # both have them; says both shapes

    @classmethod
    def between(cls, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> "Mismatch":
        """Compare the tensors of a file with those of a network, each by name."""
        both = [name for name in own if name in state]
        return cls(
            [name for name in own if name not in state and not name.endswith(COUNTER)],
            [name for name in state if name not in own],
            {
                name: f"{name} is {list(state[name].shape)} in the file, "
                f"{list(own[name].shape)} in the network"
                for name in both
                if state[name].shape != own[name].shape
            },
        )

    def __str__(self) -> str:
        wrong = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of another shape": list(self.reshaped.values()),
        }
        listed = [f"{len(names)} {what} ({few(names)})" for what, names in wrong.items() if names]
        return ", ".join(listed)


def few(names: Sequence[str], most: int = 3) -> str:
    """Return the first of some names, and a sign if there are more; in one line, of any file."""
    shown = [name if name.isprintable() else repr(name) for name in names[:most]]
    cut = [name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..." for name in shown]
    return ", ".join(cut) + (", ..." if len(names) > most else "")
