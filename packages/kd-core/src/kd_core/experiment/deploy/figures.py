"""Networks written as files of several kinds: their sizes, and how fast they are."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kd_core.experiment.deploy.description import describe
from kd_core.experiment.deploy.exporting import Exportable, export, plural
from kd_core.experiment.deploy.runtimes import ONNX, PYTORCH, onnx_session, require_onnx
from kd_core.experiment.tables.latencies import measure_and_show
from kd_core.files.checkpoint import save_json
from kd_core.networks.latency import Plan, Timed
from kd_core.runtime.console import out

_NAME = "student"


def require_formats(kinds: Iterable[str], package: str) -> None:
    """Reject formats whose packages are missing, before any work."""
    if "onnx" in kinds:
        require_onnx(package, "pt2")


def write_files(
    what: Exportable,
    kinds: Iterable[str],
    folder: Path,
    *,
    plan: Plan | None,
    said: Mapping[str, Any],
    name: str = _NAME,
    description: Mapping[str, Any] | None = None,
) -> None:
    """Write a network as files of several kinds; print sizes and latencies.

    The numbers are written to `export.json` beside the files too; where these are not named after a
    student, to `NAME.export.json`.

    Args:
        what: The network.
        kinds: `onnx` or `pt2`, or both.
        folder: Of the files.
        plan: How latencies are measured; None measures none.
        said: What the command said of the files; written with the numbers.
        name: Of the files.
        description: What is written as JSON beside each file; None writes nothing.
    """
    require_formats(kinds := list(dict.fromkeys(kinds)), what.package)
    files: dict[str, Any] = {}
    first = what.outputs[0]
    for kind in kinds:
        path = folder / f"{name}.{kind}"
        done = export(what, path)[first]
        size = path.stat().st_size
        out.print(
            f"{path}: {size / 1e6:.2f} MB; {plural(first)} differ from PyTorch's by "
            f"{done.difference:.1e} at most, the largest being {done.largest:.1e}"
        )
        if description is not None:
            out.print(f"{describe(path, description)}: what it takes and gives")
        files[path.name] = {"bytes": size, **done._asdict()}
    found: dict[str, Any] = {"files": files, **said}
    if plan is not None:
        timed = {PYTORCH: Timed(what.network, what.shape)}
        if (path := folder / f"{name}.onnx").name in files:
            timed[ONNX] = Timed(onnx_session(path, plan.thread_count), what.shape)
        found["latency"] = measure_and_show(timed, plan)
    place = folder / ("export.json" if name == _NAME else f"{name}.export.json")
    save_json(found, place, sealed=False)
    out.print(f"{place}: these numbers")
