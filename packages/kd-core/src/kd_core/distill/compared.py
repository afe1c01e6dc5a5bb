"""What terms compare, outside training: for metrics that need no labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_core.distill.stored_outputs import knows_only_training_images
from kd_core.distill.term import Term
from kd_core.networks.probe import tap_values, untouched
from kd_core.networks.roles import tap_list
from kd_core.networks.taps import FeatureTap
from kd_core.networks.task import Batch, network_of

Pairs = Sequence[tuple[Tensor, Tensor]]


class Watched:
    """A model that is run with taps; values that its network overwrites later are copied.

    Args:
        model: Called with a batch.
        paths: Taps of its network.
        sample: A batch to try it on.
    """

    def __init__(self, model: nn.Module, paths: Sequence[str], sample: Batch) -> None:
        self.model = model
        self.tap, _ = tap_values(model, FeatureTap(network_of(model), paths), sample)

    @torch.no_grad()
    def __call__(self, batch: Batch, model: nn.Module | None = None) -> tuple[Any, dict[str, Any]]:
        """Return the prediction for a batch and the taps' values.

        Args:
            batch: The batch.
            model: Runs in the place of the model; a network like the model's, such as its moving
                average, is inside. If none is, the model runs too.
        """
        model = self.model if model is None else model
        inside = _inside(model, network_of(self.model))
        if inside is None:
            return model(batch), self(batch)[1]
        with self.tap.of(inside) as values:
            prediction = model(batch)
        return prediction, values


class Comparison:
    """What terms compare in batches that nothing is trained on.

    Args:
        student: The student; nothing in it is changed.
        teachers: By name; those that know only the training images are left out, and their terms.
        terms: By name, with paths as taps.
        sources: The teacher of each term.
        sample: A batch to try things on.
        more: Further taps of the student, and of each teacher by name.
    """

    def __init__(
        self,
        student: nn.Module,
        teachers: Mapping[str, nn.Module],
        terms: Mapping[str, Term],
        sources: Mapping[str, str],
        sample: Batch,
        more: Mapping[str, Sequence[str]],
    ) -> None:
        known = {n: model for n, model in teachers.items() if not knows_only_training_images(model)}
        self.terms = {name: term for name, term in terms.items() if sources[name] in known}
        self.sources = sources
        paths: dict[str, list[str]] = {"student": [], **{name: [] for name in known}}
        for name, term in self.terms.items():
            paths["student"] += tap_list(term.student)
            paths[sources[name]] += tap_list(term.teacher)
        self._student = Watched(student, [*paths["student"], *more.get("student", ())], sample)
        self._teachers = {
            name: Watched(model, [*paths[name], *more.get(name, ())], sample)
            for name, model in known.items()
        }

    def __call__(
        self, batch: Batch, model: nn.Module
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Return the predictions for a batch, and the taps' values, by "student" and teacher.

        Args:
            batch: The batch.
            model: Of the student, as it is evaluated.
        """
        ran = {"student": self._student(batch, model)}
        ran |= {name: teacher(batch) for name, teacher in self._teachers.items()}
        return {name: one for name, (one, _) in ran.items()}, {
            name: v for name, (_, v) in ran.items()
        }

    def pairs(self, values: Mapping[str, Mapping[str, Any]]) -> dict[str, list[tuple[str, Pairs]]]:
        """Return by teacher what its terms predict, and the targets; see `Criterion.compared`.

        Args:
            values: Those of all taps.
        """
        found: dict[str, list[tuple[str, Pairs]]] = {}
        for name, term in self.terms.items():
            source = self.sources[name]
            with untouched(term.criterion):
                pairs = term.compared(values["student"], values[source])
            if pairs:
                found.setdefault(source, []).append((name, pairs))
        return found


def _inside(model: nn.Module, network: nn.Module) -> nn.Module | None:
    """Return the module of a model that is a network, or of the same kind with the same tensors."""
    modules = list(model.modules())
    if any(module is network for module in modules):
        return network
    names = network.state_dict().keys()
    alike = (m for m in modules if type(m) is type(network) and m.state_dict().keys() == names)
    return next(alike, None)
