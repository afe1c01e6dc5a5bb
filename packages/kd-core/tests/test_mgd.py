import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.mgd import MGD, mgd
from kd_core.errors import UserError
from kd_core.testing import fill, signals
from torch import nn

STUDENT, TEACHER = signals((4, 6, 8, 8), 0.7, 0.3), signals((4, 6, 8, 8), 0.7, 0.8)
SHAPES = ((6, 8, 8),), ((6, 8, 8),)


def drawn(shape):
    """What the golden values take for a uniform draw."""
    return (signals(shape, 0.7, 0.5) + 1) / 2


@pytest.mark.parametrize(
    ("shape", "rule", "weight", "reference"),
    [
        ((4, 6, 1, 1), lambda u: u >= 0.15, 7e-5, 0.04038153454153996),
        ((4, 1, 8, 8), lambda u: u <= 1 - 0.65, 2e-5, 0.005930747136302822),
    ],
    ids=["channels", "positions"],
)
def test_equals_the_value_of_the_authors_code(shape, rule, weight, reference, golden):
    criterion = MGD(*SHAPES)
    fill(criterion)
    batch = {"mask": rule(drawn(shape))}
    golden(weight * criterion((STUDENT,), (TEACHER,), batch).detach(), reference)


def test_equals_the_equation_written_as_a_loop():
    student, teacher = STUDENT[:2, :2, :3, :3], TEACHER[:2, :2, :3, :3]
    expected = 0.0
    for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True):
        expected += (s - t) ** 2 / 2
    assert mgd(student, teacher).item() == pytest.approx(expected, rel=1e-12)
    pair = (student, student), (teacher, teacher)
    assert mgd(*pair).item() == pytest.approx(2 * expected, rel=1e-12)


def test_gradient_is_that_of_finite_differences():
    student, teacher = STUDENT[:2, :2, :3, :3], TEACHER[:2, :2, :3, :3]
    assert torch.autograd.gradcheck(
        lambda maps: mgd(maps, teacher), student.clone().requires_grad_()
    )


def test_the_map_is_aligned_masked_and_generated_in_this_order():
    criterion = MGD(((4, 8, 8), (6, 4, 4)), ((6, 8, 8), (6, 4, 4))).double()
    student = STUDENT[:, :4], STUDENT[:, :, :4, :4]
    teacher = TEACHER, TEACHER[:, :, :4, :4]
    masks = drawn((4, 6, 1, 1)) > 0.4, drawn((4, 1, 4, 4)) > 0.4
    hidden = criterion.aligners[0](student[0]) * masks[0], student[1] * masks[1]
    made = []
    for generator, maps in zip(criterion.generators, hidden, strict=True):
        first, second = (m for m in generator if isinstance(m, nn.Conv2d))
        inner = F.conv2d(maps, first.weight, first.bias, padding=1).clamp(min=0)
        made.append(F.conv2d(inner, second.weight, second.bias, padding=1))
    loss = criterion(student, teacher, {"mask": masks})
    torch.testing.assert_close(loss, mgd(made, teacher))


def test_an_aligner_stands_only_where_channels_differ():
    criterion = MGD(((4, 8, 8), (6, 4, 4)), ((6, 8, 8), (6, 4, 4)))
    assert [sum(p.numel() for p in m.parameters()) for m in criterion.aligners] == [4 * 6 + 6, 0]
    generator = 2 * (6 * 6 * 9 + 6)
    assert [sum(p.numel() for p in m.parameters()) for m in criterion.generators] == [generator] * 2


class Seen(nn.Module):
    """Takes the place of a generator, and keeps what it is given."""

    def forward(self, maps):
        self.maps = maps
        return maps


@pytest.mark.parametrize(
    ("arguments", "over", "ratio"),
    [({}, (2, 3), 0.15), ({"mask": "positions", "ratio": 0.65}, (1,), 0.65)],
    ids=["channels", "positions"],
)
def test_whole_channels_or_positions_are_hidden_in_the_given_share(arguments, over, ratio):
    torch.manual_seed(0)
    criterion = MGD(((64, 8, 8),), ((64, 8, 8),), **arguments)
    criterion.generators[0] = Seen()
    ones = torch.ones(32, 64, 8, 8)
    criterion((ones,), (ones,), {})
    maps = criterion.generators[0].maps
    hidden = (maps == 0).all(dim=over, keepdim=True)
    assert torch.equal((~hidden).expand_as(maps), maps == 1)
    assert hidden.float().mean().item() == pytest.approx(ratio, abs=0.03)
    assert 0 < hidden[0].sum() < hidden[0].numel()  # each sample has a mask of its own
    assert not torch.equal(hidden[0], hidden[1])


def test_a_mask_is_drawn_for_every_batch():
    criterion, maps = MGD(*SHAPES), ((STUDENT.float(),), (TEACHER.float(),))
    assert criterion(*maps, {}) != criterion(*maps, {})
    given = {"mask": drawn((4, 6, 1, 1)) > 0.5}
    assert criterion(*maps, given) == criterion(*maps, given)


def test_maps_of_other_sizes_are_refused_at_construction():
    with pytest.raises(UserError, match="8x8 and 4x4; tap levels of equal size"):
        MGD(((6, 8, 8),), ((6, 4, 4),))
    with pytest.raises(UserError, match="needs the same shape"):
        mgd(STUDENT, TEACHER[:, :1])


def test_a_misspelt_mask_is_refused():
    with pytest.raises(UserError, match="mask: wanted 'channels' or 'positions', got 'channel'"):
        MGD(*SHAPES, mask="channel")
