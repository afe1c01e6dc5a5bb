"""What the export tool does: files, what they take and give, their sizes and how fast they are."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from kd_core.errors import UserError
from kd_core.experiment.deploy.runtimes import require_onnx
from kd_core.experiment.tables.latencies import measure_and_show
from kd_core.files.checkpoint import save_json
from kd_core.networks.latency import Plan, Timed
from kd_core.runtime.console import out
from kd_core.runtime.versions import versions
from torch import Tensor

from kd_det.data.register import parse_set, register_coco
from kd_det.deploy.check_images import check_images
from kd_det.deploy.description import FORMATS, Description, write_description
from kd_det.deploy.exporting import OPSET, export
from kd_det.deploy.finished import Finished, load_finished
from kd_det.deploy.runtimes import EAGER, NAMES, PACKAGE, load_runtime
from kd_det.deploy.scaling import scaling_of
from kd_det.deploy.traceable import Run, Traceable

FILE = "export.json"


def run(args: Namespace, plan: Plan | None) -> None:
    """Export a detector as the arguments say; see `kd_det.export`."""
    if "onnx" in args.format:
        require_onnx(PACKAGE, "torchscript")
    for text in args.register:
        register_coco(*parse_set(text))
    finished = load_finished(args.student, args.weights, args.opts)
    folder = Path(args.output) if args.output else finished.weights.parent
    fixed = tuple(args.size) if args.size else None
    export_all(finished, folder, args.format, images=args.images, fixed=fixed, plan=plan)


def export_all(
    finished: Finished,
    folder: Path,
    formats: Sequence[str],
    *,
    images: Sequence[str] = (),
    fixed: tuple[int, int] | None = None,
    plan: Plan | None = None,
) -> None:
    """Export a detector as files of several kinds; print sizes and latencies.

    Args:
        finished: The detector, without a teacher.
        folder: Of the files: `student.ts`, `student.onnx`, a JSON beside each, and `export.json`.
        formats: `torchscript` or `onnx`, or both.
        images: Pictures on which the files are compared with the detector.
        fixed: Height and width of the files' input; None lets it have any.
        plan: How latencies are measured; None measures none.
    """
    network = Traceable(finished.network)
    if "onnx" in formats and "keypoints" in network.names:
        raise UserError(
            "a detector of keypoints goes to TorchScript alone, since ONNX lacks what Detectron2 "
            "finds them with: add --format torchscript"
        )
    scaling = scaling_of(finished.cfg, fixed)
    inputs = check_images(images, scaling)
    detector = type(finished.network).__name__
    threshold = score_threshold(finished.network)
    what = Description(detector, scaling, network.names, finished.categories, threshold)
    files: dict[str, Any] = {}
    runs: dict[str, Run] = {EAGER: network}
    for name in dict.fromkeys(formats):
        path = folder / f"student{FORMATS[name]}"
        done = export(network, path, inputs, fixed=fixed is not None)
        more: dict[str, Any] = {
            "made_with": versions(),
            "check": {**done._asdict(), "images": len(inputs)},
        }
        if name == "onnx":
            more["opset"] = OPSET
        place = write_description(what, path, more)
        size = path.stat().st_size
        out.print(
            f"{path}: {size / 1e6:.2f} MB; of {done.objects} objects in {len(inputs)} pictures "
            f"{done.unmatched} differ from PyTorch's, boxes by {done.box:.1e} pixels at most, "
            f"scores by {done.score:.1e}; {_sizes(fixed)}"
        )
        out.print(f"{place}: what it takes and gives")
        files[path.name] = {"bytes": size, **done._asdict()}
        if plan is not None:
            runs[NAMES[path.suffix]] = load_runtime(path, path.suffix, plan.thread_count)
    found: dict[str, Any] = {"files": files}
    if plan is not None:
        found["latency"] = measure_and_show(timed(runs, inputs[0]), plan)
    save_json(found, folder / FILE, sealed=False)
    out.print(f"{folder / FILE}: these numbers")


def timed(runs: dict[str, Run], image: Tensor) -> dict[str, Timed]:
    """Return what is measured: from an input to boxes, without reading or scaling the picture."""
    shape = (image.shape[0], image.shape[1], image.shape[2])

    def call(run: Run) -> Any:
        return lambda _: run(image)

    return {name: Timed(call(run), shape) for name, run in runs.items()}


def score_threshold(network: torch.nn.Module) -> float:
    """Return the score below which a detector leaves objects out itself."""
    predictor: Any = getattr(getattr(network, "roi_heads", None), "box_predictor", network)
    last = predictor[-1] if isinstance(predictor, torch.nn.ModuleList) else predictor
    return float(getattr(last, "test_score_thresh", 0.0))


def _sizes(fixed: tuple[int, int] | None) -> str:
    return "images of any size" if fixed is None else f"images of {fixed[0]} x {fixed[1]} alone"
