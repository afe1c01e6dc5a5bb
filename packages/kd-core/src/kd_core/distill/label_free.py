"""Measures of a student that need no labels, on images that are held out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from kd_core.data.split_loader import SplitLoader
from kd_core.distill.compared import Comparison
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.metrics import linear_cka
from kd_core.networks.task import Batch
from kd_core.representations import FeatureError, effective_rank, measured
from kd_core.runtime import distributed

Rows = dict[tuple[str, str], Tensor]
"""By what is measured and the network's name, [N, ...]."""
Errors = dict[str, dict[tuple[str, int], FeatureError]]
"""By teacher; of every pair that a term compares."""


class LabelFree:
    """Measures a student on held-out images without labels; a task adds what it can beside.

    `effective_rank` of the student's features, and their `cka` with the teachers'
    (`kd_core.metrics.linear_cka`; 0 where either is constant). Of the terms whose criteria predict
    a teacher's features: `cosine` and `relative_error`, see `FeatureError`. Each is the mean over
    the teachers; of several, each has its own value too, such as `cosine_NAME`.

    Args:
        student: In its task.
        teachers: By name.
        terms: By name, with paths as taps.
        sources: The teacher of each term.
        held_out: Images that nothing is trained on.
        sample: A batch to try things on.
        advice: What to do if nothing can be measured.
        pooled: Returns the tap of a network's features; none where its output has them.
    """

    def __init__(
        self,
        student: nn.Module,
        teachers: Mapping[str, nn.Module],
        terms: Mapping[str, Term],
        sources: Mapping[str, str],
        held_out: SplitLoader,
        sample: Batch,
        *,
        advice: str,
        pooled: Callable[[nn.Module], list[str]] = lambda model: [],
    ) -> None:
        self.held_out, self.advice = distributed.shard(held_out), advice
        self.pooled = {name: pooled(model) for name, model in teachers.items()}
        self.pooled["student"] = pooled(student)
        self._comparison = Comparison(student, teachers, terms, sources, sample, self.pooled)

    @classmethod
    def of(cls, distiller: Distiller, *more: Any, **named: Any) -> Self:
        """Return what measures the student of a distiller; `more` is what the task needs."""
        teachers = {name: teacher.model for name, teacher in distiller.teachers.items()}
        sources = {name: distiller.source(name) for name in distiller.terms}
        return cls(distiller.student, teachers, distiller.terms, sources, *more, **named)

    def labelled(self, model: nn.Module) -> dict[str, float]:
        """Return what is measured of the student on labelled images, if there are any."""
        return {}

    def agreed(self, predictions: Mapping[str, Any]) -> Rows:
        """Return in which images teachers and the student agree, [N], by ("agreement", NAME).

        Args:
            predictions: By "student" and teacher.
        """
        return {}

    def vector(self, prediction: Any, values: Mapping[str, Any], name: str) -> Tensor | None:
        """Return a network's features [N, D]: tapped, else its output; None if that is not [N, D].

        Args:
            prediction: What the network gives.
            values: Those of its taps.
            name: "student", or that of the teacher.
        """
        paths = self.pooled[name]
        return matrix(values[paths[0]] if paths else prediction)

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
        found = self.labelled(model)
        by: dict[str, dict[str, Tensor]] = {"agreement": {}, "features": {}}
        for (what, name), row in rows.items():
            by[what][name] = row
        shares = {name: 100 * row.mean().item() for name, row in by["agreement"].items()}
        alike = {
            name: linear_cka(own, row).nan_to_num(0).item() for name, row in by["features"].items()
        }
        found |= of_teachers("agreement", shares) | _errors_of(errors, own.device)
        found |= of_teachers("cka", alike)
        return {**found, "effective_rank": round(effective_rank(own).item(), 4)}

    def measurable(self, sample: Batch, student: nn.Module) -> str:
        """Return the metric that defines the best epoch where there are no labels at all.

        Raises:
            UserError: If there is none.
        """
        errors: Errors = {}
        student.eval()
        with torch.no_grad():
            rows = self._look(sample, student, errors)
        measures = {what for what, name in rows if name != "student"}
        if "agreement" in measures:
            return "agreement"
        if errors:
            return "cosine"
        if "features" in measures:
            return "cka"
        raise UserError(
            "nothing can be measured on held-out images without labels: no teacher gives vectors "
            f"for them; {self.advice}"
        )

    def _look(self, batch: Batch, model: nn.Module, errors: Errors) -> Rows:
        """Return what is kept of a batch; the errors of predictions are added up."""
        predictions, values = self._comparison(batch, model)
        rows = self.agreed(predictions)
        for name, prediction in predictions.items():
            vector = self.vector(prediction, values[name], name)
            if vector is not None:
                rows["features", name] = vector.float()
        for name, terms in self._comparison.pairs(values).items():
            for term, pairs in terms:
                for place, pair in enumerate(pairs):
                    each = errors.setdefault(name, {})
                    each.setdefault((term, place), FeatureError()).add(*pair)
        return rows


def matrix(found: Any) -> Tensor | None:
    """Return features [N, D]; None if it is not that."""
    return found if isinstance(found, Tensor) and found.dim() == 2 else None


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
    by_teacher: dict[str, Sequence[dict[str, float]]] = {
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
