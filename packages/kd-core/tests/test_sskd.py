import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.kd import kd
from kd_core.criteria.sskd import SSKD, SSKDHead, selective_kd
from kd_core.errors import UserError
from kd_core.files.weights import load_weights
from kd_core.testing import fill, make, sample, signals

STUDENT, TEACHER = signals((8, 10), 0.7, 0.3, 3), signals((8, 10), 1.3, 0.5, 3)
LABEL = (3 * torch.arange(8) + 1) % 10


def test_equals_the_values_of_the_authors_code(golden):
    """Its steps, with images next to their rotations, where ours are view by view."""
    batch = {"label": ((3 * torch.arange(6) + 1) % 10).repeat(4), "num_views": 4}
    logits = signals((24, 10), 0.7, 0.3, 3), signals((24, 10), 1.3, 0.5, 3)
    vectors = signals((24, 6), 0.9, 0.2), signals((24, 8), 1.1, 0.8)
    head, criterion = SSKDHead(((8,),)), SSKD(((10,), (6,)), ((10,), (8,)))
    fill(head)
    golden(head((), vectors[1], batch).detach(), 1.8722479719100729)
    fill(criterion)
    both = [(logits[side], vectors[side]) for side in range(2)]
    golden(criterion(*both, batch).detach(), 15.216034641766935)


def rank(row, label):
    """Place of the true class in the teacher's order of classes, 0 for the first."""
    return sorted(range(len(row)), key=lambda c: -row[c]).index(label)


def slow_kept(teacher, label, share):
    ranks = [rank(row, k) for row, k in zip(teacher.tolist(), label.tolist(), strict=True)]
    right = ranks.count(0)
    number = right + int((len(ranks) - right) * share)
    probability = teacher.softmax(1).tolist()
    order = sorted(range(len(ranks)), key=lambda n: (ranks[n], -probability[n][label[n]]))
    return sorted(order[:number])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.75, 1.0])
def test_kept_are_samples_that_the_teacher_knows_and_the_best_of_the_others(share):
    label = LABEL.clone()
    label[:2] = TEACHER[:2].argmax(1)
    kept = slow_kept(TEACHER, label, share)
    loss = selective_kd(STUDENT, TEACHER, label, share=share, temperature=3.0)
    torch.testing.assert_close(loss, kd(STUDENT[kept], TEACHER[kept], temperature=3.0))


def test_equals_the_equation_written_as_a_loop():
    kept, expected = slow_kept(TEACHER, LABEL, 0.75), 0.0
    assert 2 < len(kept) < 8
    for n in kept:
        p, q = ((row[n] / 0.5).softmax(0).tolist() for row in (STUDENT, TEACHER))
        expected += sum(b * math.log(b / a) for a, b in zip(p, q, strict=True)) * 0.25
    loss = selective_kd(STUDENT, TEACHER, LABEL, share=0.75, temperature=0.5)
    assert loss.item() == pytest.approx(expected / len(kept), rel=1e-12)


def test_all_samples_are_kept_at_share_1():
    loss = selective_kd(STUDENT, TEACHER, LABEL, share=1.0, temperature=4.0)
    torch.testing.assert_close(loss, kd(STUDENT, TEACHER))


def test_of_equal_ranks_the_surer_teacher_is_kept_in_any_order_of_the_batch():
    teacher = torch.tensor([[2.0, 0.0, 1.9], [2.0, 0.0, 1.0], [2.0, 0.0, 1.5]])
    label, student = torch.tensor([2, 2, 2]), torch.randn(3, 3)
    for order in ([0, 1, 2], [1, 2, 0], [2, 1, 0]):
        inputs = student[order], teacher[order], label[order]
        loss = selective_kd(*inputs, share=0.34, temperature=1.0)
        torch.testing.assert_close(loss, kd(student[:1], teacher[:1], temperature=1.0))


def test_nothing_kept_is_zero_with_its_graph():
    student = torch.randn(2, 3, requires_grad=True)
    label = torch.tensor([1, 1])
    teacher = torch.tensor([[1.0, 0.0, 0.0]] * 2)
    loss = selective_kd(student, teacher, label, share=0.4, temperature=1.0)
    loss.backward()
    assert loss == 0
    assert not student.grad.any()


def test_a_nan_in_a_sample_that_is_not_kept_is_seen():
    (left_out,) = {*range(8)} - {*slow_kept(TEACHER, LABEL, 0.9)}
    student = STUDENT.clone()
    student[left_out] = math.nan
    assert selective_kd(student, TEACHER, LABEL, share=0.9, temperature=1.0).isnan()


def test_gradient_of_the_kept_is_that_of_finite_differences():
    assert torch.autograd.gradcheck(
        lambda logits: selective_kd(logits, TEACHER, LABEL, share=0.5, temperature=2.0),
        STUDENT.clone().requires_grad_(),
    )


def cosines(head, vectors):
    """Rotations against images, [3 * N, N], one by one."""
    number = len(vectors) // 4
    rows = head(vectors)
    return torch.stack(
        [
            torch.stack([F.cosine_similarity(turned, image, dim=0) for image in rows[:number]])
            for turned in rows[number:]
        ]
    )


def test_the_heads_loss_is_the_cross_entropy_of_finding_the_image_of_a_rotation():
    criterion, (_, teacher, batch) = make(SSKDHead), sample(SSKDHead, size=3)
    similarity = cosines(criterion.teacher_head, teacher)
    expected = sum(-row.log_softmax(0)[i % 3] for i, row in enumerate(similarity)) / 9
    torch.testing.assert_close(criterion((), teacher, batch), expected)


def test_a_head_is_two_layers_with_an_activation_between():
    head, vectors = SSKDHead(((8,),)).teacher_head, torch.randn(5, 8)
    hidden = (vectors @ head[0].weight.mT + head[0].bias).clamp(min=0)
    expected = hidden @ head[-1].weight.mT + head[-1].bias
    torch.testing.assert_close(head(vectors), expected)


def test_short_projections_have_their_cosines_too():
    criterion, (_, teacher, batch) = make(SSKDHead), sample(SSKDHead)
    criterion.teacher_head = torch.nn.Identity()
    losses = [criterion((), scale * teacher, batch) for scale in (1, 1e-4)]
    torch.testing.assert_close(*losses)


def test_the_head_needs_nothing_of_the_student():
    criterion, (_, teacher, batch) = SSKDHead(((8,),)), sample(SSKDHead)
    criterion.check_shapes((), ((8,),))
    loss = criterion((), teacher, batch)
    loss.backward()
    assert criterion.teacher_head[0].weight.grad.any()
    assert teacher.grad is None


def parts(student, teacher, batch, criterion):
    """The three losses without weights, with the rows that are kept picked out by hand."""
    number = len(student[0]) // 4
    label = batch["label"][number:]
    images = kd(student[0][:number], teacher[0][:number])
    rotated = kd(student[0][number:], teacher[0][number:])
    own = cosines(criterion.student_head, student[1])
    shown = cosines(criterion.teacher_head, teacher[1])
    origin = torch.arange(number).repeat(3)
    kept = slow_kept(shown, origin, 0.75)
    assert len(label) == len(own) > len(kept)
    return images, rotated, kd(own[kept], shown[kept], temperature=0.5)


def test_the_student_learns_images_rotations_and_similarities_with_the_authors_weights():
    criterion, inputs = make(SSKD), sample(SSKD)
    images, rotated, similarity = parts(*inputs, criterion)
    expected = 0.9 * images + 2.7 * rotated + 10 * similarity
    torch.testing.assert_close(criterion(*inputs), expected)


@pytest.mark.parametrize("part", range(3))
def test_each_part_has_a_weight(part):
    names = ("kd_weight", "rotated_weight", "similarity_weight")
    weights = {name: float(i == part) for i, name in enumerate(names)}
    inputs = sample(SSKD)
    criterion = make(SSKD, **weights)
    torch.testing.assert_close(criterion(*inputs), parts(*inputs, criterion)[part])


def test_shares_and_temperatures_reach_their_parts():
    inputs = student, teacher, batch = sample(SSKD)
    rotated = selective_kd(
        student[0][4:], teacher[0][4:], batch["label"][4:], share=0.25, temperature=2.0
    )
    arguments = {"kd_weight": 0.0, "similarity_weight": 0.0, "rotated_weight": 1.0}
    criterion = make(SSKD, rotated_share=0.25, temperature=2.0, **arguments)
    torch.testing.assert_close(criterion(*inputs), rotated)
    assert rotated != kd(student[0][4:], teacher[0][4:], temperature=2.0)
    one, two = (
        make(SSKD, kd_weight=0.0, rotated_weight=0.0, similarity_temperature=t) for t in (0.5, 1.0)
    )
    two.load_state_dict(one.state_dict())
    assert one(*inputs) != two(*inputs)


def test_the_teachers_head_is_frozen_and_the_students_is_not():
    criterion = make(SSKD)
    assert not any(parameter.requires_grad for parameter in criterion.teacher_head.parameters())
    criterion(*sample(SSKD)).backward()
    assert all(parameter.grad.any() for parameter in criterion.student_head.parameters())


def test_the_teachers_head_comes_from_the_stage_before(tmp_path):
    first, second = SSKDHead(((8,),)), SSKD(((7,), (6,)), ((7,), (8,)))
    own = second.student_head[0].weight.clone()
    torch.save(first.state_dict(), tmp_path / "head.pth")
    load_weights(second, tmp_path / "head.pth", parts=True)
    for name, value in first.teacher_head.state_dict().items():
        assert torch.equal(second.teacher_head.state_dict()[name], value)
    assert torch.equal(second.student_head[0].weight, own)


def test_each_head_has_two_square_layers():
    criterion = SSKD(((100,), (64,)), ((100,), (256,)))
    trained = sum(p.numel() for p in criterion.parameters() if p.requires_grad)
    assert trained == 2 * (64 * 64 + 64)
    assert sum(p.numel() for p in SSKDHead(((256,),)).parameters()) == 2 * (256 * 256 + 256)


@pytest.mark.parametrize("cls", [SSKD, SSKDHead])
@pytest.mark.parametrize("views", [{}, {"num_views": 2}])
def test_a_batch_without_its_quarter_turns_is_refused(cls, views):
    student, teacher, batch = sample(cls)
    batch = {name: value for name, value in batch.items() if name != "num_views"} | views
    with pytest.raises(UserError, match=r"needs 4 views .* has [12]; add .*QuarterTurns"):
        make(cls)(student, teacher, batch)


def test_logits_and_vectors_are_refused_in_the_wrong_order():
    with pytest.raises(UserError, match="student has 7 classes, teacher 8"):
        SSKD(((7,), (6,)), ((8,), (7,)))


def test_what_the_stage_before_trains_is_frozen_and_asked_for():
    assert SSKD.trained_before == ("teacher_head",)
    frozen = [name for name, p in make(SSKD).named_parameters() if not p.requires_grad]
    assert {name.partition(".")[0] for name in frozen} == {"teacher_head"}
