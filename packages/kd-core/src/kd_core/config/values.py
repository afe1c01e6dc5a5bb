"""Check values of arguments against the annotations of their callable."""

import inspect
import json
import re
import types
import typing
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from typing import Annotated, Any

from pydantic import ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError

from kd_core.errors import UserError, nearest

_LARGEST = 1e30  # fits in float32, and its square in Python's numbers: losses have both
Finite = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=_LARGEST, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, le=_LARGEST, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(gt=0, lt=1)]
"""What a moving average keeps of itself in a step: between 0 and 1."""
Part = Annotated[float, Field(ge=0, lt=1)]
"""A part of a whole, but not all of it."""
Fraction = Annotated[float, Field(gt=0, lt=1)]
"""A part of a whole, neither nothing nor all of it."""
PositiveInt = Annotated[int, Field(gt=0, le=2**31)]
NonNegativeInt = Annotated[int, Field(ge=0, lt=2**63)]
SeveralInt = Annotated[int, Field(ge=2, le=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""Of a run: as many as NumPy's generator takes."""
PositiveValues = Annotated[Sequence[Positive], Field(min_length=1)]
PositiveInts = Annotated[Sequence[PositiveInt], Field(min_length=1)]
BetaParameter = Annotated[float, Field(ge=1e-3, le=1e3)]
"""Of the distribution Beta(a, a)."""
Pixels = Annotated[int, Field(gt=0, le=2**14)]
Margin = Annotated[int, Field(ge=0, le=2**10)]
"""Pixels around an image."""
Enlargement = Annotated[float, Field(ge=1, le=8)]
"""Factor of an image's sides."""
HeightWidth = Annotated[Sequence[Pixels], Field(min_length=2, max_length=2)]
_OF_COLOUR, _OF_GREY = Field(min_length=3, max_length=3), Field(min_length=1, max_length=1)
Means = Annotated[Sequence[Finite], _OF_COLOUR] | Annotated[Sequence[Finite], _OF_GREY]
"""Of pixels, one for each channel: three of colour, one of grey."""
Deviations = Annotated[Sequence[Positive], _OF_COLOUR] | Annotated[Sequence[Positive], _OF_GREY]
"""Standard deviations, one for each channel."""
Colour = Annotated[Sequence[Share], _OF_COLOUR]
"""Red, green and blue in [0, 1]."""

ClassNames = Annotated[Sequence[str], Field(min_length=1)]
"""In the order of logits."""
NamesOrFile = Annotated[Sequence[str], Field(min_length=1)] | str
"""The same, or a text file with a name in each line."""

_OF_SEVERAL = (list, tuple, dict, Sequence, Mapping)
_SETTINGS = ConfigDict(strict=True, arbitrary_types_allowed=True)
_WORDS = {
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_unicode": "text in UTF-8",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a dict",
    "mapping_type": "a dict",
    "none_required": "none",
    "missing": "a longer list",
    "callable_type": "a dict with `type`",
    "needs_python_object": "an object, by a dict with `type`",
}
"""What was wanted, by pydantic's error type."""

_BOUNDS = {"gt": "greater than", "ge": "of at least", "lt": "less than", "le": "of at most"}


def check_values(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    place: Callable[[str], str],
) -> None:
    """Check arguments against the annotations of a callable, ranges included.

    Only plain values are checked: numbers, strings, bools, None, and lists and dicts of them. A
    node (a dict with `type`) is checked when it is built; objects are not checked. A whole number
    is accepted as a float and a list as a tuple, but a text never as a number.

    Args:
        function: What will be called.
        arguments: Its arguments by name. Names that it does not have are ignored.
        place: Maps the name of an argument to its place in the config, for messages.

    Raises:
        UserError: For the first value that does not fit: place, what was wanted, what came.
    """
    annotations = annotations_of(function)
    for name, value in arguments.items():
        annotation = annotations.get(name)
        if isinstance(value, list | tuple) and annotation in (int, float):
            continue  # torchvision's RandomErasing says `value: float`, and takes three
        if annotation is not None and (_is_plain(value) or _is_misplaced(value, annotation)):
            problem = _problem(annotation, value)
            if problem:
                raise UserError(f"{place(name)}: {problem}")


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a callable that checks its arguments by `check_values` at every call.

    For constructors, not for losses, which run in every step.
    """
    signature, title = inspect.signature(function), function.__qualname__.removesuffix(".__init__")

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        check_values(function, bound.arguments, lambda name: f"{title}: {name}")
        return function(*args, **kwargs)

    return call


@cache
def annotations_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the resolved annotations of a callable's parameters; empty if that is not possible."""
    try:
        parameters = inspect.signature(function, eval_str=True).parameters.values()
    except (NameError, TypeError, ValueError, AttributeError, SyntaxError):
        return {}  # annotations for a type checker only, or a callable written in C
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        p.name: p.annotation | None if _may_be_none(p) else p.annotation
        for p in parameters
        if p.kind not in several and p.annotation is not p.empty
    }


def _may_be_none(parameter: inspect.Parameter) -> bool:
    """Return whether a parameter is written `x: int = None`, as older code has it."""
    hint = parameter.annotation
    return parameter.default is None and inspect.isclass(hint) and hint is not type(None)


def _is_plain(value: Any) -> bool:
    """Return whether a value consists of JSON types only, without a node in it."""
    if isinstance(value, Mapping):
        return "type" not in value and all(
            isinstance(key, str) and _is_plain(item) for key, item in value.items()
        )
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (str, int, float, bool)


def _is_misplaced(value: Any, annotation: Any) -> bool:
    """Return whether a node is where only numbers, texts and lists of them can be."""
    inside = _holds_node(value)
    return (inside or isinstance(value, Mapping)) and _is_simple(annotation, several=inside)


def _holds_node(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "type" in value or any(map(_holds_node, value.values()))
    return isinstance(value, list | tuple) and any(map(_holds_node, value))


def _is_simple(annotation: Any, *, several: bool) -> bool:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _is_simple(inner[0], several=several)
    if origin in (typing.Union, types.UnionType) or (several and origin in _OF_SEVERAL):
        return all(_is_simple(each, several=several) for each in inner if each is not Ellipsis)
    return origin is typing.Literal or annotation in (int, float, str, bool, type(None))


def _problem(annotation: Any, value: Any) -> str:
    """Return what is wrong with a value; "" if it fits, or that is unknown."""
    adapter = _adapter(annotation)
    if adapter is None:
        return ""
    try:
        # As JSON, a list may be a tuple and a whole number a float, but a text is not a number.
        text = json.dumps(value, ensure_ascii=False, default=lambda _: {"type": None})
        adapter.validate_json(text)
    except ValidationError as error:
        return _text(error, value)
    except PydanticUserError:  # an annotation with names for a type checker only
        return ""
    except UnicodeEncodeError:
        return f"wanted text, got {value!r}, which cannot be written in UTF-8"
    return ""


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    """Return what validates values of an annotation; None where nothing is known of them."""
    try:
        return _known_adapter(annotation)
    except TypeError:  # it cannot be hashed
        return None


@cache
def _known_adapter(annotation: Any) -> TypeAdapter[Any] | None:
    with warnings.catch_warnings(action="ignore"):  # that of an odd one it checks nothing
        try:
            return TypeAdapter(annotation, config=_SETTINGS)
        except Exception:  # pydantic's own: a type that it does not know, or one with own settings
            return None


def _text(error: ValidationError, value: Any) -> str:
    """Return what was wanted and what came, in one line; "" if the callable should say it."""
    problems = error.errors(include_url=False)
    if any(problem["type"] == "enum" for problem in problems):
        return ""  # often the callable takes names of members too
    inner = max(len(problem["loc"]) for problem in problems)  # of a union, what comes nearest
    problems = [problem for problem in problems if len(problem["loc"]) == inner]
    wanted = dict.fromkeys(_wanted(problem) for problem in problems)
    if len(wanted) > 1:  # "or a Tensor" does not help in a config
        wanted.pop(_WORDS["needs_python_object"], None)
    literals = [problem["ctx"]["expected"] for problem in problems if "expected" in _ctx(problem)]
    choices = [choice for text in literals for choice in re.findall("'([^']*)'", text)]
    hint = nearest(value, choices) if isinstance(value, str) and len(choices) > 1 else ""
    return f"wanted {' or '.join(wanted)}, got {value!r:.80}{hint}"


def _wanted(problem: Any) -> str:
    kind, context = problem["type"], _ctx(problem)
    if kind in _WORDS:
        return _WORDS[kind]
    for name, words in _BOUNDS.items():
        if name in context:
            return f"a number {words} {context[name]:.10g}"
    if kind in ("too_short", "too_long"):
        fewest, most = context.get("min_length"), context.get("max_length")
        least, number = ("at least", fewest) if most is None else ("at most", most)
        return f"{least} {number} value{'s' if number != 1 else ''}"
    if "class" in context:
        return f"a {context['class']}"
    message = str(problem["msg"]).removeprefix("Input should be ")
    return message[:1].lower() + message[1:]


def _ctx(problem: Any) -> dict[str, Any]:
    return problem.get("ctx", {})
