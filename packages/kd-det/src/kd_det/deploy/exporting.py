"""A detector as a TorchScript or an ONNX file, which is compared with it before it is kept."""

import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from kd_core.errors import UserError
from kd_core.files.checkpoint import atomic_path
from kd_core.runtime.failures import explain, first_line
from torch import Tensor, nn

from kd_det.deploy.agreement import MAY_FLIP, Agreement, compare
from kd_det.deploy.runtimes import load_runtime
from kd_det.deploy.traceable import Run, Traceable
from kd_det.release.compat import traced

OPSET = 17  # RoIAlign as Detectron2 has it needs 16


def export(network: Traceable, path: Path, images: Sequence[Tensor], *, fixed: bool) -> Agreement:
    """Write a detector to a file, load that again, and compare what both find.

    Args:
        network: The detector.
        path: Ends in `.ts` or `.onnx`. It is written only if the file finds the same.
        images: Inputs of the comparison, float32 [3, H, W]; the first is traced. Unless `fixed`,
            there are several sizes among them.
        fixed: Whether the file takes only the size of the first.

    Raises:
        UserError: If the detector cannot be exported, or the file finds anything else.
    """
    kind = path.suffix
    expected = [_eager(network, image) for image in images]
    most = max(range(len(images)), key=lambda place: len(expected[place][1]))
    if not len(expected[most][1]):
        raise UserError(
            f"{path.name} is not written: the detector finds nothing in the {len(images)} pictures "
            "that the file would be compared on; name some with objects: --images FILE ..."
        )
    with atomic_path(path) as temporary:
        try:
            # PyTorch prints the graph of what it cannot write.
            with traced(), torch.no_grad(), warnings.catch_warnings(), redirect_stdout(StringIO()):
                warnings.simplefilter("ignore")  # of traces; the comparison finds their errors
                _WRITERS[kind](network, images[most], temporary, fixed=fixed)
        except Exception as error:  # exporters raise many types
            if explain(error) is not None:
                raise
            name = type(network.network).__name__
            reason = first_line(error).partition(" Please feel free")[0].strip(" .")
            raise UserError(
                f"{name} cannot be exported as {kind}: {reason}; name another --format"
            ) from error
        run = load_runtime(temporary, kind)
        return _checked(run, images, expected, path, fixed=fixed)


@torch.no_grad()
def _eager(network: nn.Module, image: Tensor) -> Sequence[Tensor]:
    found: Sequence[Tensor] = network(image)
    return found


@torch.no_grad()
def _checked(
    run: Run,
    images: Sequence[Tensor],
    expected: Sequence[Sequence[Tensor]],
    path: Path,
    fixed: bool,
) -> Agreement:
    total = Agreement()
    advice = "name another --format" if fixed else "try --size HEIGHT WIDTH, for a file of one size"
    for image, wanted in zip(images, expected, strict=True):
        size = " x ".join(map(str, image.shape[1:]))
        try:
            found = [value.cpu() for value in run(image)]
        except Exception as error:  # runtimes raise many types
            raise UserError(
                f"{path.name} is not written: it fails with an image of {size} pixels "
                f"({first_line(error)}); {advice}"
            ) from error
        one = compare(found, wanted, max(image.shape[1:]))
        if not one.holds:
            raise UserError(
                f"{path.name} is not written: in an image of {size} pixels it finds "
                f"{len(found[1])} objects, the detector {one.objects}, and {one.unmatched} of both "
                f"have no counterpart (more than {MAY_FLIP:.0%}); {advice}"
            )
        total += one
    return total


def _write_torchscript(network: Traceable, image: Tensor, path: Path, *, fixed: bool) -> None:
    script = torch.jit.trace(network, (image,), check_trace=False)
    with path.open("wb") as file:  # else the archive has the temporary name inside
        torch.jit.save(script, file)


def _write_onnx(network: Traceable, image: Tensor, path: Path, *, fixed: bool) -> None:
    axes = {name: {0: "objects"} for name in network.names}
    if not fixed:
        axes["image"] = {1: "height", 2: "width"}
    torch.onnx.export(
        network,
        (image,),
        path,
        dynamo=False,  # it is old, but needs no further package, and knows torchvision's operators
        opset_version=OPSET,
        input_names=["image"],
        output_names=network.names,
        dynamic_axes=axes,
    )


_WRITERS = {".ts": _write_torchscript, ".onnx": _write_onnx}
