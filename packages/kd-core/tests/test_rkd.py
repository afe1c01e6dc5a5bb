import math

import pytest
import torch
from kd_core.criteria import rkd as criterion
from kd_core.criteria.rkd import RKD, rkd, rkd_angle, rkd_distance
from kd_core.errors import UserError
from kd_core.testing import signals

FIRST = signals((8, 16), 0.37, 0.2), signals((8, 16), 0.53, 0.9)
SECOND = signals((4, 6), 0.7, 0.2), signals((4, 6), 0.7, 0.9)


@pytest.mark.parametrize(
    ("vectors", "weights", "reference"),
    [
        (FIRST, {}, 19.5111747402),
        (FIRST, {"distance_weight": 1.0, "angle_weight": 0.0}, 0.2428141296),
        (FIRST, {"distance_weight": 0.0, "angle_weight": 1.0}, 0.268816430003),
        (SECOND, {}, 0.2510040172647442),
    ],
)
def test_equals_the_value_of_the_authors_code(vectors, weights, reference, golden):
    golden(rkd(*vectors, **weights), reference)
    golden(RKD(**weights)(*vectors, {}), reference)


def huber(difference):
    return difference**2 / 2 if abs(difference) < 1 else abs(difference) - 0.5


def slow_distances(rows):
    table = [math.dist(x, y) for x in rows for y in rows]
    return [value / (sum(table) / (len(rows) * (len(rows) - 1))) for value in table]


def dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


def slow_angles(rows):
    cosines = []
    for x in rows:
        for y in rows:
            for z in rows:
                one, other = ([a - b for a, b in zip(w, x, strict=True)] for w in (y, z))
                lengths = math.hypot(*one) * math.hypot(*other)
                cosines.append(dot(one, other) / lengths if lengths else 0.0)
    return cosines


@pytest.mark.parametrize(
    ("loss", "slow"), [(rkd_distance, slow_distances), (rkd_angle, slow_angles)]
)
def test_equals_the_equation_written_as_a_loop(loss, slow):
    student, teacher = (slow(side.tolist()) for side in FIRST)
    expected = sum(huber(s - t) for s, t in zip(student, teacher, strict=True)) / len(student)
    assert loss(*FIRST).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("loss", [rkd_distance, rkd_angle])
def test_gradient_is_that_of_finite_differences(loss):
    student, teacher = FIRST[0][:5], FIRST[1][:5, :7]
    assert torch.autograd.gradcheck(
        lambda rows: loss(rows, teacher), student.clone().requires_grad_()
    )


@pytest.mark.parametrize(
    ("loss", "slow"), [(rkd_distance, slow_distances), (rkd_angle, slow_angles)]
)
def test_neighbours_far_from_the_origin_keep_their_relations_in_float32(loss, slow):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(12, 32, generator=generator) for _ in range(2))
    student = student + 100
    student[1] = student[0] + 0.1 * teacher[1]
    pairs = zip(slow(student.tolist()), slow(teacher.tolist()), strict=True)
    differences = [huber(s - t) for s, t in pairs]
    exact = sum(differences) / len(differences)
    assert loss(student, teacher).item() == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("height", [1e-3, 1.0, 1e3])
def test_equal_samples_have_no_direction_and_a_finite_gradient(height):
    rows = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)) * height
    student = torch.cat([rows, rows[:2]]).requires_grad_()
    teacher = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    for loss in (rkd_distance, rkd_angle):
        loss(student, teacher).backward()
        assert student.grad.isfinite().all()
    angles = slow_angles(student.tolist())
    expected = [huber(s - t) for s, t in zip(angles, slow_angles(teacher.tolist()), strict=True)]
    value = rkd_angle(student, teacher).item()
    assert value == pytest.approx(sum(expected) / 7**3, rel=1e-4)


def test_embeddings_that_are_all_equal_give_a_finite_loss_and_gradient():
    student = torch.ones(4, 6, requires_grad=True)
    loss = rkd(student, SECOND[1].float())
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_a_lone_sample_has_no_relations_but_does_not_hide_a_nan():
    assert rkd(torch.ones(1, 6), torch.ones(1, 3)) == 0
    assert rkd(torch.full((1, 6), torch.nan), torch.ones(1, 3)).isnan()


def test_no_tensor_grows_with_the_length_of_the_embeddings_times_the_pairs():
    student, teacher = torch.randn(8, 500, requires_grad=True), torch.randn(8, 3)
    kept = []
    keep = torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.append(x.numel()) or x, lambda x: x
    )
    with keep:
        rkd(student, teacher)
    assert max(kept) <= 8 * 500


def test_angles_in_parts_are_those_of_the_whole_and_keep_no_cube(monkeypatch):
    student, teacher = torch.randn(12, 5, dtype=torch.float64, requires_grad=True), FIRST[1]
    teacher = torch.cat([teacher, teacher[:4].cos()])
    whole = rkd_angle(student, teacher)
    monkeypatch.setattr(criterion, "_CACHED", 5 * 12**2)  # parts of 5, 5 and 2 samples
    kept = []
    keep = torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.append(x.numel()) or x, lambda x: x
    )
    with keep:
        parts = rkd_angle(student, teacher)
    assert max(kept) <= 12**2
    torch.testing.assert_close(parts, whole)
    tables = [torch.rand(12, 12) for _ in range(4)]
    part = criterion._angle_errors(slice(5), *tables)
    assert part.untyped_storage().nbytes() == part.element_size()
    gradients = [torch.autograd.grad(loss, student)[0] for loss in (parts, whole)]
    torch.testing.assert_close(*gradients)


def test_in_one_process_there_is_nothing_to_gather():
    torch.testing.assert_close(RKD(gather=True)(*FIRST, {}), RKD()(*FIRST, {}))


def test_batches_of_different_sizes_are_refused():
    with pytest.raises(UserError, match="needs the same shape"):
        rkd(FIRST[0], FIRST[1][:7])
