import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.exit_heads import token_head
from kd_core.criteria.ofa import OFA, OFAStage, ofa
from kd_core.errors import UserError
from kd_core.testing.golden_inputs import fill_with_sines, integers, normal, value_and_gradients
from torch import nn

STUDENT, TEACHER = normal("ofa.s", 5, 4, scale=2), normal("ofa.t", 5, 4, scale=3)
LABEL = torch.tensor([0, 3, 1, 1, 2])


@pytest.mark.parametrize(
    ("eps", "value", "norm", "sines"),
    [
        (1.0, 3.04367708542, 0.321586159295, 0.106761743896),
        (1.5, 2.13291122026, 0.264051059585, 0.067973588171),
    ],
)
def test_equals_the_value_and_gradient_of_the_authors_code(eps, value, norm, sines, golden):
    teacher, label = normal("c.ofa.t", 6, 10, scale=3), integers("c.ofa.y", 6, high=10)
    student = [normal("c.ofa.s", 6, 10, scale=2)]
    for loss in (
        lambda s: ofa(s, teacher, label, eps=eps),
        lambda s: OFA(eps=eps)(s, teacher, {"label": label}),
    ):
        found, gradients = value_and_gradients(loss, student)
        for one, reference in zip((found, *gradients[0]), (value, norm, sines), strict=True):
            golden(one, reference)


@pytest.mark.parametrize(
    ("key", "shape", "arguments", "references"),
    [
        (
            "c.ofa2",
            (4, 4, 8, 8),
            {"stage": 2, "width": 8},
            (2.28056627381, 0.0100094233109, 0.0112845106492),
        ),
        (
            "c.ofa4",
            (4, 6, 3, 3),
            {"stage": 4, "width": 8},
            (2.29647338526, 0.000321246673517, 3.25251589382e-05),
        ),
        (
            "c.ofav3",
            (3, 50, 8),
            {"stage": 3, "prefix": 1},
            (2.31789064126, 0.0342448255813, 0.0114231576861),
        ),
    ],
    ids=["map", "last map", "tokens"],
)
def test_a_stage_equals_the_value_and_gradient_of_the_authors_code(
    key, shape, arguments, references, golden
):
    teacher = normal(f"{key}.t", shape[0], 10, scale=3)
    label = integers(f"{key}.y", shape[0], high=10)
    criterion = fill_with_sines(OFAStage((shape[1:],), ((10,),), 10, eps=1.0, **arguments))
    found, gradients = value_and_gradients(
        lambda s: criterion((s,), (teacher,), {"label": label}), [normal(f"{key}.m", *shape)]
    )
    for one, reference in zip((found, *gradients[0]), references, strict=True):
        golden(one, reference)


@pytest.mark.parametrize(("eps", "temperature"), [(1.0, 1.0), (1.5, 1.0), (0.5, 2.0)])
def test_equals_the_equation_written_as_a_loop(eps, temperature):
    expected = 0.0
    for s, t, y in zip(STUDENT.tolist(), TEACHER.tolist(), LABEL.tolist(), strict=True):
        own = [math.exp(x / temperature) for x in s]
        shown = [math.exp(x / temperature) for x in t]
        for c in range(4):
            p = shown[c] / sum(shown)
            weight = (1 + p) ** eps - 1 if c == y else p**eps
            expected -= weight * math.log(own[c] / sum(own)) / 5
    value = ofa(STUDENT, TEACHER, LABEL, eps=eps, temperature=temperature)
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_that_of_finite_differences():
    assert torch.autograd.gradcheck(
        lambda s: ofa(s, TEACHER, LABEL, eps=1.5), STUDENT.clone().requires_grad_()
    )


def test_probabilities_that_round_to_0_have_finite_logarithms():
    assert ofa(1e4 * STUDENT.float(), 1e4 * TEACHER.float(), LABEL, eps=1.5).isfinite()


def test_labels_have_no_effect_with_eps_1_and_are_needed_with_another():
    with_labels = ofa(STUDENT, TEACHER, LABEL)
    torch.testing.assert_close(ofa(STUDENT, TEACHER, None), with_labels)
    torch.testing.assert_close(OFA()(STUDENT, TEACHER, {}), with_labels)
    for refused in (
        lambda: ofa(STUDENT, TEACHER, None, eps=1.5),
        lambda: OFA(eps=1.5)(STUDENT, TEACHER, {"image": STUDENT}),
    ):
        with pytest.raises(UserError, match=r"eps=1\.5 puts .*write eps=1\.0"):
            refused()


def test_the_class_of_the_largest_share_counts_in_mixed_images():
    batch = {
        "label": torch.zeros(5, dtype=torch.long),
        "mixed_labels": torch.tensor([[0, 1, 2], [3, 0, 1], [2, 1, 1], [1, 1, 1], [0, 2, 1]]),
        "mixed_weights": torch.tensor([[0.5, 0.3, 0.2]] * 2 + [[0.4, 0.3, 0.3]] * 2 + [[0, 1, 0]]),
    }  # in row 2 it is the sum of two parts
    largest = torch.tensor([0, 3, 1, 1, 2])
    wanted = ofa(STUDENT, TEACHER, largest, eps=1.5)
    torch.testing.assert_close(OFA(eps=1.5)(STUDENT, TEACHER, batch), wanted)
    smoothed = 0.9 * F.one_hot(largest, 4) + 0.025
    torch.testing.assert_close(ofa(STUDENT, TEACHER, smoothed, eps=1.5), wanted)


@pytest.mark.parametrize(("stage", "blocks"), [(1, 3), (2, 2), (3, 1)])
def test_a_map_s_head_halves_it_once_for_every_later_stage(stage, blocks):
    criterion = OFAStage(((4, 32, 32),), ((10,),), 10, stage=stage, width=6)
    maps = torch.zeros(2, 4, 32, 32)
    sizes = []
    for layer in criterion.head[:-3]:
        maps = layer(maps)
        if isinstance(layer, nn.ReLU):
            sizes.append(tuple(maps.shape[1:]))
    widths = [4 * 2**number for number in range(1, blocks)] + [6]
    wanted = []
    for number in range(blocks):
        side = 32 // 2 ** (number + 1)
        wanted += [(4 * 2**number, side, side), (widths[number], side, side)]
    assert sizes == wanted
    assert criterion.head(torch.zeros(2, 4, 32, 32)).shape == (2, 10)


def test_a_map_of_one_position_takes_a_batch_of_one():
    criterion = OFAStage(((4, 4, 4),), ((10,),), 10, stage=1, width=6)
    loss = criterion((torch.randn(1, 4, 4, 4),), (torch.randn(1, 10),), {})
    assert loss.isfinite()


@pytest.mark.parametrize(
    ("side", "activated"),
    [(7, []), (13, []), (14, [True]), (28, [True, False]), (56, [True, True, False])],
)
def test_patches_are_merged_while_their_grid_is_twice_seven(side, activated):
    head = token_head((side**2, 8), 10, 3, 12, 0)
    assert [isinstance(merging.activation, nn.GELU) for merging in head.mergings] == activated
    assert head(torch.zeros(1, side**2, 8)).shape == (1, 10)


def test_merging_equals_the_equation_written_as_a_loop():
    head = fill_with_sines(token_head((14 * 14, 4), 10, 4, 8, 0))
    (merging,) = head.mergings
    tokens = normal("ofa.merged", 1, 14 * 14, 4)
    merged = merging(tokens)[0].tolist()
    grid = tokens[0].view(14, 14, 4).tolist()
    weight = merging.linear.weight.tolist()
    for row in range(7):
        for column in range(7):
            joined = []
            for down, right in ((0, 0), (1, 0), (0, 1), (1, 1)):
                joined += grid[2 * row + down][2 * column + right]
            mean = sum(joined) / 16
            deviation = math.sqrt(sum((x - mean) ** 2 for x in joined) / 16 + 1e-5)
            normed = [(x - mean) / deviation for x in joined]
            for place, weights in enumerate(weight):
                x = sum(w * n for w, n in zip(weights, normed, strict=True))
                gelu = x * (1 + math.erf(x / math.sqrt(2))) / 2
                assert merged[7 * row + column][place] == pytest.approx(gelu, abs=1e-12)


def test_the_first_prefix_token_is_classified_without_one_the_mean():
    tokens = normal("ofa.tokens", 2, 18, 8)
    head = fill_with_sines(token_head((18, 8), 10, 4, None, 2))
    seen = head.blocks(tokens)
    torch.testing.assert_close(head(tokens), head.classifier(seen[:, 0]))
    head.prefix = 0
    torch.testing.assert_close(head(tokens), head.classifier(seen.mean(1)))


@pytest.mark.parametrize(("stage", "blocks"), [(1, 3), (2, 2), (3, 1), (4, 1)])
def test_a_head_of_tokens_has_a_block_for_every_later_stage_but_one_at_least(stage, blocks):
    assert len(token_head((16, 8), 10, stage, None, 0).blocks) == blocks


@pytest.mark.parametrize(
    ("student", "teacher", "arguments", "message"),
    [
        ((4, 8, 8), (10,), {}, r"a map needs a width.* such as width=512"),
        ((4, 8, 8), (10,), {"width": 8, "prefix": 1}, r"prefix=1 is for tokens.* gives a map"),
        ((4,), (10,), {}, r"takes features \[N, C, H, W\] or \[N, L, D\].* gives \[N, 4\]"),
        ((16, 8), (8, 4, 4), {}, r"takes logits \[N, C\], but a tap of the teacher"),
        ((16, 8), (7,), {}, r"logits of 10 classes, but the teacher's tap has 7"),
        ((1, 8), (10,), {"prefix": 1}, r"prefix=1, but the student's tap has 1 tokens in all"),
        (
            (197, 8),
            (10,),
            {"prefix": 1, "width": 12},
            r"width=12.*write width=8, or leave them out",
        ),
        ((16, 6), (10,), {}, r"6 channels cannot be shared by the 4 heads"),
        ((225, 8), (10,), {}, r"merges patches two by two, 1 times, which 225 in a square"),
        ((200, 8), (10,), {}, r"which 200 in a square do not allow"),
    ],
)
def test_what_does_not_suit_is_refused_in_one_line(student, teacher, arguments, message):
    with pytest.raises(UserError, match=message) as refused:
        OFAStage((student,), (teacher,), 10, stage=3, **arguments)
    assert "\n" not in str(refused.value)


def test_several_labels_an_image_are_refused():
    criterion = OFAStage(((16, 8),), ((4,),), 4, stage=3)
    batch = {"label": torch.ones(5, 4)}
    with pytest.raises(UserError, match=r"OFAStage takes the logits as those of one class"):
        criterion((torch.zeros(5, 16, 8),), (TEACHER,), batch)


def test_tokens_of_another_grid_than_at_construction_are_refused_where_they_cannot_be_merged():
    head = token_head((14 * 14, 8), 10, 3, None, 0)
    with pytest.raises(UserError, match="which 225 in a square do not allow"):
        head(torch.zeros(1, 225, 8))
