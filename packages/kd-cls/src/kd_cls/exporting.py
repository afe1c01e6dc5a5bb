"""A finished student as an ONNX file and as PyTorch's own archive."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from kd_core.criteria.kept_heads import EmbeddingNetwork
from kd_core.errors import UserError
from kd_core.files.checkpoint import atomic_path
from kd_core.functional import tensors
from torch import Tensor, nn

from kd_cls.classifier import Classifier
from kd_cls.feature_network import FeatureNetwork
from kd_cls.libraries.outputs import logits_in
from kd_cls.student import find_student, load_student, read_facts, square_side

TOLERANCE = 1e-4  # of the largest logit
BATCH_SIZES = (1, 3)  # of the check; the example that is traced has 2

Outputs = Tensor | Sequence[Tensor]
"""Logits; of a student that kept its head, logits and embeddings."""
Run = Callable[[Tensor], Outputs]


class Check(NamedTuple):
    """Difference of an exported file from the network, in logits (and embeddings)."""

    difference: float
    largest: float


class Exported(nn.Module):
    """A classifier's network from images to logits, and to embeddings if it kept its head.

    Args:
        classifier: Its network is shared, not copied.
        with_normalization: Take floats in [0, 1]; otherwise images that are normalised already.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: Classifier, *, with_normalization: bool) -> None:
        super().__init__()
        self.network = classifier.network
        self.output = classifier.output
        self.first = "features" if isinstance(classifier, FeatureNetwork) else "logits"
        self.with_normalization = with_normalization
        self.register_buffer("mean", classifier.mean)
        self.register_buffer("std", classifier.std)

    @property
    def names(self) -> list[str]:
        """Names of what it returns."""
        kept = isinstance(self.network, EmbeddingNetwork)
        return [self.first, "embedding"] if kept else [self.first]

    def forward(self, image: Tensor) -> Outputs:
        """Return logits [N, C] of images [N, 3, H, W], or [N, 1, H, W] of a grey network.

        With them embeddings [N, D], of a student that kept its head.
        """
        if self.with_normalization:
            image = (image - self.mean) / self.std
        if not isinstance(self.network, EmbeddingNetwork):
            return logits_in(self.network(image), self.output, self.network)
        returned, embedding = self.network.with_embedding(image)
        return logits_in(returned, self.output, self.network), embedding


def export(student: str | Path, path: Path, *, with_normalization: bool = False) -> Check:
    """Write a student to `path`, and check that the file gives the network's logits.

    Both kinds of file take any batch size, and images of the student's size. They contain the facts
    of `read_facts` as JSON: an ONNX file in its metadata, a `.pt2` file as `metadata.json`.

    Args:
        student: Folder of a finished run, or its `student.safetensors`.
        path: Ends in `.onnx` (input "image", output "logits", or "features" of a student that
            ends in them) or `.pt2` (`torch.export.load`). Of a student that kept its head also
            "embedding", the second output.
        with_normalization: The file takes floats in [0, 1] and normalises them itself; otherwise it
            takes normalised images, as the network does.

    Raises:
        UserError: If the network cannot be exported, or the file's logits differ.
    """
    file = find_student(student)
    facts = {**read_facts(file), "with_normalization": with_normalization}
    facts["image_size"] = square_side(facts["image_size"], file)
    classifier = load_student(file)
    network = Exported(classifier, with_normalization=with_normalization).eval()
    write = {".onnx": write_onnx, ".pt2": write_pt2}[path.suffix]
    with atomic_path(path) as temporary:
        try:
            run = write(network, facts, temporary)
        except UserError:
            raise
        except Exception as error:  # exporters raise many types
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"{type(classifier.network).__name__} cannot be exported as {path.suffix}: {reason}"
            ) from error
        return _compare(run, network, facts, path)


def write_onnx(network: Exported, facts: Mapping[str, Any], path: Path) -> Run:
    """Write an ONNX file and return it as a function, run by onnxruntime on the CPU."""
    try:
        import onnx
        import onnxruntime  # noqa: F401 - before the work of an export
    except ImportError as error:
        raise UserError(
            f"ONNX needs onnx and onnxruntime ({error}): pip install 'kd-cls[export]', or ask for "
            "--format pt2 alone"
        ) from error
    with warnings.catch_warnings():
        # This exporter is old, but needs no further package; the check finds errors of the trace.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(
            network,
            (_images(2, facts, seed=1),),
            path,
            dynamo=False,
            input_names=["image"],
            output_names=network.names,
            dynamic_axes={name: {0: "batch"} for name in ("image", *network.names)},
        )
    model = onnx.load_model(path)
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
    onnx.checker.check_model(model)
    onnx.save_model(model, path)
    return onnx_session(path)


def onnx_session(path: Path, threads: int | None = None) -> Run:
    """Return an ONNX file as a function, run by onnxruntime on the CPU.

    Args:
        path: The file.
        threads: None leaves their number to onnxruntime.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Else its threads would wait busily, and slow what is measured in the next turn.
        options.add_session_config_entry("session.force_spinning_stop", "1")
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    return lambda image: list(map(torch.from_numpy, session.run(None, {"image": image.numpy()})))


def write_pt2(network: Exported, facts: Mapping[str, Any], path: Path) -> Run:
    """Write an archive of `torch.export` and return it as a function, read back from the file."""
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(network, (_images(2, facts, seed=1),), dynamic_shapes=(batch,))
    with path.open("wb") as file:  # a file object: a path with a temporary name causes a warning
        torch.export.save(program, file, extra_files={"metadata.json": json.dumps(facts)})
    with path.open("rb") as file:
        return torch.export.load(file).module()


@torch.no_grad()
def _compare(run: Run, network: Exported, facts: Mapping[str, Any], path: Path) -> Check:
    checks: dict[str, list[Check]] = {name: [] for name in network.names}
    for count in BATCH_SIZES:
        image = _images(count, facts, seed=count)
        expected = network(image)
        try:
            found = run(image)
        except Exception as error:  # runtimes raise many types
            reason = str(error).partition("\n")[0]
            raise UserError(f"{path.name} fails with a batch of {count}: {reason}") from error
        for name, one, other in zip(network.names, tensors(found), tensors(expected), strict=True):
            checks[name].append(Check((one - other).abs().max().item(), other.abs().max().item()))
    worst = {  # NaN counts as the largest
        name: Check(*torch.tensor(found, dtype=torch.float64).amax(0).tolist())
        for name, found in checks.items()
    }
    for name, check in worst.items():
        if not check.difference <= TOLERANCE * check.largest:
            raise UserError(
                f"{path.name} is not written: its {name} differ from PyTorch's by "
                f"{check.difference:.1e}, more than {TOLERANCE} of the largest, "
                f"{check.largest:.1e}; does the network depend on the batch, or draw random "
                "numbers?"
            )
    return worst[network.first]


def _images(count: int, facts: Mapping[str, Any], seed: int) -> Tensor:
    side, channels = facts["image_size"], len(facts["mean"])
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, side, side, generator=generator)
