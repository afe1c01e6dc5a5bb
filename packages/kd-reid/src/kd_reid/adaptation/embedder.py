"""The student of an adaptation: it learns from clusters, and from its own moving average."""

import copy

import torch
from kd_core.config.values import (
    Fraction,
    NonNegative,
    PositiveInt,
    SeveralInt,
    Share,
    checked,
)
from kd_core.criteria.soft_label import soft_label
from kd_core.errors import UserError
from kd_core.networks.image_task import height_and_width
from kd_core.networks.task import Batch
from torch import Tensor, nn

from kd_reid.adaptation.clustering import OUTLIER, Clustering, centroids
from kd_reid.adaptation.losses import batch_nuclear_norm, multi_similarity
from kd_reid.adaptation.target import UnlabelledData
from kd_reid.embedder import ID, Embedder
from kd_reid.neck import CLASSIFIER, neck_of
from kd_reid.outputs import Embedding


class AdaptiveEmbedder(Embedder):
    """Adapt a trained embedder to images without labels.

    The minimal form of Yin et al., arXiv:2009.05972: every epoch, images are clustered by the
    embeddings of the student's moving average (`trainer.ema`), and the classifier's rows become the
    centres of the clusters. The losses are (1 - w) `id` + w `soft`, the cross-entropy with the
    average's probabilities; a multiple of `multi_similarity`; and one of `nuclear_norm`. Of several
    views of an image, the student gets the first and the average the last.

    Differs from the authors' code: there is one student, while theirs are three that teach one
    another; the nuclear norm of the averages' probabilities is left out, since it is constant; the
    optimizer keeps its moments of the classifier when its rows are set.

    Args:
        source: The embedder to adapt; its network is changed.
        data: The images.
        soft_weight: w, in [0, 1].
        similarity_weight: Factor of `multi_similarity`.
        nuclear_weight: Factor of `nuclear_norm`.
        k1: See `Clustering`.
        k2: See `Clustering`.
        pair_share: See `Clustering`. The radius is computed in the first epoch and then kept.
        min_samples: See `Clustering`.

    Raises:
        UserError: If the network has not one linear classifier, or a number is out of range.
    """

    changes_data = True

    label: Tensor
    radius: Tensor
    clustered: Tensor

    @checked
    def __init__(
        self,
        source: Embedder,
        data: UnlabelledData,
        *,
        soft_weight: Share = 0.5,
        similarity_weight: NonNegative = 3.0,
        nuclear_weight: NonNegative = 1.5,
        k1: PositiveInt = 20,
        k2: PositiveInt = 6,
        pair_share: Fraction = 1.6e-3,
        min_samples: SeveralInt = 4,
    ) -> None:
        if source.metric_losses:
            raise UserError(
                f"adaptation has its own losses; leave {', '.join(source.metric_losses)} out of "
                "metric_losses (in a phase: student.metric_losses=None)"
            )
        _make_room(source.network, data.num_classes)
        super().__init__(
            source.network,
            mean=source.mean.flatten().tolist(),
            std=source.std.flatten().tolist(),
            size=None if source.size is None else height_and_width(source.size),
            label_smoothing=source.label_smoothing,
            fixed_base_epochs=source.fixed_base_epochs,
            roles=source.roles,
            heads=source.heads,
        )
        self.data, self.soft_weight = data, soft_weight
        self.similarity_weight, self.nuclear_weight = similarity_weight, nuclear_weight
        self.clustering = Clustering(k1=k1, k2=k2, pair_share=pair_share, min_samples=min_samples)
        self.register_buffer("label", torch.arange(data.num_samples) // 2)  # as the sampler's
        self.register_buffer("radius", torch.zeros((), dtype=torch.float64))  # 0: not known yet
        self.register_buffer("clustered", torch.full((), -1))  # the epoch of `label`
        self._clusters = data.num_classes
        self._teacher: list[Embedder] = []  # in a list, so that nn.Module does not register it

    def set_ema(self, network: nn.Module) -> None:
        """Take the moving average of the network as teacher."""
        teacher = copy.copy(self)
        teacher._modules = {**self._modules, "network": network}
        teacher.training = False
        self._teacher = [teacher]

    def begin_epoch(self, epoch: int) -> None:
        """Cluster the images, unless the clusters came from a checkpoint inside this epoch."""
        super().begin_epoch(epoch)
        if int(self.clustered) != epoch:
            self._cluster()
            self.clustered.fill_(epoch)
        label = self.label.cpu()
        self._clusters = int(label.max()) + 1
        self.data.sampler.assign(label)

    def forward(self, batch: Batch) -> dict[str, Tensor] | Embedding:
        """Return the losses while training, else what `embed` returns."""
        if not self.training:
            return super().forward(batch)
        count = len(batch["index"]) // batch.get("num_views", 1)
        images, label = batch["image"][:count], self.label[batch["index"][:count]]
        found = self.embed(images)
        logits, embedding = found.logits[0][:, : self._clusters], found.features[0]
        with torch.no_grad():
            taught = self._average().embed(batch["image"][-count:]).logits[0][:, : self._clusters]
        self.count(logits, label)
        return {
            ID: (1 - self.soft_weight) * self.cross_entropy(logits, label),
            "soft": self.soft_weight * soft_label(logits, taught),
            "multi_similarity": self.similarity_weight * multi_similarity(embedding, label),
            "nuclear_norm": self.nuclear_weight * batch_nuclear_norm(logits),
        }

    def training_metrics(self) -> dict[str, float]:
        """Also return the number of clusters of the epoch, and of images in no cluster."""
        outliers = int((self.label == OUTLIER).sum())
        return {**super().training_metrics(), "clusters": self._clusters, "outliers": outliers}

    @torch.no_grad()
    def _cluster(self) -> None:
        teacher = self._average()
        rows = [teacher(batch).embedding.float() for batch in self.data.in_order().epoch(0)]
        features = nn.functional.normalize(torch.cat(rows))
        distance = self.clustering.distance(features)
        if not self.radius:
            self.radius.fill_(self.clustering.radius(distance))
        self.label.copy_(self.clustering.labels(distance, float(self.radius)))
        centres = centroids(features, self.label)
        for network in (self.network, teacher.network):
            head = _linear(network)
            head.weight.zero_()[: len(centres)] = centres
            if head.bias is not None:
                head.bias.zero_()

    def _average(self) -> Embedder:
        if not self._teacher:
            raise UserError(
                "adaptation has no teacher: it is the student's moving average; set trainer.ema, "
                "such as 0.999"
            )
        return self._teacher[0]


def _linear(network: nn.Module) -> nn.Linear:
    neck = neck_of(network)
    head = getattr(network, CLASSIFIER, None) if neck is None else neck.linear
    if not isinstance(head, nn.Linear):
        found = type(head).__name__ if head is not None else "none"
        raise UserError(
            f"adaptation: wanted a linear layer {CLASSIFIER!r} in {type(network).__name__}, whose "
            f"rows become centres of clusters; got {found}"
        )
    return head


def _make_room(network: nn.Module, rows: int) -> None:
    """Change the number of rows of a network's classifier."""
    head, neck = _linear(network), neck_of(network)
    new = nn.Linear(head.in_features, rows, bias=head.bias is not None)
    if neck is None:
        setattr(network, CLASSIFIER, new)
    else:
        neck.linear = new
