"""Classifier: wraps a network with normalisation and its cross-entropy."""

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from kd_core.config.values import (
    Deviations,
    HeightWidth,
    Means,
    Pixels,
    PositiveInt,
    PositiveValues,
    Share,
    checked,
)
from kd_core.criteria.kept_heads import EmbeddingNetwork
from kd_core.errors import UserError
from kd_core.networks.batch_names import by_our_names
from kd_core.networks.frozen_norms import drifting_norms
from kd_core.networks.image_task import ImageTask
from kd_core.networks.task import Batch
from torch import Tensor, nn

from kd_cls.libraries.outputs import logits_in
from kd_cls.libraries.sizes import size_advice
from kd_cls.raw_logits import check_logits_are_raw
from kd_cls.targets import any_classes, one_class, overlap


class Classifier(ImageTask):
    """Prepares images for the network; returns losses in training, logits in evaluation.

    Where images are mixed (`kd_core.data.mix`), the loss is the weighted sum of the cross-entropies
    with the classes of their parts; the class with the largest weight counts as correct.

    A batch may have Hugging Face's names, `pixel_values` and `labels`. Labels are needed only in
    training, and not where a distiller gives their loss no weight (`task_weight=0`).

    Args:
        network: From images [N, 3, H, W], or [N, 1, H, W], to logits [N, C].
        mean: Of each channel of the training images, in [0, 1], or one number for a network that
            takes grey images; None leaves floats unchanged.
        std: Standard deviation of each channel, in [0, 1].
        size: Height and width in pixels that images are resized to (bilinear), or None.
        multi_label: Images have any number of classes: labels are floats [N, C], 1 or 0, or -1 or
            NaN where unknown. The loss is the binary cross-entropy, mean over all known labels; to
            sum it over the batch as L2D's authors do, multiply by batch size and classes
            (`task_weight`).
        label_smoothing: Share of the target that is spread over all classes; of several labels,
            over yes and no.
        class_weights: Weight of each class in the cross-entropy, as torch has it: the mean over a
            batch (in each process) is over the weights of its labels. None: all are equal.
        task_views: In batches with several views of every image, the cross-entropy takes so many
            of the first views; None for all.
        views_apart: With such batches, run the network on one view after the other in training,
            so that BatchNorm sees each alone; otherwise all views are one batch.
        hold_frozen_norms: Keep the BatchNorms of frozen parts in eval mode, so that their running
            statistics are frozen too.
        output: Name or number of the logits, where the network returns a tuple, dict or
            dataclass.
        roles: Tap paths by role; see `kd_cls.roles`.

    Raises:
        UserError: If mean and std are not three numbers each, or one each, or the smoothing is not
            in [0, 1].
    """

    class_weights: Tensor | None

    @checked
    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Means | None = None,
        std: Deviations | None = None,
        size: Pixels | HeightWidth | None = None,
        multi_label: bool = False,
        label_smoothing: Share = 0.0,
        class_weights: PositiveValues | None = None,
        task_views: PositiveInt | None = None,
        views_apart: bool = False,
        hold_frozen_norms: bool = False,
        output: str | int | None = None,
        roles: Mapping[str, str | Sequence[str]] | None = None,
    ) -> None:
        if output is not None:
            roles = {"logits": f"output[{output}]", **(roles or {})}
        super().__init__(
            network, mean=mean, std=std, size=size, label_smoothing=label_smoothing, roles=roles
        )
        self.multi_label = multi_label
        self.hold_frozen_norms = hold_frozen_norms
        weights = None if class_weights is None else torch.tensor(class_weights)
        # Not persistent: they come from the config and the data.
        self.register_buffer("class_weights", weights, persistent=False)
        self.task_views = task_views
        self.views_apart = views_apart
        self.output = output

    def forward(self, batch: Batch) -> dict[str, Tensor] | Tensor:
        """Return `{"ce": ...}` (`bce` of several labels) while training, else logits [N, C].

        Raises:
            UserError: In training, if the batch has no labels, or not those of this classifier.
        """
        batch = by_our_names(batch)
        logits = self._predict(batch)
        if not self.training:
            return logits
        if "label" not in batch:
            raise UserError(
                f"the batch has no 'label' (it has {', '.join(batch)}), which the classifier's "
                "own loss needs; add labels, or distil without that loss: task_weight=0"
            )
        if self.task_views is not None and "mixed_labels" not in batch:
            logits = logits[: len(logits) * self.task_views // batch.get("num_views", 1)]
        if self.multi_label:
            loss, label = any_classes(logits, batch, self.label_smoothing)
            right, of = overlap(logits.detach(), label)
            self.correct += right
            self.seen += of
            return {"bce": loss}
        loss, label = one_class(logits, batch, self.label_smoothing, self.class_weights)
        self.count(logits, label)
        return {"ce": loss}

    def embed(self, batch: Batch) -> Tensor:
        """Return embeddings [N, D] in the teacher's space, of a student that kept its head.

        Raises:
            UserError: If it did not (`keep_head=True` of its criterion).
        """
        if not isinstance(self.network, EmbeddingNetwork):
            raise UserError(
                f"{type(self.network).__name__} gives no embeddings in a teacher's space; train "
                "the student with keep_head=True of a criterion that has it, such as QueueKL"
            )
        return self.network.with_embedding(self.prepare(by_our_names(batch)["image"]))[1]

    def run_for_taps(self, batch: Batch) -> None:
        """Run the network; only if there are labels, count how many of them it predicts."""
        if "label" in batch:
            self(batch)
        else:
            self._predict(batch)

    def training_metrics(self) -> dict[str, float]:
        """Return top-1, or the overall F1 of several labels, on the training images, in percent."""
        found = super().training_metrics()
        if self.multi_label and found:
            return {"train_OF1": found["train_top1"]}
        return found

    def check_sample(self, batch: Batch) -> None:
        """Also look for a softmax or sigmoid at the network's end.

        Raises:
            UserError: If there is one, or the images are not what they should be.
        """
        super().check_sample(batch)
        check_logits_are_raw(self, batch)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; with `hold_frozen_norms`, frozen BatchNorms stay in eval mode."""
        super().train(mode)
        if mode and self.hold_frozen_norms:
            for _, norm in drifting_norms(self.network):
                norm.eval()
        return self

    @property
    def size_advice(self) -> str:
        """What to do where the network cannot take images of their size; "" if not known."""
        return size_advice(self.network)

    def passes(self, batch: Batch) -> int:
        """Return the number of views where each has its own pass, else 1."""
        return int(batch.get("num_views", 1)) if self.views_apart and self.training else 1

    def _predict(self, batch: Batch) -> Tensor:
        images, passes = self.prepare(batch["image"]), self.passes(batch)
        parts = [self._logits(part) for part in images.tensor_split(passes)]
        return torch.cat(parts) if passes > 1 else parts[0]

    def _logits(self, images: Tensor) -> Tensor:
        return logits_in(self.network(images), self.output, self.network)


class LinearProbe(Classifier):
    """A classifier with a frozen network, whose head is trained on the features.

    The network stays in eval mode, so that BatchNorm keeps its statistics and dropout is off. The
    builder decides which parameters require a gradient; if only the head does, no backward pass
    goes through the network.
    """

    def train(self, mode: bool = True) -> Self:
        """Set the task to training mode, never the network."""
        super().train(mode)
        self.network.eval()
        return self
