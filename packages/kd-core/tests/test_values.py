"""values: arguments against the annotations of what they go to."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import pytest
import torch
from kd_core.config.node import parse
from kd_core.config.values import (
    Finite,
    NonNegative,
    Positive,
    PositiveInt,
    Share,
    check_values,
    checked,
)
from kd_core.errors import UserError
from torch import Tensor, nn


def check(annotation, value):
    def function(argument):
        """Take anything."""

    function.__annotations__["argument"] = annotation
    check_values(function, {"argument": value}, lambda name: f"here.{name}")


@pytest.mark.parametrize(
    ("annotation", "value", "wanted"),
    [
        (float, "0.1", "a number"),
        (float, True, "a number"),
        (float, None, "a number"),
        (Positive, 0, "a number greater than 0"),
        (Positive, -1.0, "a number greater than 0"),
        (Positive, math.inf, "a finite number"),
        (Positive, math.nan, "a finite number"),
        (Positive, 1e300, "a number of at most 1e+30"),
        (Finite, -1e300, "a number of at least -1e+30"),
        (NonNegative, -1e-9, "a number of at least 0"),
        (Share, 1.1, "a number of at most 1"),
        (int, 2.0, "a whole number"),
        (PositiveInt, 10**12, "a number of at most 2147483648"),
        (bool, 1, "true or false"),
        (bool, "true", "true or false"),
        (str, 3, "text"),
        (str, "\ud800", "text"),
        (str | Path, 3, "text"),
        (tuple[float, ...], [1, "a"], "a number"),
        (tuple[float, float], [1.0], "a longer list"),
        (Sequence[float], "abc", "a list"),
        (float | Mapping[str, float], "abc", "a number or a dict"),
        (float | Tensor, "0.1", "a number"),
        (Tensor, 0.1, "an object, by a dict with `type`"),
        (Callable[[int], int], "abc", "a dict with `type`"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(annotation, value, wanted):
    with pytest.raises(UserError) as error:
        check(annotation, value)
    assert f"here.argument: wanted {wanted}" in str(error.value)
    assert "got" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (float, 1),
        (Positive, 1e-9),
        (NonNegative, 0),
        (float | None, None),
        (tuple[float, ...], [1, 2]),
        (Sequence[float], (1, 2)),
        (int | Sequence[int], [3, 4]),
        (str | Path, "a"),
        (float | Mapping[str, float], {"ce": 1}),
        (float | Tensor, 0.1),
        (Tensor, torch.zeros(1)),
        (nn.Module, {"type": "torch.nn.ReLU"}),
        (list[nn.Module], [{"type": "torch.nn.ReLU"}]),
        (Any, object()),
        ("NoSuchName", 3),
    ],
)
def test_a_value_that_fits_passes(annotation, value):
    check(annotation, value)


def test_the_nearest_of_listed_values_is_named():
    with pytest.raises(UserError, match="wanted 'fp32' or 'bf16', got 'bf61'; did you mean 'bf16'"):
        check(Literal["fp32", "bf16"], "bf61")


def test_the_classes_of_torch_are_checked_too():
    with pytest.raises(UserError, match="nesterov: wanted true or false, got 1"):
        check_values(torch.optim.SGD, {"lr": 0.1, "nesterov": 1}, str)
    with pytest.raises(UserError, match="in_features: wanted a whole number"):
        check_values(nn.Linear, {"in_features": "3"}, str)


def test_a_constructor_called_in_python_is_checked():
    class Ball:
        @checked
        def __init__(self, radius: Positive, *, name: str = "ball") -> None:
            self.radius, self.name = radius, name

    assert Ball(2, name="x").radius == 2
    with pytest.raises(UserError, match="Ball: radius: wanted a number greater than 0, got -1"):
        Ball(-1)
    with pytest.raises(UserError, match="Ball: name: wanted text"):
        Ball(1, name=3)
    with pytest.raises(TypeError, match="radius"):
        Ball()


class Lengthy(Protocol):
    def length(self) -> int: ...


FOR_A_TYPE_CHECKER = list["Gone"]  # noqa: F821


@pytest.mark.parametrize(
    "annotation",
    [
        *(FOR_A_TYPE_CHECKER, int | FOR_A_TYPE_CHECKER, Lengthy | None, [int], 3),
        Annotated[int, {"units": "pixels"}],  # has a hash, which fails
    ],
)
def test_an_annotation_that_nothing_can_be_checked_by_is_let_be(annotation, recwarn):
    for value in (3, None, "x", [1]):
        check(annotation, value)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (NonNegative | Mapping[str, NonNegative], {"type": "torch.nn.Identity"}),
        (Sequence[float], {"type": "torch.nn.Identity"}),
        (Sequence[float], [0.5, {"type": "torch.nn.Identity"}]),
        (Mapping[str, float], {"a": {"type": "torch.nn.Identity"}}),
        (tuple[int, ...] | None, ({"type": "torch.nn.Identity"},)),
    ],
)
def test_a_node_is_not_a_list_or_dict_of_numbers(annotation, value):
    with pytest.raises(UserError, match=r"^here\.argument: wanted "):
        check(annotation, parse(value) if "type" in value else value)


def test_other_things_in_a_dict_of_numbers_are_let_be():
    check(Mapping[str, NonNegative], {"a": torch.tensor(0.5)})
