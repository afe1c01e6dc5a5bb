import pytest
import torch
from kd_core.criteria.afds import AFDS, afds
from kd_core.errors import UserError
from kd_core.testing import fill, signals
from torch import nn

STUDENT, TEACHER = signals((4, 6, 8, 8), 0.7, 0.3), signals((4, 6, 8, 8), 0.7, 0.8)
ATTENTION = signals((4, 6), 0.9, 0.1, shift=1.5)


def test_equals_the_value_of_the_authors_code(golden):
    criterion = AFDS(((6, 8, 8),), ((6, 8, 8),))
    fill(criterion)
    golden(criterion((STUDENT,), (TEACHER,), {}).detach(), 0.0038281273063576838)


def slow_channel(values):
    length = sum(value**2 for value in values) ** 0.5 + 1e-6
    return [value / length for value in values]


def test_equals_the_equation_written_as_a_loop():
    student, teacher = STUDENT[:, :, :3, :4], TEACHER[:, :, :3, :4]
    expected = 0.0
    for n in range(4):
        for c in range(6):
            s, t = (slow_channel(maps[n, c].flatten().tolist()) for maps in (student, teacher))
            error = sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / len(s)
            expected += (ATTENTION[n, c] / ATTENTION[n].sum()).item() * error / 4
    assert afds(student, teacher, ATTENTION).item() == pytest.approx(expected, rel=1e-12)


def test_attention_is_squeezed_from_the_teachers_map_and_excited():
    criterion = AFDS(((6, 8, 8),), ((6, 8, 8),)).double()
    first, second = (m for m in criterion.modules() if isinstance(m, nn.Conv2d))
    hidden = (TEACHER.mean((2, 3)) @ first.weight.flatten(1).T + first.bias).clamp(min=0)
    attention = 1 / (1 + (-(hidden @ second.weight.flatten(1).T + second.bias)).exp())
    expected = afds(STUDENT, TEACHER, attention)
    torch.testing.assert_close(criterion((STUDENT,), (TEACHER,), {}), expected)


def test_levels_are_summed():
    both = afds((STUDENT, STUDENT[:2]), (TEACHER, TEACHER[:2]), (ATTENTION, ATTENTION[:2]))
    parts = afds(STUDENT, TEACHER, ATTENTION) + afds(STUDENT[:2], TEACHER[:2], ATTENTION[:2])
    torch.testing.assert_close(both, parts)


def test_gradient_is_that_of_finite_differences():
    student, teacher = STUDENT[:2, :3, :3, :3], TEACHER[:2, :3, :3, :3]
    inputs = student.clone().requires_grad_(), ATTENTION[:2, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s, a: afds(s, teacher, a), inputs)


def test_only_the_pattern_of_a_channel_and_its_share_of_attention_count():
    torch.testing.assert_close(
        afds(5 * STUDENT, TEACHER, 3 * ATTENTION), afds(STUDENT, TEACHER, ATTENTION)
    )


def test_dead_channels_give_a_finite_gradient():
    student = torch.zeros(4, 6, 8, 8, requires_grad=True)
    afds(student, TEACHER.clone().fill_(0), ATTENTION).backward()
    assert student.grad.isfinite().all()


def test_the_larger_map_is_pooled():
    pooled = torch.nn.functional.adaptive_avg_pool2d(STUDENT, 4)
    teacher = TEACHER[:, :, :4, :4]
    assert afds(STUDENT, teacher, ATTENTION) == afds(pooled, teacher, ATTENTION)


def test_blocks_start_as_the_authors_do():
    torch.manual_seed(0)
    criterion = AFDS(((64, 4, 4),), ((64, 4, 4),), hidden_ratio=0.5)
    squeeze, excite = (m for m in criterion.modules() if isinstance(m, nn.Conv2d))
    assert squeeze.weight.shape == (32, 64, 1, 1)
    assert squeeze.weight.std().item() == pytest.approx((2 / 32) ** 0.5, rel=0.05)
    assert excite.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.05)
    assert not squeeze.bias.any()
    assert not excite.bias.any()


def test_a_block_has_one_hidden_channel_at_least():
    shapes = ((4, 8, 8),)
    assert AFDS(shapes, shapes, hidden_ratio=0.1).attention[0][1].out_channels == 1


def test_channels_that_differ_are_refused_at_construction_with_what_would_do():
    with pytest.raises(UserError, match=r"AFDS compares channels .* \[16\].* \[32\].*such as AB"):
        AFDS(((16, 4, 4),), ((32, 4, 4),))
    with pytest.raises(UserError, match="needs the same shape"):
        afds(STUDENT[:, :1], TEACHER, ATTENTION)
