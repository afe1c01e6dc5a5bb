"""Measures of features without labels, and probes of them where labelled images are given."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from kd_core.distill.compared import Comparison, Watched
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.metrics import linear_cka
from kd_core.networks.roles import roles_of, tap_list
from kd_core.networks.task import Batch
from kd_core.representations import FeatureError, effective_rank, measured
from kd_core.runtime import distributed
from torch import Tensor, nn

from kd_cls.data import SplitLoader, UnlabelledSplits
from kd_cls.feature_network import FeatureNetwork
from kd_cls.probes import Labelled, few_label_accuracy, knn_accuracy, linear_accuracy

Rows = dict[tuple[str, str], Tensor]
"""By what is measured and the network's name, [N, ...]."""
Errors = dict[str, dict[tuple[str, int], FeatureError]]
"""By teacher; of every pair that a term compares."""

_OF_PAIRS = ("agreement", "features")  # of the student and a teacher


class LabelFree:
    """Measures a student on held-out images without labels, and by probes if there are such.

    Of the features, which are the output, or the vector that a classifier gets: `effective_rank`,
    and `cka` with the teachers' vectors (`kd_core.metrics.linear_cka`; 0 where either is constant).
    Of the terms whose criteria predict a teacher's features: `cosine` and `relative_error`, see
    `FeatureError`. Of a student with classes: `agreement` with the teachers' arg-max, in percent.
    With labelled images: see `probe`. Each is the mean over the teachers; of several, each has its
    own value too, such as `cosine_NAME`.

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
        self.data, self.held_out = data, distributed.shard(data.test)
        self._pooled = {name: pooled_of(model) for name, model in teachers.items()}
        self._pooled["student"] = pooled_of(student)
        self._comparison = Comparison(student, teachers, terms, sources, sample, self._pooled)
        self._features = Watched(student, self._pooled["student"], sample)
        self._others = {name for name, m in teachers.items() if getattr(m, "other_classes", "")}
        self.metric = self._metric(sample, student)

    @classmethod
    def of(cls, distiller: Distiller, data: UnlabelledSplits) -> "LabelFree":
        """Return what measures the student of a distiller."""
        teachers = {name: teacher.model for name, teacher in distiller.teachers.items()}
        sources = {name: distiller.source(name) for name in distiller.terms}
        return cls(distiller.student, teachers, distiller.terms, sources, data)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Measure the student as it is evaluated."""
        model.eval()
        parts: list[Rows] = []
        errors: Errors = {}
        for batch in self.held_out.epoch(0):
            parts.append(self._look(batch, model, errors))
        rows = {k: distributed.gather_rows(torch.cat([p[k] for p in parts])) for k in parts[0]}
        own = rows.pop(("features", "student"))
        found = probe(self._features, self.data, model)
        by = {what: {n: row for (key, n), row in rows.items() if key == what} for what in _OF_PAIRS}
        shares = {name: 100 * row.mean().item() for name, row in by["agreement"].items()}
        alike = {
            name: linear_cka(own, row).nan_to_num(0).item() for name, row in by["features"].items()
        }
        found |= of_teachers("agreement", shares) | _errors_of(errors, own.device)
        found |= of_teachers("cka", alike)
        return {**found, "effective_rank": round(effective_rank(own).item(), 4)}

    def _look(self, batch: Batch, model: nn.Module, errors: Errors) -> Rows:
        """Return what is kept of a batch; the errors of predictions are added up."""
        predictions, values = self._comparison(batch, model)
        rows: Rows = {}
        logits = predictions["student"]
        for name, prediction in predictions.items():
            vector = _vector(prediction, values[name], self._pooled[name])
            if vector is not None:
                rows["features", name] = vector.float()
            compares = name != "student" and self.data.classes and name not in self._others
            if compares and getattr(prediction, "shape", None) == logits.shape:
                rows["agreement", name] = (prediction.argmax(1) == logits.argmax(1)).float()
        for name, terms in self._comparison.pairs(values).items():
            for term, pairs in terms:
                for place, pair in enumerate(pairs):
                    each = errors.setdefault(name, {})
                    each.setdefault((term, place), FeatureError()).add(*pair)
        return rows

    def _metric(self, sample: Batch, student: nn.Module) -> str:
        """Return the metric that defines the best epoch: the first that there is."""
        errors: Errors = {}
        student.eval()
        with torch.no_grad():
            rows = self._look(sample, student, errors)
        if self.data.queries is not None:
            return "knn"
        measures = {what for what, name in rows if name != "student"}
        if "agreement" in measures:
            return "agreement"
        if errors:
            return "cosine"
        if "features" in measures:
            return "cka"
        raise UserError(
            "nothing can be measured on held-out images without labels: no teacher gives vectors "
            "for them; set data.evaluate_on to labelled images"
        )


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


def of_teachers(name: str, values: Mapping[str, float]) -> dict[str, float]:
    """Return the mean over the teachers; of several, also the value of each, by its name."""
    if not values:
        return {}
    mean = sum(values.values()) / len(values)
    each = {f"{name}_{teacher}": value for teacher, value in values.items()}
    found = {name: mean, **(each if len(values) > 1 else {})}
    return {key: round(value, 6) for key, value in found.items()}


def _errors_of(errors: Errors, device: torch.device) -> dict[str, float]:
    """Return cosine and relative error: of each teacher the mean over what is compared."""
    by_teacher: dict[str, list[dict[str, float]]] = {
        name: [measured(distributed.reduce_sum(pair.sums(device))) for pair in pairs.values()]
        for name, pairs in errors.items()
    }
    found: dict[str, float] = {}
    for metric in ("cosine", "relative_error"):
        means = {
            name: sum(pair[metric] for pair in pairs) / len(pairs)
            for name, pairs in by_teacher.items()
        }
        found |= of_teachers(metric, means)
    return found


def _embedded(features: Watched, loader: SplitLoader, model: nn.Module) -> Labelled:
    rows, labels = [], []
    for batch in distributed.shard(loader).epoch(0):
        prediction, values = features(batch, model)
        vector = _vector(prediction, values, list(values))
        if vector is None:
            raise UserError("probes need features [N, D]; name their tap as the role `pooled`")
        rows.append(vector.float())
        labels.append(batch["label"])
    return distributed.gather_rows(torch.cat(rows)), distributed.gather_rows(torch.cat(labels))


def _vector(prediction: Any, values: Mapping[str, Any], pooled: Sequence[str]) -> Tensor | None:
    """Return the features [N, D]: what is tapped, else the prediction; None if neither is such."""
    found = values[pooled[0]] if pooled else prediction
    return found if isinstance(found, Tensor) and found.dim() == 2 else None
