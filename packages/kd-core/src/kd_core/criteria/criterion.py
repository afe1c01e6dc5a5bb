"""Base class of distillation losses."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar

from torch import Tensor, nn

from kd_core.config.parameters import call_problem
from kd_core.config.values import checked
from kd_core.criteria.guarded import guarded
from kd_core.criteria.tap_advice import described, is_shape, tap_hint
from kd_core.errors import UserError
from kd_core.functional import full_precision

Shapes = Sequence[Sequence[int]]
"""One shape per tap, without the batch dimension: `((64, 8, 8),)`."""

Side = Literal["student", "teacher"]

KINDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "logits": ("[N, C]", (1,)),
    "vectors": ("[N, D]", (1,)),
    "tokens": ("[N, L, D]", (2,)),
    "maps": ("[N, C, H, W]", (3,)),
    "features": ("[N, C, H, W] or [N, L, D]", (3, 2)),
}
"""What a criterion can take: how it is written and its ranks without the batch dimension."""

M = TypeVar("M", bound=nn.Module)


class Borrowed(Generic[M]):
    """Holds a module of a network for a criterion, without registering it as a submodule.

    So the criterion neither trains, saves nor moves it.

    A deepcopy of the whole distiller refers to the copied network.

    Args:
        module: Such as the classifier of the student.
    """

    def __init__(self, module: M) -> None:
        self.module = module

    def __deepcopy__(self, memo: dict[int, Any]) -> "Borrowed[M]":
        return Borrowed(memo.get(id(self.module), self.module))


class Criterion(nn.Module):
    """Base class of distillation losses: takes tensors of student and teacher, returns a scalar.

    A subclass states what it `takes` and writes `forward(student, teacher, batch)`: the first two
    as `takes` says, `batch` a dict with `image`, `label`, `index` and whatever else the task gives.
    The result is the mean over the batch before any outer weight, and 0 for an empty batch. No
    gradient may flow into the teacher. Adapters are ordinary submodules, memory banks are buffers.

    Calling it switches autocast off and promotes every floating tensor to at least float32, so
    that adapters too run in full precision.

    Constructor arguments named `student_shapes`, `teacher_shapes` (see `Shapes`), `num_classes`,
    `num_samples` and `labels` are filled in by the builder; all others need a default.
    """

    takes: ClassVar[str | tuple[str, ...]]
    """`logits`, `vectors`, `tokens`, `features` (a map or tokens), each one tensor; `maps` (a
    tuple, shallow to deep); or a tuple of such names: one tensor of each, in this order."""

    teacher_takes: ClassVar[str | tuple[str, ...] | None] = None
    """The same of the teacher, where that is something else; a tuple if `takes` is one."""

    reads_classes: ClassVar[bool] = False
    """Whether it compares classes though it is not fed logits, by the networks' classifiers."""

    vectors_too: ClassVar[bool] = False
    """Whether what takes maps takes vectors [N, D] as well."""

    views: ClassVar[int] = 1
    """Views of every image that a batch must hold, view-major; see `batch["num_views"]`."""

    example: ClassVar[tuple[Shapes, Shapes] | None] = None
    """Shapes of student and teacher for the tests, where the criterion does not take all shapes."""

    example_arguments: ClassVar[Mapping[str, Any]] = {}
    """Arguments of its constructor for the tests, where they have no default."""

    example_samples: ClassVar[int] = 12
    """Images of the data set in the tests; more where the default arguments need more."""

    multi_label: ClassVar[bool] = False
    """Whether it is for labels [N, C] of 0 and 1, and logits as a sigmoid takes them. If not, data
    with such labels is refused where it takes logits, or reads `label`, which it takes as [N]."""

    trained_before: Sequence[str] = ()
    """What an earlier phase makes, by the names of submodules and buffers; a term without `weights`
    for them is an error."""

    exempt: ClassVar[Mapping[str, str]] = {}
    """Rules of `kd_core.testing.contract` that cannot hold here, each with the reason."""

    def __init__(self) -> None:
        super().__init__()
        self.check_takes()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):  # checks the hyper-parameters, whoever constructs it
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]

    @full_precision
    def __call__(self, student: Any, teacher: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss, computed in full precision whatever is given.

        Raises:
            UserError: If it reads what the batch lacks, `label` or `index` where images are mixed,
                or the labels of multi-label data without being for them (`multi_label`).
        """
        return super().__call__(student, teacher, guarded(self, batch))

    def check_shapes(self, student: Shapes, teacher: Shapes) -> None:
        """Reject, before training, shapes that this criterion cannot compare.

        Called once at construction of a distiller; criteria that need more extend it.

        Raises:
            UserError: If a tensor is not what `takes` says, the numbers of taps differ, or logits
                have different numbers of classes.
        """
        self._check_kinds("student", student)
        self._check_kinds("teacher", teacher)
        name = type(self).__name__
        if len(student) != len(teacher):
            raise UserError(
                f"{name}: {len(student)} taps of the student, {len(teacher)} of the teacher; "
                "tap as many levels of the one as of the other"
            )
        for kind, one, other in zip(self.kinds(len(student)), student, teacher, strict=True):
            if kind == "logits" and one[-1] != other[-1]:
                raise UserError(
                    f"{name}: student has {one[-1]} classes, teacher {other[-1]}: logit "
                    "terms need the same classes; use such a teacher, or a criterion on features"
                )

    @classmethod
    def check_takes(cls) -> None:
        """Reject a class that does not say what it is fed, or does not take that.

        Raises:
            UserError: Names the attribute, or the method.
        """
        for name in ("takes", "teacher_takes"):
            given = getattr(cls, name, "")
            kinds = given if isinstance(given, tuple) and given else (given,)
            known = all(isinstance(kind, str) and kind in KINDS for kind in kinds)
            if not known and (given is not None or name == "takes"):
                came = f"is {given!r}" if given else "is missing"
                raise UserError(
                    f"{cls.__module__}.{cls.__qualname__}: its class attribute `{name}` {came}; it "
                    f"says what the criterion is fed: {', '.join(KINDS)}, or a tuple of these"
                )
        if problem := call_problem(cls, "forward", "student", "teacher", "batch"):
            raise UserError(f"{cls.__module__}.{cls.__qualname__}: forward {problem}")

    @classmethod
    def kinds(cls, count: int, side: Side = "student") -> tuple[str, ...]:
        """Return the kind of every tap of a network, such as `maps`, if there are so many."""
        takes = cls._takes_of(side)
        if isinstance(takes, tuple):
            return takes
        return (takes,) * (count if takes == "maps" else 1)

    @classmethod
    def fed_in_a_tuple(cls) -> bool:
        """Return whether it is given tuples of tensors, not one tensor of each network."""
        return cls.takes == "maps" or isinstance(cls.takes, tuple)

    @classmethod
    def takes_logits(cls) -> bool:
        """Return whether it is fed the logits of either network."""
        return "logits" in cls.takes or "logits" in (cls.teacher_takes or ())

    @classmethod
    def _takes_of(cls, side: Side) -> str | tuple[str, ...]:
        if side == "teacher" and cls.teacher_takes is not None:
            return cls.teacher_takes
        return cls.takes

    def bind(
        self, student: nn.Module, teacher: nn.Module, taps: tuple[Sequence[str], Sequence[str]]
    ) -> None:
        """Read the weights of the networks that are needed; called once, before training.

        Args:
            student: The student's network. A module of it that is kept must be `Borrowed`, or this
                criterion would train and save it.
            teacher: The teacher's network, frozen.
            taps: Paths of what the criterion is fed, in the student and in the teacher.
        """

    def compared(self, student: Any, teacher: Any) -> Sequence[tuple[Tensor, Tensor]]:
        """Return what it compares, as pairs: the student's prediction, and the teacher's features.

        For the metrics of a training without labels. Both sides of a pair are [..., D]: after the
        adapters, and after whatever is done to the teacher's. Empty, as here, where a criterion
        does not predict the teacher's features.
        """
        return ()

    def product(self) -> dict[str, Tensor]:
        """Return what a run leaves of it for the `weights` of later phases: its whole state."""
        return self.state_dict()

    def per_image(self, student: Any, teacher: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of every image, [N], whose mean `forward` returns.

        For terms that join several teachers image by image. Most criteria have only one loss for a
        batch; those that have this one override it.
        """
        raise NotImplementedError

    def deploy(self, student: nn.Module) -> nn.Module:
        """Return the network to evaluate and export: the student, unless the method changes it."""
        return student

    def deploy_node(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the config node that builds what `deploy` returns, from that of the student."""
        return node

    def compares_classes(self) -> bool:
        """Return whether student and teacher must have the same classes in the same order."""
        return self.reads_classes or self.takes_logits()

    def _check_kinds(self, side: Side, shapes: Shapes) -> None:
        name = type(self).__name__
        kinds = self.kinds(len(shapes), side)
        if not shapes or len(shapes) != len(kinds):
            wanted = " and ".join(f"one tensor {KINDS[kind][0]}" for kind in kinds or ("maps",))
            raise UserError(
                f"{name} takes {wanted} of each network, but the {side} has {len(shapes)} taps; "
                f"name {len(kinds) or 'at least one'}"
            )
        for kind, shape in zip(kinds, shapes, strict=True):
            form, ranks = KINDS[kind]
            ranks += (1,) if self.vectors_too else ()
            if not is_shape(shape) or len(shape) not in ranks:
                raise UserError(
                    f"{name} takes {kind} {form}, but a tap of the {side} gives "
                    f"{described(shape)}; {tap_hint(kind, shape)}"
                )
