"""Measures of a classifier without labels, and probes of it where labelled images are given."""

from collections.abc import Mapping
from typing import Any

import torch
from kd_core.distill import label_free
from kd_core.distill.compared import Watched
from kd_core.distill.label_free import Rows, matrix
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.networks.roles import roles_of, tap_list
from kd_core.runtime import distributed
from torch import nn

from kd_cls.data import SplitLoader, UnlabelledSplits
from kd_cls.feature_network import FeatureNetwork
from kd_cls.probes import Labelled, few_label_accuracy, knn_accuracy, linear_accuracy


class LabelFree(label_free.LabelFree):
    """Measures a student on held-out images without labels, and by probes if some have labels.

    See `kd_core.distill.label_free.LabelFree`. The features are the output, or the vector that a
    classifier gets. Of a student with classes: `agreement` with the teachers' arg-max, in percent.
    With labelled images: see `probe`.

    Args:
        student: In its task.
        teachers: By name.
        terms: By name, with paths as taps.
        sources: The teacher of each term.
        data: Held-out images, and labelled ones.

    Raises:
        UserError: If there is nothing by which the best epoch could be chosen.
    """

    def __init__(
        self,
        student: nn.Module,
        teachers: Mapping[str, nn.Module],
        terms: Mapping[str, Term],
        sources: Mapping[str, str],
        data: UnlabelledSplits,
    ) -> None:
        sample = data.train.sample(2)
        self.data = data
        super().__init__(
            *(student, teachers, terms, sources, data.test, sample),
            pooled=pooled_of,
            advice="set data.evaluate_on to labelled images",
        )
        self._features = Watched(student, self.pooled["student"], sample)
        self._others = {name for name, m in teachers.items() if getattr(m, "other_classes", "")}
        measurable = self.measurable(sample, student) if data.queries is None else "knn"
        self.metric = measurable

    def labelled(self, model: nn.Module) -> dict[str, float]:
        """Return the accuracies of probes."""
        return probe(self._features, self.data, model)

    def agreed(self, predictions: Mapping[str, Any]) -> Rows:
        """Return in which images the arg-max is the student's, of teachers of the same classes."""
        logits = predictions["student"]
        others = {k: v for k, v in predictions.items() if k != "student" and k not in self._others}
        return {
            ("agreement", name): (prediction.argmax(1) == logits.argmax(1)).float()
            for name, prediction in others.items()
            if self.data.classes and getattr(prediction, "shape", None) == logits.shape
        }


@torch.no_grad()
def probe(features: Watched, data: UnlabelledSplits, model: nn.Module) -> dict[str, float]:
    """Return `knn` and `linear`, and `linear_K_shots` of few labels, in percent; see `probes`.

    Args:
        features: The network, watched where its features are.
        data: Nothing is measured if it has no labelled images.
        model: As it is evaluated.
    """
    if data.known is None or data.queries is None:
        return {}
    model.eval()
    known, queries = (_embedded(features, part, model) for part in (data.known, data.queries))
    found = {"knn": knn_accuracy(known, queries), "linear": linear_accuracy(known, queries)}
    for count in data.shots:
        found[f"linear_{count}_shots"] = few_label_accuracy(known, queries, count)
    return {name: round(100 * value.item(), 4) for name, value in found.items()}


def pooled_of(model: nn.Module) -> list[str]:
    """Return the tap of a network's features; none where its output is taken."""
    roles = roles_of(model)
    ends_in_features = isinstance(model, FeatureNetwork) and not roles.get("logits", True)
    return tap_list("@pooled", model) if roles.get("pooled") and not ends_in_features else []


def _embedded(features: Watched, loader: SplitLoader, model: nn.Module) -> Labelled:
    rows, labels = [], []
    for batch in distributed.shard(loader).epoch(0):
        prediction, values = features(batch, model)
        vector = matrix(next(iter(values.values())) if values else prediction)
        if vector is None:
            raise UserError("probes need features [N, D]; name their tap as the role `pooled`")
        rows.append(vector.float())
        labels.append(batch["label"])
    return distributed.gather_rows(torch.cat(rows)), distributed.gather_rows(torch.cat(labels))
