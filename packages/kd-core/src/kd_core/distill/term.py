"""Term: a criterion with its taps, weight and warm-up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast, get_type_hints

from torch import Tensor, nn

from kd_core.config.kinds import returned, subclass_of
from kd_core.config.node import Node, join, parse_call
from kd_core.config.parameters import parameters_of
from kd_core.config.values import NonNegative, Share, check_values
from kd_core.criteria.criterion import Criterion, Shapes, Side
from kd_core.criteria.guarded import guarded
from kd_core.criteria.tap_advice import require_tensors
from kd_core.distill.sources import listed_sources, of_each_teacher
from kd_core.distill.stored_outputs import require_output
from kd_core.distill.tap_kinds import maps_of, paths_for
from kd_core.distill.term_spec import TermSpec, require_criterion
from kd_core.distill.weight_schedule import fallen, warmed_up
from kd_core.errors import UserError, located, nearest
from kd_core.files.weights import load_weights
from kd_core.functional import full_precision
from kd_core.networks.map_layout import map_values
from kd_core.networks.probe import shapes
from kd_core.networks.roles import Taps, tap_list
from kd_core.networks.taps import FeatureTap
from kd_core.networks.task import Batch, network_of

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
        source: Name of the teacher; needed only where there are several. In a config, a list of
            names makes a term NAME_TEACHER for each of them, joined under the name of the term.
        joint: Name of one loss that terms of several teachers have together, from their losses of
            every image; see `kd_core.distill.joint_terms`.
        drop: Probability that a joint loss leaves a teacher of an image out, the one with the
            largest loss excepted; 0.5 by default. The same in all terms of a joint loss.
        decay_after: Epochs after which the factor falls along half a cosine, by epoch, to 0 in the
            last one; None keeps it. In a run that is not longer it does not fall.
    """

    criterion: Annotated[Criterion, CRITERION]
    student: Taps = "@logits"
    teacher: Taps = "@logits"
    weight: NonNegative = 1.0
    warmup_epochs: NonNegative = 0.0
    warmup_by: Literal["epoch", "step"] = "epoch"
    source: str | None = None
    joint: str | None = None
    drop: Share | None = None
    decay_after: NonNegative | None = None

    def __post_init__(self) -> None:
        require_criterion(self.criterion)
        check_values(Term, vars(self), str)
        if self.joint == "":
            raise UserError("joint is ''; give the loss a name, such as 'joint'")
        if self.drop is not None and self.joint is None:
            raise UserError(
                f"drop={self.drop:g} leaves out one of several teachers; name them all as source, "
                "or set joint"
            )

    def factor(
        self, steps: Tensor, steps_per_epoch: int, epochs: int | None = None
    ) -> float | Tensor:
        """Return the weight after so many optimizer steps; it stays on their device.

        Args:
            steps: Optimizer steps that are done.
            steps_per_epoch: 0 if nobody has said.
            epochs: Of the whole run.
        """
        grown = warmed_up(self.warmup_epochs, self.warmup_by, steps, steps_per_epoch)
        return self.weight * grown * fallen(self.decay_after, steps, steps_per_epoch, epochs)

    def loss(
        self, student_features: Mapping[str, Any], teacher_features: Mapping[str, Any], batch: Batch
    ) -> Tensor:
        """Return the criterion's value, without weight, for the features of both networks."""
        return self.criterion(*self._sides(student_features, teacher_features), batch)

    def losses_of_images(
        self, student_features: Mapping[str, Any], teacher_features: Mapping[str, Any], batch: Batch
    ) -> Tensor:
        """Return the same for every image, [N]; see `Criterion.per_image`."""
        sides = self._sides(student_features, teacher_features)
        return full_precision(self.criterion.per_image)(*sides, guarded(self.criterion, batch))

    def _sides(
        self, student_features: Mapping[str, Any], teacher_features: Mapping[str, Any]
    ) -> tuple[Any, Any]:
        return (
            self._fed(tap_tuple(student_features, self.student)),
            self._fed(tap_tuple(teacher_features, self.teacher)),
        )

    def compared(
        self, student_features: Mapping[str, Any], teacher_features: Mapping[str, Any]
    ) -> Sequence[tuple[Tensor, Tensor]]:
        """Return what the criterion predicts and the targets; see `Criterion.compared`."""
        return self.criterion.compared(*self._sides(student_features, teacher_features))

    def _fed(self, values: tuple[Any, ...]) -> Any:
        return values if self.criterion.fed_in_a_tuple() or not values else values[0]


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
    sources = listed_sources(value.get("source"), join(where, "source"))
    left_out = ("weights", "source") if sources else ("weights",)
    arguments = {key: item for key, item in value.items() if key not in left_out}
    call = parse_call(Term, arguments, where, provided=GIVEN)
    return TermSpec(call, "weights" in value, weights, sources)


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
    if several := {name: specs.pop(name) for name in nodes if specs[name].sources}:
        specs |= of_each_teacher(several, specs.keys(), where)
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
    criterion_class = _class_of(node["criterion"])
    with located(f"{where}.criterion"):
        criterion_class.check_takes()
    sides: tuple[tuple[Side, nn.Module], ...] = ("student", student), ("teacher", teachers[source])
    for side, model in sides:
        with located(f"{where}.{side}"):
            taps = node.get(side, "@logits")
            require_output(taps, model)
            given[f"{side}_shapes"] = _shapes(model, taps, sample, criterion_class, side)
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


def tap_tuple(values: Mapping[str, Any], taps: Taps) -> tuple[Any, ...]:
    """Return the values of the taps, always as a tuple."""
    return tuple(values[path] for path in tap_list(taps))


def _shapes(
    model: nn.Module, taps: Taps, sample: Batch, criterion: type[Criterion], side: Side
) -> tuple[Any, ...]:
    paths = paths_for(criterion, taps, model, side)
    tap = FeatureTap(network_of(model), paths)
    values = map_values(model, tap, sample, maps_of(criterion, paths, side))[1]
    found = shapes(values)
    if get_type_hints(criterion.__init__).get(f"{side}_shapes") == Shapes:
        require_tensors(criterion.__name__, str(criterion.takes), found)
    return tap_tuple(found, paths)


def _class_of(criterion: Node) -> type[Criterion]:
    """Return the class that a criterion's node makes."""
    function = criterion.function
    made = function if isinstance(function, type) else returned(function)
    return cast(type[Criterion], made)  # `CRITERION` has seen to it
