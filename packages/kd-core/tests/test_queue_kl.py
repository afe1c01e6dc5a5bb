import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.queue_kl import SEED, QueueKL, QueueTokenKL
from kd_core.criteria.queues import suited_length, write_round
from kd_core.criteria.similarities import queue_kl, seed, token_relation
from kd_core.errors import UserError
from kd_core.testing import NoHostReads
from kd_core.testing.golden_inputs import fill_with_sines, normal, probe, value_and_gradients

VECTORS = ((5,),), ((6,),)
BOTH = ((5,), (5, 3, 3)), ((6,), (6, 4, 4))


def batches(count):
    return [(normal(f"c.q.s{i}", 4, 5), normal(f"c.q.t{i}", 4, 6)) for i in range(count)]


def seed_case(**arguments):
    criterion = fill_with_sines(
        SEED(*VECTORS, queue_size=16, teacher_temperature=0.07, **arguments)
    )
    criterion.queue.copy_(F.normalize(normal("c.seed.q", 16, 6)))
    return criterion


CALLS = {
    "queue_kl": (
        lambda: fill_with_sines(QueueKL(*VECTORS, queue_size=10)),
        (1.99530395119, 10.2789943569, 2.81379630402),
        (1.22195374318, -0.478486792573),
    ),
    "queue_kl_small": (
        lambda: fill_with_sines(QueueKL(*VECTORS, queue_size=3, temperature=0.2)),
        (0.753946402732, 2.33343688291),
        (0.662874187917, -1.01853747905),
    ),
    "seed": (
        seed_case,
        (3.77408137869, 4.77694279499, 5.03079807622),
        (0.139052553787, -0.0777458675887),
    ),
}


@pytest.mark.parametrize(("make", "values", "gradient"), CALLS.values(), ids=CALLS)
def test_several_calls_equal_those_of_the_authors_code(make, values, gradient, golden):
    criterion = make()
    for (student, teacher), reference in zip(batches(len(values)), values, strict=True):
        value, [found] = value_and_gradients(
            lambda s, teacher=teacher: criterion(s, teacher, {}), [student]
        )
        golden(value, reference)
    for one, reference in zip(found, gradient, strict=True):
        golden(one, reference)


def test_vectors_and_positions_equal_the_authors_code(golden):
    criterion = fill_with_sines(QueueTokenKL(*BOTH, queue_size=10))
    teacher = normal("c.qt.tv", 4, 6), normal("c.qt.tm", 4, 6, 4, 4)
    student = normal("c.qt.sv", 4, 5), normal("c.qt.sm", 4, 5, 3, 3)
    value, found = value_and_gradients(lambda *s: criterion(s, teacher, {}), student)
    golden(value, 9.75491185051)
    references = (2.76838570851, -0.0049675222011), (0.264499922791, 0.0523627121873)
    for pair, reference in zip(found, references, strict=True):
        golden(pair[0], reference[0])
        golden(pair[1], reference[1])


def test_equals_the_equation_written_as_a_loop():
    student, teacher, queue = (
        normal_rows(key, count) for key, count in (("s", 4), ("t", 4), ("q", 7))
    )
    expected = 0.0
    for s, t in zip(student, teacher, strict=True):
        p, q = ((queue @ side / 0.3).softmax(0).tolist() for side in (t, s))
        expected += sum(
            a * (torch.tensor(a).log() - torch.tensor(b).log()).item()
            for a, b in zip(p, q, strict=True)
        )
    found = queue_kl(student, teacher, queue, temperature=0.3)
    assert found.item() == pytest.approx(expected / 4, rel=1e-5)


def normal_rows(key, count, width=6):
    return F.normalize(normal(key, count, width))


def test_gradients_are_those_of_finite_differences():
    student, teacher, queue = (normal_rows(key, 4) for key in "stq")
    student.requires_grad_()
    for loss in (queue_kl, lambda *sides: seed(*sides, teacher_temperature=0.05)):
        assert torch.autograd.gradcheck(lambda s, loss=loss: loss(s, teacher, queue), student)
    maps = normal("m", 2, 3, 5).requires_grad_(), normal("n", 2, 3, 4)
    assert torch.autograd.gradcheck(lambda s: token_relation(s, maps[1]), maps[0])


def test_the_relation_of_positions_is_free_of_a_rotation():
    student = F.normalize(normal("p", 2, 4, 6), dim=-1)
    turned = student @ torch.linalg.qr(normal("r", 6, 6)).Q
    assert token_relation(turned, student).item() == pytest.approx(0, abs=1e-12)


class TestQueue:
    def test_the_batch_is_put_in_front_in_its_order_and_the_oldest_are_lost(self):
        criterion = QueueKL(*VECTORS, queue_size=10).double()
        assert not criterion.queue.any()
        rows = []
        for student, teacher in batches(3):
            criterion(student, teacher, {})
            rows = [*F.normalize(teacher), *rows]
        torch.testing.assert_close(criterion.queue, torch.stack(rows[:10]))

    def test_of_a_batch_larger_than_the_queue_the_first_rows_stay(self):
        criterion = QueueKL(*VECTORS, queue_size=3).double()
        [(student, teacher)] = batches(1)
        criterion(student, teacher, {})
        torch.testing.assert_close(criterion.queue, F.normalize(teacher)[:3])

    @pytest.mark.parametrize("make", [lambda: QueueKL(*VECTORS, queue_size=10), seed_case])
    def test_nothing_moves_in_evaluation_or_where_predictions_are_compared(self, make):
        criterion = make().double().eval()
        [(student, teacher)] = batches(1)
        before = copy.deepcopy(criterion.state_dict())
        criterion(student, teacher, {})
        criterion.train()
        ((own, shown),) = criterion.compared(student, teacher)
        torch.testing.assert_close(shown, F.normalize(teacher))
        assert own.shape == shown.shape
        assert all(torch.equal(value, before[n]) for n, value in criterion.state_dict().items())

    @pytest.mark.parametrize("name", ["queue_kl", "seed"])
    def test_a_copy_from_the_saved_state_continues_as_the_first_one(self, name):
        first, second = CALLS[name][0](), CALLS[name][0]()
        *early, last = batches(3)
        for student, teacher in early:
            first(student, teacher, {})
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(*last, {}), second(*last, {}))

    @pytest.mark.parametrize("name", ["queue_kl", "seed"])
    def test_two_losses_before_one_backward_do_not_disturb_each_other(self, name):
        criterion, pairs = CALLS[name][0](), batches(2)
        students = [student.requires_grad_() for student, _ in pairs]
        sum(criterion(s, t, {}) for s, (_, t) in zip(students, pairs, strict=True)).backward()
        assert all(student.grad.any() for student in students)

    @pytest.mark.parametrize("name", ["queue_kl", "queue_kl_small", "seed"])
    def test_nothing_is_read_back(self, name):
        criterion = CALLS[name][0]()
        with NoHostReads():
            for student, teacher in batches(3):
                criterion(student, teacher, {})


class TestLength:
    @pytest.mark.parametrize(
        ("images", "length"),
        [(9, 9), (50, 16), (51, 32), (1000, 256), (10_000, 2048), (20_000, 4096), (20_001, 8192)],
    )
    def test_it_suits_the_data_set_where_it_is_left_open(self, images, length):
        assert suited_length(images) == length
        for cls, shapes in ((QueueKL, VECTORS), (QueueTokenKL, BOTH), (SEED, VECTORS)):
            assert len(cls(*shapes, images, queue_size=None).queue) == length

    def test_a_queue_longer_than_the_data_set_is_refused(self):
        for cls, shapes in ((QueueKL, VECTORS), (QueueTokenKL, BOTH)):
            with pytest.raises(UserError, match=rf"{cls.__name__}: .* 8192 .* 500 .*_size=128, or"):
                cls(*shapes, 500)
        assert len(QueueKL(*VECTORS, 500, queue_size=500).queue) == 500

    def test_seed_s_ring_may_be_longer_and_tells_it(self, capsys):
        assert len(SEED(*VECTORS, 500).queue) == 65536
        assert "SEED: a ring of 65536 vectors is longer than" in capsys.readouterr().err

    def test_without_a_data_set_it_is_the_longest(self):
        assert len(QueueKL(*VECTORS, queue_size=None).queue) == 8192


class TestRing:
    @pytest.mark.parametrize(
        ("place", "count", "expected", "then"),
        [
            (0, 2, [1, 2, 0, 0], 2),
            (3, 2, [2, 0, 0, 1], 1),
            (2, 4, [3, 4, 1, 2], 2),
            (1, 6, [4, 5, 6, 3], 3),
            (2, 0, [0, 0, 0, 0], 2),
        ],
    )
    def test_rows_are_written_round_the_end(self, place, count, expected, then):
        ring, at = torch.zeros(4, 1), torch.tensor(place)
        write_round(ring, at, torch.arange(1.0, count + 1).unsqueeze(1))
        assert ring.flatten().tolist() == expected
        assert at.item() == then

    def test_no_row_is_written_twice_since_devices_write_in_any_order(self, monkeypatch):
        copy_rows = torch.Tensor.index_copy_

        def backwards(ring, dim, index, rows):
            return copy_rows(ring, dim, index.flip(0), rows.flip(dim))

        monkeypatch.setattr(torch.Tensor, "index_copy_", backwards)
        ring = torch.zeros(4, 1)
        write_round(ring, torch.tensor(1), torch.arange(1.0, 7.0).unsqueeze(1))
        assert ring.flatten().tolist() == [4, 5, 6, 3]

    def test_it_starts_with_the_same_random_directions_in_every_process(self):
        torch.manual_seed(1)
        first = SEED(*VECTORS, queue_size=9).queue
        torch.manual_seed(2)
        assert torch.equal(first, SEED(*VECTORS, queue_size=9).queue)
        torch.testing.assert_close(first.norm(dim=1), torch.ones(9))
        assert abs(probe(first)) > 0

    def test_it_gets_the_rows_of_all_processes(self, monkeypatch):
        monkeypatch.setattr(
            "kd_core.criteria.queue_kl.gather_rows", lambda rows: torch.cat([rows, -rows])
        )
        criterion, [(student, teacher)] = seed_case(), batches(1)
        criterion(student, teacher, {})
        rows = F.normalize(teacher)
        torch.testing.assert_close(criterion.queue[:8], torch.cat([rows, -rows]))
        assert criterion.place.item() == 8


class TestHeads:
    def test_are_drawn_as_in_the_authors_code(self):
        torch.manual_seed(0)
        head = QueueKL(((400,),), ((500,),)).head
        assert head.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert 0 < head.bias.abs().max() <= 400**-0.5

    def test_of_seed_is_a_perceptron_or_linear(self):
        shapes = {name: list(p.shape) for name, p in SEED(*VECTORS).named_parameters()}
        assert shapes["head.0.weight"] == [5, 5]
        assert shapes["head.2.weight"] == [6, 5]
        linear = SEED(*VECTORS, mlp=False)
        assert {name for name, _ in linear.named_parameters()} == {"head.weight", "head.bias"}


def test_a_relation_of_very_many_positions_is_told_once(capsys):
    QueueTokenKL(((5,), (5, 8, 8)), ((6,), (6, 32, 32)))
    assert capsys.readouterr().err == ""
    QueueTokenKL(((5,), (5, 8, 8)), ((6,), (6, 33, 32)))
    assert "the teacher's map has 33 x 32 positions" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(2, 5), (9, 3)])
def test_maps_that_are_not_square_are_brought_to_the_teachers_grid(size):
    criterion = QueueTokenKL(((5,), (5, *size)), ((6,), (6, 4, 7)))
    student = torch.randn(2, 5), torch.randn(2, 5, *size)
    assert criterion(student, (torch.randn(2, 6), torch.randn(2, 6, 4, 7)), {}).isfinite()
