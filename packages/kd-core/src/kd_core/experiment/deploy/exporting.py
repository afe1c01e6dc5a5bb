"""A network as an ONNX file or as PyTorch's own archive, which is compared before it is kept."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kd_core.errors import UserError
from kd_core.experiment.deploy.archives import without_unused
from kd_core.experiment.deploy.runtimes import Run, onnx_session
from kd_core.files.checkpoint import atomic_path
from kd_core.functional import tensors
from kd_core.runtime.failures import explain, first_line

TOLERANCE = 1e-4  # of the largest value of an output
BATCH_SIZES = (1, 2, 7)  # of the comparison; the example that is traced has 2


class Check(NamedTuple):
    """Difference of an exported file from the network, in one of its outputs."""

    difference: float
    largest: float


@dataclass(frozen=True)
class Exportable:
    """What is written to a file.

    Args:
        network: From images, float32 [N, *shape], to one tensor or several, in evaluation mode.
        shape: Channels, height and width of an image.
        outputs: Names of the outputs.
        facts: What a user of the file must know; written into it, each value as JSON.
        title: The network's name in messages.
        package: Whose extra `export` has the packages for ONNX.
    """

    network: nn.Module
    shape: tuple[int, int, int]
    outputs: Sequence[str]
    facts: Mapping[str, Any]
    title: str
    package: str


def export(what: Exportable, path: Path) -> dict[str, Check]:
    """Write a network to `path`, and check that the file gives what the network gives.

    Both kinds of file take any batch size, and images of one size. They contain the facts as JSON:
    an ONNX file in its metadata, a `.pt2` file as `metadata.json`.

    Args:
        what: The network.
        path: Ends in `.onnx` (input "image") or `.pt2` (`torch.export.load`).

    Returns:
        The largest difference by output.

    Raises:
        UserError: If the network cannot be exported, or the file gives anything else.
    """
    write = {".onnx": _write_onnx, ".pt2": _write_pt2}[path.suffix]
    with atomic_path(path) as temporary:
        try:
            with warnings.catch_warnings(), _no_graph_printed():
                warnings.simplefilter("ignore")  # the comparison finds what traces warn of
                run = write(what, temporary)
        except Exception as error:  # exporters raise many types
            if explain(error) is not None:
                raise
            raise UserError(
                f"{what.title} cannot be exported as {path.suffix}: {first_line(error)}; name "
                "another --format"
            ) from error
        return _compare(run, what, path)


@contextmanager
def _no_graph_printed() -> Iterator[None]:
    """Keep PyTorch from printing, in C++, the whole graph of what it cannot write as ONNX."""
    # The exporter itself switches PyTorch's own switch for this on.
    before = torch._C._jit_onnx_log
    torch._C._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = before


def _write_onnx(what: Exportable, path: Path) -> Run:
    """Write an ONNX file and return it as a function, run by onnxruntime."""
    import onnx

    torch.onnx.export(
        what.network,
        (_images(what, 2),),
        path,
        dynamo=False,  # it is old, but needs no further package
        input_names=["image"],
        output_names=list(what.outputs),
        dynamic_axes={name: {0: "batch"} for name in ("image", *what.outputs)},
    )
    model = onnx.load_model(path)
    facts = {name: json.dumps(value) for name, value in what.facts.items()}
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    onnx.save_model(model, path)
    return onnx_session(path)


def _write_pt2(what: Exportable, path: Path) -> Run:
    """Write an archive of `torch.export` and return it as a function, read back from the file."""
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(what.network, (_images(what, 2),), dynamic_shapes=(batch,))
    facts = {"metadata.json": json.dumps(dict(what.facts))}
    with path.open("wb") as file:  # a file object: a path with a temporary name causes a warning
        torch.export.save(without_unused(program), file, extra_files=facts)
    with path.open("rb") as file:
        return torch.export.load(file).module()


@torch.no_grad()
def _compare(run: Run, what: Exportable, path: Path) -> dict[str, Check]:
    checks: dict[str, list[Check]] = {name: [] for name in what.outputs}
    for count in BATCH_SIZES:
        image = _images(what, count)
        expected = what.network(image)
        try:
            found = run(image)
        except Exception as error:  # runtimes raise many types
            reason = first_line(error)
            raise UserError(f"{path.name} fails with a batch of {count}: {reason}") from error
        for name, one, other in zip(what.outputs, tensors(found), tensors(expected), strict=True):
            checks[name].append(_check(one, other, path))
    worst = {  # NaN counts as the largest
        name: Check(*torch.tensor(found, dtype=torch.float64).amax(0).tolist())
        for name, found in checks.items()
    }
    for name, check in worst.items():
        if not check.difference <= TOLERANCE * check.largest:
            raise UserError(
                f"{path.name} is not written: its {plural(name)} differ from PyTorch's by "
                f"{check.difference:.1e}, more than {TOLERANCE} of the largest, "
                f"{check.largest:.1e}; does the network depend on the batch, or draw random "
                "numbers?"
            )
    return worst


def _check(found: Tensor, expected: Tensor, path: Path) -> Check:
    if found.shape != expected.shape:
        came, wanted = list(found.shape), list(expected.shape)
        raise UserError(f"{path.name} is not written: it gives {came}, PyTorch {wanted}")
    return Check((found - expected).abs().max().item(), expected.abs().max().item())


def plural(name: str) -> str:
    """Return what an output's values are called: `embedding` has embeddings, `logits` logits."""
    return name if name.endswith("s") else f"{name}s"


def _images(what: Exportable, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.rand(count, *what.shape, generator=generator)
