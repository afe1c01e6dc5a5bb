"""A finished student as an ONNX file and as PyTorch's own archive."""

from pathlib import Path

from kd_core.criteria.kept_heads import EmbeddingNetwork
from kd_core.experiment.deploy.exporting import Check, Exportable
from kd_core.experiment.deploy.exporting import export as export_network
from kd_core.experiment.deploy.figures import require_formats
from kd_core.experiment.deploy.runtimes import Outputs
from torch import Tensor, nn

from kd_cls.classifier import Classifier
from kd_cls.feature_network import FeatureNetwork
from kd_cls.libraries.outputs import logits_in
from kd_cls.student import find_student, load_student, read_facts, resize_rule, sides_of

PACKAGE = "kd-cls"


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


def exportable(student: str | Path, *, with_normalization: bool = False) -> Exportable:
    """Return what is written of a student.

    Its outputs are "logits", or "features" of a student that ends in them; of a student that kept
    its head also "embedding". The facts say how a photo becomes its input; mean and std are among
    them only where they are still to be applied.

    Args:
        student: Folder of a finished run, or its `student.safetensors`.
        with_normalization: The file takes floats in [0, 1] and normalises them itself; otherwise it
            takes normalised images, as the network does.
    """
    file = find_student(student)
    facts = {**read_facts(file), "with_normalization": with_normalization}
    channels, (side, shorter) = len(facts["mean"]), sides_of(facts, file)
    facts.pop("shorter_side", None)
    facts |= {"image_size": side, "resize": resize_rule(side, shorter)}
    facts["range"] = "0 to 1" if with_normalization else "(pixels / 255 - mean) / std"
    if with_normalization:  # nobody is to do it again
        del facts["mean"], facts["std"]
    classifier = load_student(file)
    network = Exported(classifier, with_normalization=with_normalization).eval()
    title = type(classifier.network).__name__
    return Exportable(network, (channels, side, side), network.names, facts, title, PACKAGE)


def export(student: str | Path, path: Path, *, with_normalization: bool = False) -> Check:
    """Write a student to `path`, and check that the file gives the network's logits.

    Args:
        student: See `exportable`.
        path: Ends in `.onnx` or `.pt2`; see `kd_core.experiment.deploy.exporting.export`.
        with_normalization: See `exportable`.

    Raises:
        UserError: If the network cannot be exported, or the file's logits differ.
    """
    require_formats([path.suffix.removeprefix(".")], PACKAGE)
    what = exportable(student, with_normalization=with_normalization)
    return export_network(what, path)[what.outputs[0]]
