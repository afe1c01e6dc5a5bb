import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.nst import NST, nst
from kd_core.errors import UserError
from kd_core.testing import signals
from torch.utils._python_dispatch import TorchDispatchMode

STUDENT = signals((8, 6, 8, 8), 0.11, 0.3), signals((8, 12, 4, 4), 0.19, 0.5)
TEACHER = signals((8, 10, 4, 4), 0.17, 0.4), signals((8, 20, 4, 4), 0.23, 0.6)
PAIR = signals((4, 6, 8, 8), 0.7, 0.3), signals((4, 6, 8, 8), 0.7, 0.8)


@pytest.mark.parametrize(
    ("student", "teacher", "reference"),
    [
        (STUDENT, TEACHER, 1.14482490018),
        (STUDENT[:1], TEACHER[:1], 0.80587354714),
        (PAIR[:1], PAIR[1:], 0.023079292537810492),
    ],
)
def test_equals_the_value_of_the_authors_code(student, teacher, reference, golden):
    golden(nst(student, teacher), reference)
    golden(NST()(student, teacher, {}), reference)


def slow_nst(student, teacher):
    """One level in plain Python: every pair of channels of every sample."""
    total = 0.0
    for pair in zip(student, teacher, strict=True):
        rows = [[F.normalize(channel.flatten(), dim=0) for channel in side] for side in pair]
        kernels = [
            sum(torch.dot(a, b).item() ** 2 for a in x for b in y) / (len(x) * len(y))
            for x, y in ((rows[0], rows[0]), (rows[1], rows[1]), (rows[0], rows[1]))
        ]
        total += (kernels[0] + kernels[1] - 2 * kernels[2]) / len(student)
    return total


@pytest.mark.parametrize("channels", [(3, 2), (6, 3), (3, 6), (5, 5)])
def test_equals_the_equation_written_as_a_loop_with_more_channels_than_positions_or_fewer(channels):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(2, count, 2, 2, generator=generator, dtype=torch.float64) for count in channels
    )
    expected = slow_nst(student, teacher)
    assert nst(student, teacher).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("positions", [2, 4])
def test_gradient_is_that_of_finite_differences(positions):
    student, teacher = (side[:2, :4, :positions, :positions] for side in PAIR)
    assert torch.autograd.gradcheck(
        lambda maps: nst(maps, teacher), student.clone().requires_grad_()
    )


class LargestTensor(TorchDispatchMode):
    """Keeps the size of the largest tensor made inside the `with`."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = result if isinstance(result, tuple) else (result,)
        self.size = max(self.size, *(x.numel() for x in made if isinstance(x, torch.Tensor)))
        return result


@pytest.mark.parametrize("shapes", [((40, 4, 4), (50, 4, 4)), ((6, 8, 8), (10, 8, 8))])
def test_no_tensor_of_all_channels_times_all_channels_times_positions_is_made(shapes):
    student, teacher = (torch.randn(2, *shape) for shape in shapes)
    with LargestTensor() as largest:
        nst(student.requires_grad_(), teacher).backward()
    assert largest.size <= max(student.numel(), teacher.numel(), 2 * shapes[0][0] * shapes[1][0])


def test_channels_without_activation_give_a_finite_gradient():
    for size in (1, 4):
        student = torch.zeros(2, 3, size, size, dtype=torch.float64, requires_grad=True)
        nst(student, TEACHER[0][:2, :, :size, :size]).backward()
        assert student.grad.isfinite().all()


def test_different_numbers_of_levels_are_refused():
    with pytest.raises(UserError, match="student has 2 maps, teacher 1"):
        nst(STUDENT, TEACHER[1:])
