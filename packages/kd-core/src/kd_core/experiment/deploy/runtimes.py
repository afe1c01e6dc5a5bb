"""Exported files as functions of images, run on the CPU."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from kd_core.errors import UserError

PYTORCH, ONNX = "PyTorch", "ONNX Runtime"

Outputs = Tensor | Sequence[Tensor]
Run = Callable[[Tensor], Outputs]
_FATAL_ALONE = 4  # errors come as exceptions too, which take one line


def require_onnx(package: str, instead: str) -> None:
    """Reject ONNX, before any work, where its packages are missing.

    Args:
        package: Whose extra `export` has them.
        instead: A format that needs neither.

    Raises:
        UserError: Names what to install.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"ONNX needs onnx and onnxruntime ({error}): pip install '{package}[export]', or ask "
            f"for --format {instead} alone"
        ) from error


def onnx_session(path: Path, threads: int | None = None) -> Callable[[Tensor], list[Tensor]]:
    """Return an ONNX file as a function of its input "image".

    Args:
        path: The file.
        threads: None leaves their number to onnxruntime.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ALONE
    if threads is not None:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Else its threads would wait busily, and slow what is measured in the next turn.
        options.add_session_config_entry("session.force_spinning_stop", "1")
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    return lambda image: list(map(torch.from_numpy, session.run(None, {"image": image.numpy()})))
