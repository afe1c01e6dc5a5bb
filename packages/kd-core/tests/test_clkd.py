import math

import pytest
import torch
from kd_core.criteria.clkd import CLKD, clkd
from kd_core.errors import UserError
from kd_core.testing import signals

LOGITS = signals((8, 10), 0.7, 0.1, 3), signals((8, 10), 1.3, 0.5, 3)


@pytest.mark.parametrize(
    ("arguments", "reference"),
    [
        ({}, 0.502828969647),
        ({"mu": 1.0, "beta": 0.0, "nu": 0.0}, 0.205667801665),
        ({"mu": 0.0, "nu": 1.0}, 0.357156330737),
        ({"mu": 1.0, "beta": 1.0, "nu": 0.0}, 0.205667801665 + 0.257132536520),
    ],
)
def test_equals_the_value_of_the_reference(arguments, reference, golden):
    golden(clkd(*LOGITS, **arguments), reference)
    golden(CLKD(**arguments)(*LOGITS, {}), reference)


def slow_unit(rows):
    return [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows]


def slow_covariance(rows):
    columns = [
        [x - sum(column) / len(column) for x in column] for column in zip(*rows, strict=True)
    ]
    return [
        [sum(x * y for x, y in zip(a, b, strict=True)) / (len(columns) - 1) for b in columns]
        for a in columns
    ]


def slow_squares(first, second):
    rows = zip(first, second, strict=True)
    return [(x - y) ** 2 for a, b in rows for x, y in zip(a, b, strict=True)]


def test_equals_the_equation_written_as_a_loop():
    s, t = (side.tolist() for side in LOGITS)
    samples = sum(slow_squares(slow_unit(s), slow_unit(t))) / 80
    columns = [list(zip(*rows, strict=True)) for rows in (s, t)]
    classes = sum(slow_squares(*map(slow_unit, columns))) / 80
    distance = math.sqrt(sum(slow_squares(slow_covariance(s), slow_covariance(t)))) / 10**2
    expected = 2 * (samples + 3 * classes) + 0.7 * distance
    assert clkd(*LOGITS, mu=2.0, beta=3.0, nu=0.7).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_that_of_finite_differences():
    student, teacher = LOGITS[0][:3, :4], LOGITS[1][:3, :4]
    assert torch.autograd.gradcheck(
        lambda logits: clkd(logits, teacher), student.clone().requires_grad_()
    )


def test_different_numbers_of_classes_are_refused():
    with pytest.raises(UserError, match=r"student is \[2, 10\], teacher \[2, 1\]"):
        clkd(torch.zeros(2, 10), torch.zeros(2, 1))
