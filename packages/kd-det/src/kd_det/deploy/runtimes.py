"""Exported files as functions of an image, run on the CPU."""

import warnings
from pathlib import Path

import torch
from kd_core.errors import UserError
from kd_core.experiment.deploy.runtimes import ONNX, PYTORCH, onnx_session, require_onnx
from kd_core.runtime.failures import first_line

from kd_det.deploy.traceable import Run

NAMES = {".ts": "TorchScript", ".onnx": ONNX}
EAGER = PYTORCH
PACKAGE = "kd-det"


def load_runtime(file: Path, kind: str, threads: int | None = None) -> Run:
    """Return an exported file as a function of an image.

    Args:
        file: The file.
        kind: How its name ends, or would: `.ts` or `.onnx`.
        threads: Of ONNX Runtime; None leaves their number to it. TorchScript has PyTorch's.

    Raises:
        UserError: If it cannot be read, or its runtime is missing.
    """
    try:
        return {".ts": _torchscript, ".onnx": _onnx}[kind](file, threads)
    except UserError:
        raise
    except Exception as error:  # runtimes raise many types
        raise UserError(
            f"{file}: {NAMES[kind]} cannot load it ({first_line(error)}); export it again"
        ) from error


def _torchscript(file: Path, _: int | None) -> Run:
    import torchvision  # noqa: F401 - it has the operators for boxes

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        network = torch.jit.load(str(file), map_location="cpu").eval()
    return lambda image: network(image)


def _onnx(file: Path, threads: int | None) -> Run:
    require_onnx(PACKAGE, "torchscript")
    return onnx_session(file, threads)
