import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.afd import AFD
from kd_core.errors import UserError
from kd_core.testing import fill, signals

SHAPES = ((6, 8, 8), (12, 4, 4), (12, 4, 4)), ((6, 8, 8), (12, 4, 4))
STUDENT = tuple(
    signals((4, *shape), 0.7, phase)
    for shape, phase in zip(SHAPES[0], (0.3, 0.5, 0.7), strict=True)
)
TEACHER = tuple(
    signals((4, *shape), 0.7, phase) for shape, phase in zip(SHAPES[1], (0.8, 1.0), strict=True)
)


def filled():
    criterion = AFD(*SHAPES, dim=8)
    fill(criterion)
    return criterion


def test_equals_the_value_of_the_authors_code(golden):
    golden(filled()(STUDENT, TEACHER, {}).detach(), 0.0005842987045824024)


def batchnorm(rows):
    return (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + 1e-5).sqrt()


def slow_afd(criterion, student, teacher):
    """Layer by layer and sample by sample, with BatchNorm written out."""

    def embed(layers, rows):
        return batchnorm(rows @ layers[0].weight.mT + layers[0].bias)

    queries = [
        embed(q, maps.mean((2, 3))) for q, maps in zip(criterion.queries, teacher, strict=True)
    ]
    keys = [
        embed(k, maps.mean((2, 3))).clamp(min=0)
        for k, maps in zip(criterion.keys, student, strict=True)
    ]
    matched = embed(criterion.match, torch.cat(keys))  # student maps one after the other
    number, dim = len(teacher[0]), queries[0].shape[1]
    total = 0.0
    for t, shown in enumerate(teacher):
        for n in range(number):
            scores, errors = [], []
            for s, own in enumerate(student):
                key = matched[s * number + n, t * dim : (t + 1) * dim]
                place = criterion.teacher_places[t] @ criterion.student_places[s]
                scores.append((key @ queries[t][n] + place) / math.sqrt(dim))
                energy = own[n].square().mean(0)[None]
                energy = F.adaptive_avg_pool2d(energy, tuple(shown.shape[2:])).flatten()
                target = shown[n].square().mean(0).flatten()
                errors.append((energy / energy.norm() - target / target.norm()).square().mean())
            total += (torch.stack(scores).softmax(0) @ torch.stack(errors)).item() / number
    return total


def test_equals_the_equations_written_as_a_loop():
    criterion = filled()
    expected = slow_afd(criterion, STUDENT, TEACHER)
    assert criterion(STUDENT, TEACHER, {}).item() == pytest.approx(expected, rel=1e-9)


# Channels and sides of the residual blocks; attention over 9 and 27, over 18 and 6 blocks.
RESNETS = [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
WRNS = [(32, 32, 32), (64, 16, 16), (128, 8, 8)]


@pytest.mark.parametrize(
    ("stages", "student", "teacher"), [(RESNETS, 3, 9), (WRNS, 2, 6)], ids=["resnet56_20", "wrn"]
)
def test_parameters_are_those_of_the_embeddings_and_places(stages, student, teacher):
    own, shown = ([shape for shape in stages for _ in range(n)] for n in (student, teacher))
    count = sum(parameter.numel() for parameter in AFD(own, shown).parameters())
    embeddings = sum(128 * (shape[0] + 1 + 2) for shape in [*own, *shown])
    match = (128 + 1 + 2) * 128 * len(shown)
    assert count == embeddings + match + 128 * (len(own) + len(shown))


def test_gradient_is_that_of_finite_differences():
    criterion = AFD(((2, 4, 4), (3, 2, 2)), ((2, 2, 2),), dim=3).double()
    torch.manual_seed(0)
    student = [torch.randn(3, *shape).double() for shape in ((2, 4, 4), (3, 2, 2))]
    teacher = (torch.randn(3, 2, 2, 2).double(),)
    student = [maps.requires_grad_() for maps in student]
    assert torch.autograd.gradcheck(
        lambda *maps: criterion(maps, teacher, {}), student, fast_mode=True
    )


def test_each_teacher_map_spreads_an_attention_of_one():
    attention = filled().attention(STUDENT, TEACHER)
    assert attention.shape == (4, 2, 3)
    torch.testing.assert_close(attention.sum(2), torch.ones(4, 2, dtype=torch.float64))
    assert (attention.std(2) > 0).all()


def test_gradient_flows_into_the_attention():
    criterion = filled()
    criterion(STUDENT, TEACHER, {}).backward()
    for name, parameter in criterion.named_parameters():
        assert parameter.ndim < 2 or parameter.grad.any(), name


def test_one_student_map_gets_all_attention_and_equal_maps_cost_nothing():
    criterion = AFD(((6, 8, 8),), ((6, 8, 8),), dim=8).double()
    assert (criterion.attention(STUDENT[:1], TEACHER[:1]) == 1).all()
    assert criterion(STUDENT[:1], STUDENT[:1], {}) == 0


def test_a_single_sample_takes_the_running_statistics_and_leaves_them():
    criterion = filled()
    criterion(STUDENT, TEACHER, {})
    single = [tuple(maps[:1] for maps in side) for side in (STUDENT, TEACHER)]
    before = criterion.keys[0][1].running_mean.clone()
    loss = criterion(*single, {})
    assert torch.equal(criterion.keys[0][1].running_mean, before)
    assert loss.isfinite()
    assert loss > 0
    rows = torch.randn(1, 6).double()
    layers = criterion.keys[0]
    torch.testing.assert_close(layers.train()(rows), layers.eval()(rows))


def test_more_samples_take_the_statistics_of_the_batch_and_move_the_running_ones():
    criterion = filled()
    criterion(STUDENT, TEACHER, {})
    assert criterion.keys[0][1].running_mean.any()


def test_numbers_of_maps_may_differ():
    AFD(SHAPES[0], SHAPES[1]).check_shapes(SHAPES[0], SHAPES[1][:1])


@pytest.mark.parametrize("side", [0, 1])
def test_what_is_no_map_is_refused_at_construction(side):
    shapes = [SHAPES[0], SHAPES[1]]
    shapes[side] = ((10,),)
    name = ("student", "teacher")[side]
    with pytest.raises(UserError, match=rf"a tap of the {name} gives \[N, 10\]"):
        AFD(*shapes)


def test_no_map_at_all_is_refused():
    with pytest.raises(UserError, match="the student has 0 taps"):
        AFD((), SHAPES[1])
