import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.vitkd import ViTKD, hidden_tokens, vitkd
from kd_core.errors import UserError
from kd_core.testing.golden_inputs import fill_with_sines, normal, uniform, value_and_gradients

KEY = "c.vitkd0"
GRADIENTS = (
    (2.31926462839e-05, -4.08602838423e-06),
    (2.24677473108e-05, 1.43335024507e-05),
    (3.25391138317e-07, -4.55816091305e-07),
)
SHAPES = ((16, 4),) * 3, ((16, 6),) * 3


def inputs():
    """Return the tokens of student and teacher."""
    return (
        [normal(f"{KEY}.{side}{place}", 3, 16, width) for place in range(3)]
        for side, width in (("s", 4), ("t", 6))
    )


def test_equals_the_value_and_gradients_of_the_authors_code(golden):
    student, teacher = inputs()
    criterion = fill_with_sines(ViTKD(*SHAPES))
    batch = {"noise": uniform(f"{KEY}.u", 3, 16)}
    value, gradients = value_and_gradients(lambda *s: criterion(s, teacher, batch), student)
    golden(value, 0.0062005765219)
    for found, reference in zip(gradients, GRADIENTS, strict=True):
        for one, other in zip(found, reference, strict=True):
            golden(one, other)


def test_equals_the_equation_written_as_a_loop():
    student, teacher = ([tokens[:2, :9, :4] for tokens in side] for side in inputs())
    criterion = fill_with_sines(
        ViTKD(((9, 4),) * 3, ((9, 4),) * 3, alpha=0.3, beta=0.2, mask_ratio=0.25)
    )
    noise = uniform("vitkd.noise", 2, 9)
    expected = 0.0
    for own, shown in zip(student[:2], teacher[:2], strict=True):
        for s, t in zip(own.flatten().tolist(), shown.flatten().tolist(), strict=True):
            expected += 0.3 / 2 * (s - t) ** 2
    for sample in range(2):
        kept = sorted(range(9), key=noise[sample].tolist().__getitem__)[: int(9 * 0.75)]
        grid = torch.zeros(4, 3, 3, dtype=torch.float64)
        for token in range(9):
            shown = student[2][sample, token] if token in kept else criterion.mask_token[0, 0]
            grid[:, token // 3, token % 3] = shown.detach()
        first, second = criterion.generator[0], criterion.generator[2]
        made = F.conv2d(grid[None], first.weight, first.bias, padding=1).clamp(min=0)
        made = F.conv2d(made, second.weight, second.bias, padding=1)[0]
        for token in set(range(9)) - set(kept):
            error = made[:, token // 3, token % 3] - teacher[2][sample, token]
            expected += 0.2 / (0.25 * 2) * error.square().sum().item()
    assert criterion(student, teacher, {"noise": noise}).item() == pytest.approx(expected, rel=1e-9)


def test_gradient_is_that_of_finite_differences():
    student, teacher = ([tokens[:1, :4, :2] for tokens in side] for side in inputs())
    hidden = torch.tensor([[1.0, 0, 0, 1]])
    assert torch.autograd.gradcheck(
        lambda *s: vitkd(s, teacher, hidden, alpha=1, beta=1),
        [tokens.clone().requires_grad_() for tokens in student],
    )


@pytest.mark.parametrize(("count", "ratio", "kept"), [(16, 0.5, 8), (9, 0.5, 4), (10, 0.9, 0)])
def test_the_tokens_of_the_least_noise_are_kept(count, ratio, kept):
    noise = torch.rand(3, count, generator=torch.Generator().manual_seed(0))
    hidden = hidden_tokens(noise, ratio)
    assert (hidden == 0).sum(1).tolist() == [kept] * 3
    for row, values in zip(hidden, noise, strict=True):
        assert not kept or values[row == 0].max() < values[row == 1].min()


def test_of_equal_noise_the_first_tokens_are_kept():
    assert hidden_tokens(torch.zeros(1, 64), 0.75)[0].tolist() == [0.0] * 16 + [1.0] * 48


def test_what_is_hidden_is_drawn_unless_it_is_given():
    criterion = fill_with_sines(ViTKD(*SHAPES))
    student, teacher = inputs()
    assert criterion(student, teacher, {}) != criterion(student, teacher, {})
    with pytest.raises(UserError, match=r"batch\['noise'\] is \[3, 4\]; .* \[3, 16\]"):
        criterion(student, teacher, {"noise": torch.zeros(3, 4)})


def test_linear_maps_stand_only_where_widths_differ():
    same, other = ViTKD(((16, 6),) * 3, ((16, 6),) * 3), ViTKD(*SHAPES)
    counts = [sum(p.numel() for p in part.aligners.parameters()) for part in (same, other)]
    assert counts == [0, 3 * (4 * 6 + 6)]


def test_the_shallow_tokens_are_compared():
    student, teacher = inputs()
    criterion, before = fill_with_sines(ViTKD(*SHAPES)), torch.get_rng_state()
    pairs = criterion.compared(student, teacher)
    assert torch.equal(torch.get_rng_state(), before)
    squares = [(one - other).square().sum() for one, other in pairs]
    alone = ViTKD(*SHAPES, beta=0.0).double()
    alone.load_state_dict(criterion.state_dict())
    torch.testing.assert_close(3e-5 * sum(squares) / 3, alone(student, teacher, {}))


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (((16, 4),) * 3, ((9, 4),) * 3, "student has 16 and the teacher 9; take networks"),
        (((17, 4),) * 3, ((17, 4),) * 3, r"on a square, but 17 are none; tap patch tokens"),
        (((16, 4),) * 2, ((16, 4),) * 2, "has 2 taps; name 3"),
        (((4, 4, 4),) * 3, ((16, 4),) * 3, "PATH:nchw:tokens"),
    ],
)
def test_tokens_that_do_not_fit_are_refused_in_one_line(student, teacher, message):
    with pytest.raises(UserError, match=message) as refused:
        ViTKD(student, teacher)
    assert "\n" not in str(refused.value)


def test_a_share_of_all_or_nothing_is_refused():
    for share in (0.0, 1.0):
        with pytest.raises(UserError, match="mask_ratio: wanted"):
            ViTKD(*SHAPES, mask_ratio=share)
