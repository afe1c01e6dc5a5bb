"""Term: a criterion with its taps, weight and warm-up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from torch import Tensor, nn

from kd_core.config.kinds import returned, subclass_of
from kd_core.config.node import Node, join, parse_call
from kd_core.config.parameters import parameters_of
from kd_core.config.values import NonNegative, check_values
from kd_core.criteria.criterion import Criterion
from kd_core.distill.stored_outputs import require_output
from kd_core.distill.tap_kinds import maps_of, paths_for
from kd_core.errors import UserError, located, nearest
from kd_core.files.weights import load_weights
from kd_core.networks.map_layout import map_values
from kd_core.networks.probe import shapes
from kd_core.networks.roles import Taps, tap_list
from kd_core.networks.taps import FeatureTap
from kd_core.networks.task import Batch, network_of
from kd_core.runtime.console import err

CRITERION = subclass_of("a criterion", Criterion)
GIVEN = ("num_classes", "num_samples", "labels", "student_shapes", "teacher_shapes")
"""Arguments that a criterion's constructor gets if it names them."""


@dataclass
class Term:
    """A criterion between taps of the student and of a teacher, with its weight.

    Args:
        criterion: Compares the two sides.
        student: Tap of the student's network, or a sequence of taps for criteria that take several
            tensors; roles such as `@stages` too. Empty for a criterion on the teacher alone. By
            default the logits: the output, unless the model says where else they are.
        teacher: The same of the teacher's network.
        weight: Factor of the criterion's value in the total loss.
        warmup_epochs: Epochs over which the factor grows linearly to `weight`.
        warmup_by: "epoch" keeps it through an epoch: number of the epoch, from 1, / epochs of the
            warm-up, at most 1, as in mdistiller (so a warm-up of one epoch is none). "step" raises
            it in every optimizer step: number of the step / steps of the warm-up.
        source: Name of the teacher; needed only where there are several.
    """

    criterion: Annotated[Criterion, CRITERION]
    student: Taps = "@logits"
    teacher: Taps = "@logits"
    weight: NonNegative = 1.0
    warmup_epochs: NonNegative = 0.0
    warmup_by: Literal["epoch", "step"] = "epoch"
    source: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.criterion, Criterion):
            raise UserError(
                f"criterion is a {type(self.criterion).__name__}; a term needs a Criterion, "
                "which is called with (student, teacher, batch)"
            )
        check_values(Term, vars(self), str)

    def factor(self, steps: Tensor, steps_per_epoch: int) -> float | Tensor:
        """Return the weight after so many optimizer steps; it stays on their device."""
        if not self.warmup_epochs:
            return self.weight
        if not steps_per_epoch:
            raise UserError(
                f"it warms up over {self.warmup_epochs} epochs: call "
                "distiller.begin(steps_per_epoch) before training and distiller.advance() after "
                "every optimizer step"
            )
        if self.warmup_by == "epoch":
            share = (steps // steps_per_epoch + 1) / self.warmup_epochs
        else:
            share = (steps + 1) / (self.warmup_epochs * steps_per_epoch)
        return self.weight * share.clamp(max=1.0)

    def loss(
        self, student_features: Mapping[str, Any], teacher_features: Mapping[str, Any], batch: Batch
    ) -> Tensor:
        """Return the criterion's value, without weight, for the features of both networks."""
        student, teacher = (
            self._fed(tap_tuple(values, taps))
            for values, taps in ((student_features, self.student), (teacher_features, self.teacher))
        )
        return self.criterion(student, teacher, batch)

    def compared(
        self, student_features: Mapping[str, Any], teacher_features: Mapping[str, Any]
    ) -> Sequence[tuple[Tensor, Tensor]]:
        """Return what the criterion predicts and the targets; see `Criterion.compared`."""
        return self.criterion.compared(
            self._fed(tap_tuple(student_features, self.student)),
            self._fed(tap_tuple(teacher_features, self.teacher)),
        )

    def _fed(self, values: tuple[Any, ...]) -> Any:
        several = self.criterion.takes == "maps" or isinstance(self.criterion.takes, tuple)
        return values if several or not values else values[0]


@dataclass(frozen=True)
class TermSpec:
    """A term as a config has it, checked.

    Args:
        call: Of `Term`; the criterion in it is a node.
        has_weights: Whether the config says `weights` of the criterion, if only that they are yet
            to be made.
        weights: File of them: of the whole criterion or of some of its submodules.
    """

    call: Node
    has_weights: bool = False
    weights: str | None = None

    def plain(self) -> dict[str, Any]:
        """Return the term as it was written."""
        return {**self.call.plain(), **({"weights": self.weights} if self.has_weights else {})}


def parse_term(value: Any, where: str) -> TermSpec:
    """Check a term's node: the arguments of `Term`, its criterion a node, and `weights`."""
    if isinstance(value, TermSpec):
        return value
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: wanted a dict, got {value!r:.200}")
    criterion = value.get("criterion")
    if criterion is not None and not (isinstance(criterion, Mapping) and "type" in criterion):
        raise UserError(f"{where}.criterion: no `type`; does the method that has this term follow?")
    weights = value.get("weights")
    if weights is not None and not isinstance(weights, str):
        raise UserError(f"{join(where, 'weights')}: wanted a file's name, got {weights!r:.200}")
    arguments = {key: item for key, item in value.items() if key != "weights"}
    return TermSpec(parse_call(Term, arguments, where, provided=GIVEN), "weights" in value, weights)


def build_terms(
    nodes: Mapping[str, TermSpec | Mapping[str, Any]],
    student: nn.Module,
    teachers: Mapping[str, nn.Module],
    sample: Batch,
    *,
    where: str = "distiller.terms",
    **provided: Any,
) -> dict[str, Term]:
    """Build terms from config nodes; no shape need be written in them.

    A node has the arguments of `Term`, its criterion being a node of its own, and may name a file
    with `weights` of the whole criterion or of some of its submodules (the product of an earlier
    phase). One pass of the sample through each network fills a criterion's `student_shapes` and
    `teacher_shapes`; `provided` fills `num_classes` and whatever else a constructor asks for.
    Messages name a node by its place under `where`.
    """
    specs = {name: parse_term(node, f"{where}.{name}") for name, node in nodes.items()}
    return {
        name: _build_term(spec, f"{where}.{name}", student, teachers, sample, provided)
        for name, spec in specs.items()
    }


def _build_term(
    spec: TermSpec,
    where: str,
    student: nn.Module,
    teachers: Mapping[str, nn.Module],
    sample: Batch,
    provided: Mapping[str, Any],
) -> Term:
    node = spec.call
    source = str(node.get("source") or next(iter(teachers), "teacher"))
    if source not in teachers:
        raise UserError(f"{where}: there is no teacher {source!r}{nearest(source, teachers)}")
    given = {}
    for side, model in (("student", student), ("teacher", teachers[source])):
        with located(f"{where}.{side}"):
            taps = node.get(side, "@logits")
            require_output(taps, model)
            given[f"{side}_shapes"] = _shapes(model, taps, sample, _class_of(node["criterion"]))
    with located(where):
        _require_known(node["criterion"], provided)
    term: Term = node.build(**given, **provided)
    criterion = term.criterion
    with located(where):
        if criterion.trained_before and not spec.has_weights:
            raise UserError(
                f"{type(criterion).__name__} needs what an earlier phase has trained, its "
                f"{', '.join(criterion.trained_before)}, which would stay random; set "
                "weights='phase:NAME/criteria/TERM.pth', or to a file of it"
            )
        if spec.weights:
            load_weights(criterion, spec.weights, parts=True)
    return term


def _require_known(criterion: Node, provided: Mapping[str, Any]) -> None:
    """Reject a criterion that asks for labels, or their number of classes, of data without any."""
    unknown = {"labels": 0, "num_classes": 1}  # fewer are none
    for name, least in unknown.items():
        value = provided.get(name, least)
        known = len(value) if isinstance(value, Tensor) else value >= least
        asked = name in parameters_of(criterion.function).names and name not in criterion
        if asked and not known and provided.get("num_samples", 0):
            what = _class_of(criterion).__name__
            raise UserError(
                f"{what} is made with {name} of the training images, which these images without "
                "labels do not have; use a criterion that needs none"
            )


def tell_of_long_warmups(terms: Mapping[str, Term], length: int, unit: str = "epochs") -> None:
    """Print which terms do not reach their weight in a run of this length."""
    for name, term in terms.items():
        if term.warmup_epochs > length:
            share = length / term.warmup_epochs
            err.print(
                f"term {name!r}: its warm-up of {term.warmup_epochs:g} {unit} is longer than the "
                f"run of {length}, so it ends at {share:.0%} of its weight; shorten the warm-up, "
                "or train longer",
                markup=False,
            )


def tap_tuple(values: Mapping[str, Any], taps: Taps) -> tuple[Any, ...]:
    """Return the values of the taps, always as a tuple."""
    return tuple(values[path] for path in tap_list(taps))


def _shapes(
    model: nn.Module, taps: Taps, sample: Batch, criterion: type[Criterion]
) -> tuple[Any, ...]:
    paths = paths_for(criterion, taps, model)
    tap = FeatureTap(network_of(model), paths)
    values = map_values(model, tap, sample, maps_of(criterion, paths))[1]
    return tap_tuple(shapes(values), paths)


def _class_of(criterion: Node) -> type[Criterion]:
    """Return the class that a criterion's node makes."""
    function = criterion.function
    made = function if isinstance(function, type) else returned(function)
    return cast(type[Criterion], made)  # `CRITERION` has seen to it
