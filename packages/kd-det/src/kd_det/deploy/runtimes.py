"""Exported files as functions of an image, run on the CPU."""

import warnings
from pathlib import Path

import torch
from kd_core.errors import UserError
from kd_core.runtime.failures import first_line

from kd_det.deploy.traceable import Run

NAMES = {".ts": "TorchScript", ".onnx": "ONNX Runtime"}
EAGER = "PyTorch"


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


def require_onnx() -> None:
    """Reject ONNX, before any work, where its packages are missing.

    Raises:
        UserError: Names what to install.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"ONNX needs onnx and onnxruntime ({error}): pip install 'kd-det[export]', or ask for "
            "--format torchscript alone"
        ) from error


def _torchscript(file: Path, _: int | None) -> Run:
    import torchvision  # noqa: F401 - it has the operators for boxes

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        network = torch.jit.load(str(file), map_location="cpu").eval()
    return lambda image: network(image)


def _onnx(file: Path, threads: int | None) -> Run:
    require_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of shapes that depend on what is found
    if threads is not None:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Else its threads would wait busily, and slow what is measured in the next turn.
        options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda image: [torch.from_numpy(v) for v in session.run(None, {"image": image.numpy()})]
