"""A finished student's files as they are deployed: their sizes, and how fast they are."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from kd_core.errors import UserError
from kd_core.experiment.deploy.exporting import export
from kd_core.experiment.deploy.figures import require_formats, write_files
from kd_core.experiment.deploy.runtimes import ONNX, PYTORCH, onnx_session
from kd_core.files.artifacts import find_student
from kd_core.networks.latency import Plan, Timed
from kd_core.runtime.console import err

from kd_cls.exporting import PACKAGE, Exported, exportable
from kd_cls.student import load_student, read_facts

_SAID = ("with_normalization", "classes", "image_size", "resize", "range", "mean", "std")


def export_all(
    student: str,
    kinds: Sequence[str],
    output: str | None = None,
    *,
    with_normalization: bool,
    plan: Plan | None,
) -> None:
    """Export a student as files of several kinds; see `write_files`.

    Args:
        student: Folder of a finished run, or its `student.safetensors`.
        kinds: `onnx` or `pt2`, or both.
        output: Folder of the files; None is that of the student.
        with_normalization: See `exportable`.
        plan: How latencies are measured; None measures none.
    """
    require_formats(kinds, PACKAGE)
    file = find_student(student)
    what = exportable(file, with_normalization=with_normalization)
    folder = Path(output) if output else file.parent
    said = {name: what.facts[name] for name in _SAID if name in what.facts}
    write_files(what, kinds, folder, plan=plan, said=said)


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
            require_formats(["onnx"], PACKAGE)
            what = exportable(file)
            export(what, path)
            found[ONNX] = Timed(onnx_session(path, threads), what.shape)
        except UserError as error:
            err.print(f"latency: {folder} is without {ONNX}: {error}")
    return found


def _in_pytorch(file: Path) -> Timed:
    facts = read_facts(file)
    size = facts["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    network = Exported(load_student(file), with_normalization=False).eval()
    return Timed(network, (len(facts["mean"]), height, width))
