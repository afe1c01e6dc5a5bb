"""BinaryKD and MaskKD: probabilities of a sigmoid."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.errors import UserError
from kd_core.testing import check_contract, signals
from kd_det.criteria.binary_kd import BinaryKD, MaskKD, binary_kd

STUDENT, TEACHER = (signals((3, 4 * 2 * 2), 2.0, shift, 3).view(3, 4, 2, 2) for shift in (0.3, 1.1))
LABEL = torch.tensor([3, 0, 2])


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_it_equals_the_equation_written_as_a_loop(temperature):
    total = 0.0
    for s, t in zip(STUDENT.flatten().tolist(), TEACHER.flatten().tolist(), strict=True):
        p, q = (1 / (1 + math.exp(-z / temperature)) for z in (s, t))
        total += q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    expected = temperature**2 * total / STUDENT.numel()
    loss = binary_kd(STUDENT, TEACHER, temperature=temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_the_gradient_is_that_of_the_cross_entropy():
    student = STUDENT.clone().requires_grad_()
    binary_kd(student, TEACHER).backward()
    plain = STUDENT.clone().requires_grad_()
    F.binary_cross_entropy_with_logits(plain, TEACHER.sigmoid()).backward()
    torch.testing.assert_close(student.grad, plain.grad)


def test_a_mask_is_compared_in_the_channel_of_its_class():
    given = (STUDENT,), (TEACHER,), {"label": LABEL}
    expected = binary_kd(STUDENT[range(3), LABEL], TEACHER[range(3), LABEL])
    torch.testing.assert_close(MaskKD()(*given), expected)
    one = (STUDENT[:, :1],), (TEACHER,), {"label": LABEL}
    expected = binary_kd(STUDENT[:, 0], TEACHER[range(3), LABEL])
    torch.testing.assert_close(MaskKD()(*one), expected)


def test_no_region_gives_zero_with_a_graph():
    empty = torch.zeros(0, 4, 2, 2, requires_grad=True)
    loss = MaskKD()((empty,), (empty.detach(),), {"label": LABEL[:0]})
    assert loss.item() == 0
    assert loss.requires_grad


@pytest.mark.parametrize("cls", [BinaryKD, MaskKD])
def test_it_keeps_the_contract(cls):
    check_contract(cls, num_classes=3)


@pytest.mark.parametrize(("cls", "channels"), [(BinaryKD, 1), (MaskKD, 5)])
def test_other_channels_are_refused(cls, channels):
    with pytest.raises(UserError, match=r"logits have 4 channels, the teacher's . ?"):
        cls().check_shapes([(4, 8, 8)], [(channels, 8, 8)])
    MaskKD().check_shapes([(4, 8, 8)], [(1, 8, 8)])
    with pytest.raises(UserError, match="compares maps position by position"):
        cls().check_shapes([(4, 8, 8)], [(4, 4, 4)])
