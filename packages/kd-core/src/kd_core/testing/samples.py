"""Find criteria, and make one of any class with inputs that fit."""

from collections.abc import Callable, Iterator
from importlib import import_module
from inspect import Parameter, signature
from pkgutil import walk_packages
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kd_core.criteria.criterion import KINDS, Criterion, Shapes
from kd_core.errors import UserError, nearest

FILLED_IN = ("student_shapes", "teacher_shapes", "num_classes", "num_samples", "labels")
"""Constructor arguments that the builder fills in."""

C = TypeVar("C", bound=Criterion)
Inputs = tuple[Any, Any, dict[str, Any]]

# Student and teacher; a criterion without adapters gets the student's shape on both sides.
_SHAPES: dict[str, tuple[Shapes, Shapes]] = {
    "logits": (((7,),), ((7,),)),
    "vectors": (((6,),), ((8,),)),
    "tokens": (((5, 6),), ((5, 8),)),
    "maps": (((4, 8, 8), (6, 4, 4)), ((6, 8, 8), (8, 4, 4))),
}


def discover(package: str = "kd_core.criteria") -> list[type[Criterion]]:
    """Return every public criterion defined in a package or module, sorted by name."""
    root = import_module(package)
    found = {cls for module in _modules(root) for cls in _criteria(module)}
    return sorted(found, key=lambda cls: cls.__name__)


def make(cls: type[C], **overrides: Any) -> C:
    """Construct a criterion of any class.

    Args:
        cls: The class. Arguments of its constructor in `FILLED_IN` are filled in.
        overrides: Other arguments, or other values for those.

    Raises:
        UserError: If another argument has no default and is not given.
    """
    known = _known(cls, overrides)
    accepted = parameters(cls)
    given = {name: value for name, value in overrides.items() if name not in FILLED_IN}
    given |= {name: known[name] for name in FILLED_IN if name in accepted}
    missing = [
        name
        for name, parameter in accepted.items()
        if parameter.default is Parameter.empty and name not in given
    ]
    if missing:
        raise UserError(
            f"{cls.__name__}: {', '.join(missing)} has no default and is none of the arguments "
            f"filled in ({', '.join(FILLED_IN)}); give it a default or an override"
        )
    criterion = cls(**given)
    shapes = known["student_shapes"], known["teacher_shapes"]
    criterion.check_shapes(*shapes)
    student, teacher = (_Network(side, known["num_classes"]) for side in shapes)
    criterion.bind(student, teacher.eval().requires_grad_(False), (student.taps, teacher.taps))
    return criterion


def sample(
    cls: type[Criterion],
    *,
    size: int = 4,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    **overrides: Any,
) -> Inputs:
    """Return outputs of student and teacher, both requiring gradients, and a batch.

    Args:
        cls: The class that takes them.
        size: Images in the batch; 12 at most, unless `num_samples` is given.
        dtype: Of both outputs.
        device: Of everything.
        overrides: As for `make`, so that inputs and criterion fit each other.
    """
    known = _known(cls, overrides)
    generator = torch.Generator().manual_seed(0)
    rows = size * cls.views

    def draw(shapes: Shapes) -> Any:
        drawn = tuple(torch.randn((rows, *shape), generator=generator) for shape in shapes)
        drawn = tuple(x.to(device, dtype).requires_grad_() for x in drawn)
        return drawn if cls.takes == "maps" or isinstance(cls.takes, tuple) else drawn[0]

    index = torch.randperm(known["num_samples"], generator=generator)[:size].repeat(cls.views)
    image = torch.randint(256, (rows, 3, 8, 8), generator=generator, dtype=torch.uint8)
    batch = {"image": image, "label": known["labels"][index], "index": index}
    batch |= {"epoch": torch.tensor(2.5)}
    moved: dict[str, Any] = {name: value.to(device) for name, value in batch.items()}
    # The same boxes in every image, so that these may come in any order.
    boxes = torch.tensor([[1.0, 2.0, 5.0, 6.0], [3.0, 0.0, 7.5, 4.0]], device=device)
    moved |= {"boxes": [boxes] * rows, "padded_size": (8, 8)}
    moved |= {"image_sizes": torch.tensor([[7, 8]], device=device).expand(rows, 2)}
    views = {"num_views": cls.views} if cls.views > 1 else {}
    return draw(known["student_shapes"]), draw(known["teacher_shapes"]), moved | views


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply a function to every tensor inside tuples and dicts; leave all else."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {name: map_tensors(function, item) for name, item in value.items()}
    if isinstance(value, tuple):
        return tuple(map_tensors(function, item) for item in value)
    return value


def _known(cls: type[Criterion], overrides: dict[str, Any]) -> dict[str, Any]:
    """Values for the five arguments that a builder fills in."""
    takes = getattr(cls, "takes", "")
    kinds = takes if isinstance(takes, tuple) else (takes,)
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"{cls.__name__}.takes is {takes!r}{nearest(kind, KINDS)}")
    student, teacher = _shapes(kinds, overrides)
    if "teacher_shapes" not in parameters(cls):
        teacher = student
    if cls.example is not None:
        student, teacher = cls.example
    classes, samples = overrides.get("num_classes", 7), overrides.get("num_samples", 12)
    labels = torch.arange(samples) % classes
    if cls.multi_label:  # every image has about two thirds of the classes
        labels = ((labels[:, None] + torch.arange(classes)) % 3 > 0).float()
    known = dict(zip(FILLED_IN, (student, teacher, classes, samples, labels), strict=True))
    return known | {name: value for name, value in overrides.items() if name in known}


def _shapes(kinds: tuple[str, ...], overrides: dict[str, Any]) -> tuple[Shapes, Shapes]:
    known = dict(_SHAPES)
    if "num_classes" in overrides:
        known["logits"] = (((overrides["num_classes"],),),) * 2
    sides = [[shape for kind in kinds for shape in known[kind][side]] for side in range(2)]
    return tuple(sides[0]), tuple(sides[1])


class _Network(nn.Module):
    """Network for `bind`, with the modules that a criterion may look for.

    `level0` and so on are BatchNorms of the tapped maps' channels, `head` is the classifier.
    """

    def __init__(self, shapes: Shapes, num_classes: int) -> None:
        super().__init__()
        self.taps = tuple(f"level{number}" for number in range(len(shapes)))
        for tap, shape in zip(self.taps, shapes, strict=True):
            self.add_module(tap, nn.BatchNorm2d(shape[0]) if len(shape) == 3 else nn.Identity())
        self.head = nn.Linear(shapes[-1][0] if shapes else 1, num_classes)


def parameters(cls: type[Criterion]) -> dict[str, Parameter]:
    """Return the named parameters of a class's constructor."""
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return {n: p for n, p in signature(cls).parameters.items() if p.kind in named}


def _modules(root: ModuleType) -> Iterator[ModuleType]:
    yield root
    for info in walk_packages(getattr(root, "__path__", []), root.__name__ + "."):
        yield import_module(info.name)


def _criteria(module: ModuleType) -> Iterator[type[Criterion]]:
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
        method = own and value is not Criterion  # the base class is in the same package
        if method and isinstance(value, type) and issubclass(value, Criterion):
            yield value
