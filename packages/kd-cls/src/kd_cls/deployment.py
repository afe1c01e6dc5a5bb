"""A finished student's files as they are deployed: their sizes, and how fast they are."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kd_core.errors import UserError
from kd_core.experiment.tables.latencies import measure_and_show
from kd_core.files.artifacts import find_student
from kd_core.files.checkpoint import save_json
from kd_core.networks.latency import Plan, Timed
from kd_core.runtime.console import err, out

from kd_cls.exporting import Exported, export, onnx_session
from kd_cls.student import load_student, read_facts

PYTORCH, ONNX = "PyTorch", "ONNX Runtime"
FILE = "export.json"


def export_all(
    student: str,
    kinds: Iterable[str],
    output: str | None = None,
    *,
    with_normalization: bool,
    plan: Plan | None,
) -> None:
    """Export a student as files of several kinds; print sizes and latencies.

    The numbers are written to `export.json` beside the files too.

    Args:
        student: Folder of a finished run, or its `student.safetensors`.
        kinds: `onnx` or `pt2`, or both.
        output: Folder of the files; None is that of the student.
        with_normalization: See `export`.
        plan: How latencies are measured; None measures none.
    """
    file = find_student(student)
    folder = Path(output) if output else file.parent
    files: dict[str, Any] = {}
    for kind in dict.fromkeys(kinds):
        path = folder / f"student.{kind}"
        done = export(file, path, with_normalization=with_normalization)
        size = path.stat().st_size
        out.print(
            f"{path}: {size / 1e6:.2f} MB; logits differ from PyTorch's by "
            f"{done.difference:.1e} at most, the largest being {done.largest:.1e}"
        )
        files[path.name] = {"bytes": size, **done._asdict()}
    found: dict[str, Any] = {"files": files, "with_normalization": with_normalization}
    if plan is not None:
        timed = {PYTORCH: _in_pytorch(file, with_normalization=with_normalization)}
        if "student.onnx" in files:
            timed[ONNX] = _in_onnx(file, folder / "student.onnx", plan.thread_count)
        found["latency"] = measure_and_show(timed, plan)
    save_json(found, folder / FILE, sealed=False)
    out.print(f"{folder / FILE}: these numbers")


def deployed(folder: Path, threads: int) -> dict[str, Timed]:
    """Return a finished student by what runs it: PyTorch and, where it can, ONNX Runtime.

    Args:
        folder: Of a finished run.
        threads: Of ONNX Runtime.
    """
    file = find_student(folder)
    found = {PYTORCH: _in_pytorch(file)}
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "student.onnx"
        try:
            export(file, path)
            found[ONNX] = _in_onnx(file, path, threads)
        except UserError as error:
            err.print(f"latency: {folder} is without {ONNX}: {error}")
    return found


def _in_pytorch(file: Path, *, with_normalization: bool = False) -> Timed:
    classifier = load_student(file)
    network = Exported(classifier, with_normalization=with_normalization).eval()
    return Timed(network, _shape(file))


def _in_onnx(file: Path, path: Path, threads: int) -> Timed:
    return Timed(onnx_session(path, threads), _shape(file))


def _shape(file: Path) -> tuple[int, int, int]:
    """Return channels, height and width of a student's images."""
    facts = read_facts(file)
    size = facts["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return len(facts["mean"]), height, width
