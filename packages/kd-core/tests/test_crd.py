import copy
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria import crd
from kd_core.criteria.crd import CRD
from kd_core.errors import UserError
from kd_core.testing import NoHostReads, fill, signals
from torch import nn

LABELS = torch.arange(12) % 3


def make(labels=LABELS, widths=(5, 6), **arguments):
    return CRD(((widths[0],),), ((widths[1],),), labels, **arguments)


def reference_case():
    """Memories, embeddings and batch of the reference's numbers."""
    criterion = make(widths=(4, 4), dim=4).double()
    criterion.student_embedding = criterion.teacher_embedding = nn.Identity()
    criterion.memories[0] = signals((12, 4), 0.9, 0.1, 0.3)
    criterion.memories[1] = signals((12, 4), 1.1, 0.7, 0.3)
    index = torch.tensor([0, 4, 7])
    contrast = (index[:, None] + torch.arange(6)) % 12
    vectors = signals((3, 4), 0.5, 0.2), signals((3, 4), 0.8, 0.4)
    return criterion, (*vectors, {"index": index, "contrast": contrast})


def random_case(samples, negatives, **arguments):
    """A criterion in float64, and a batch with contrasts given."""
    generator = torch.Generator().manual_seed(0)
    criterion = make(torch.arange(samples) % 3, dim=4, **arguments)
    fill(criterion)
    index = torch.randperm(samples, generator=generator)[:4]
    contrast = torch.randint(samples, (4, negatives), generator=generator)
    contrast = torch.cat([index[:, None], contrast], 1)
    sides = (torch.randn(4, d, generator=generator, dtype=torch.float64) for d in (5, 6))
    return criterion.double(), (*sides, {"index": index, "contrast": contrast})


class SlowCRD:
    """The equations in plain Python, lists for memories; a call gives the loss of each side."""

    def __init__(self, criterion):
        self.memories = criterion.memories.tolist()
        self.constants = [-1.0, -1.0]
        self.temperature, self.momentum = criterion.temperature, criterion.momentum

    def __call__(self, student, teacher, batch):
        index, contrast = batch["index"].tolist(), batch["contrast"].tolist()
        sides = [F.normalize(side).tolist() for side in (student, teacher)]
        losses = [self.contrast(side, sides[side], contrast) for side in (0, 1)]
        for memory, vectors in zip(self.memories, sides, strict=True):
            for i, vector in zip(index, vectors, strict=True):
                old = zip(memory[i], vector, strict=True)
                mixed = [self.momentum * m + (1 - self.momentum) * v for m, v in old]
                memory[i] = [value / math.hypot(*mixed) for value in mixed]
        return losses

    def contrast(self, side, vectors, contrast):
        memory, samples = self.memories[1 - side], len(self.memories[0])
        powers = [
            [math.exp(dot(memory[j], vector) / self.temperature) for j in row]
            for vector, row in zip(vectors, contrast, strict=True)
        ]
        contrasts = len(powers) * len(powers[0])
        if self.constants[side] < 0:
            self.constants[side] = sum(map(sum, powers)) / contrasts * samples
        share = (len(contrast[0]) - 1) / samples
        total = 0.0
        for row in powers:
            positive, *negatives = (power / self.constants[side] for power in row)
            total += math.log(positive / (positive + share + 1e-7))
            total += sum(math.log(share / (p + share + 1e-7)) for p in negatives)
        return -total / len(vectors)


def dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


class TestValues:
    def test_equals_the_values_of_the_authors_code(self, golden):
        criterion, inputs = reference_case()
        slow = SlowCRD(criterion)
        for student, teacher in ((7.10202571488, 2.98343415608), (11.7798914474, 14.0593594023)):
            golden(criterion(*inputs), student + teacher)
            sides = slow(*inputs)
            golden(sides[0], student)
            golden(sides[1], teacher)
            golden(criterion.constants[0], 232.407229563915)
            golden(criterion.constants[1], 758.650707834318)

    def test_memories_after_one_call_equal_those_of_the_authors_code(self, golden):
        criterion, inputs = reference_case()
        criterion(*inputs)
        golden(criterion.memories[0, 4, 0], 0.733994578832)
        golden(criterion.memories[1, 7, 3], 0.0651193254469)

    @pytest.mark.parametrize(("samples", "negatives"), [(12, 5), (60, 3)])
    def test_equals_the_equation_written_as_a_loop(self, samples, negatives):
        # The larger memory is read row by row, the smaller one multiplied as a whole.
        criterion, inputs = random_case(samples, negatives, temperature=0.3, momentum=0.8)
        slow = SlowCRD(criterion)
        embedded = criterion.student_embedding(inputs[0]), criterion.teacher_embedding(inputs[1])
        for _ in range(3):
            expected = sum(slow(*embedded, inputs[2]))
            assert criterion(*inputs).item() == pytest.approx(expected, rel=1e-12)
        expected = torch.tensor(slow.memories, dtype=torch.float64)
        torch.testing.assert_close(criterion.memories, expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize(("samples", "negatives"), [(12, 5), (60, 3)])
    def test_gradient_is_that_of_finite_differences(self, samples, negatives):
        criterion, (student, teacher, batch) = random_case(samples, negatives)

        def loss(student, *parameters):
            return copy.deepcopy(criterion)(student, teacher, batch)

        criterion(student, teacher, batch)  # sets the constants
        assert torch.autograd.gradcheck(loss, student.requires_grad_())

    def test_small_probabilities_of_negatives_keep_their_digits_in_float32(self):
        criterion, (student, teacher, batch) = random_case(60, 50)
        exact = criterion(student, teacher, batch)
        criterion = random_case(60, 50)[0].float()
        value = criterion(student.float(), teacher.float(), batch)
        torch.testing.assert_close(value.double(), exact, rtol=1e-6, atol=0)

    def test_with_contrasts_given_the_order_of_the_batch_does_not_matter(self):
        values = []
        for turn in (0, 1):
            criterion, (student, teacher, batch) = random_case(60, 3)
            batch = {name: value.roll(turn, 0) for name, value in batch.items()}
            inputs = student.roll(turn, 0), teacher.roll(turn, 0), batch
            values += [criterion(*inputs) + criterion(*inputs)]
        torch.testing.assert_close(*values)


class TestMemory:
    def test_extra_parameters_and_memories_are_as_many_as_the_references(self):
        criterion = make(torch.arange(500) % 100, widths=(256, 256))
        assert sum(parameter.numel() for parameter in criterion.parameters()) == 65_792
        assert criterion.memories.shape == (2, 500, 128)
        assert criterion.constants.shape == (2,)

    def test_every_process_begins_with_the_same_memories_whatever_its_generator(self):
        torch.manual_seed(1)
        first = make()
        torch.manual_seed(2)
        second = make()
        assert torch.equal(first.memories, second.memories)
        assert 0.14 < first.memories.max() <= (128 / 3) ** -0.5
        assert -0.14 > first.memories.min() >= -((128 / 3) ** -0.5)
        assert not torch.equal(*first.memories)
        assert not torch.equal(first.student_embedding.weight, second.student_embedding.weight)

    def test_constants_are_set_by_the_first_batch_for_good_and_keep_no_graph(self):
        criterion, (student, teacher, batch) = random_case(12, 5)
        criterion(student.requires_grad_(), teacher, batch)
        constants = criterion.constants.clone()
        assert (constants > 0).all()
        assert not criterion.constants.requires_grad
        copy.deepcopy(criterion)
        criterion(2 - student, teacher, batch)
        assert torch.equal(criterion.constants, constants)

    def test_an_empty_batch_sets_nothing(self):
        criterion, (student, teacher, batch) = random_case(12, 5)
        before = copy.deepcopy(criterion.state_dict())
        empty = {name: value[:0] for name, value in batch.items()}
        criterion(student[:0], teacher[:0], empty)
        assert all(torch.equal(value, before[n]) for n, value in criterion.state_dict().items())

    @pytest.mark.parametrize("order", ["forwards", "backwards"])
    def test_of_equal_indices_the_last_counts_in_whatever_order_a_device_writes(
        self, monkeypatch, order
    ):
        copy_rows = torch.Tensor.index_copy_

        def backwards(memory, dim, index, rows):
            return copy_rows(memory, dim, index.flip(0), rows.flip(dim))

        if order == "backwards":
            monkeypatch.setattr(torch.Tensor, "index_copy_", backwards)
        criterion, (student, teacher, batch) = random_case(12, 5)
        alone = copy.deepcopy(criterion)
        twice = {**batch, "index": torch.tensor([3, 7, 3, 3])}
        criterion(student, teacher, twice)
        single = {name: value[[1, 3]] for name, value in twice.items()}
        alone(student[[1, 3]], teacher[[1, 3]], single)
        torch.testing.assert_close(criterion.memories, alone.memories)

    def test_what_a_memory_was_when_it_was_read_counts_in_the_backward(self):
        for samples in (12, 60):
            criterion, (student, teacher, batch) = random_case(samples, 3)
            criterion(student.requires_grad_(), teacher, batch).backward()
            assert student.grad.any()
            assert criterion.student_embedding.weight.grad.any()
            assert criterion.teacher_embedding.weight.grad.any()

    def test_rows_of_a_small_memory_are_not_copied_for_every_sample(self):
        criterion = make(torch.arange(300) % 100, num_negatives=250)
        kept = []
        keep = torch.autograd.graph.saved_tensors_hooks(
            lambda x: kept.append(x.numel()) or x, lambda x: x
        )
        with keep:
            criterion(torch.randn(8, 5), torch.randn(8, 6), {"index": torch.arange(8)})
        assert max(kept) == 300 * 128


@pytest.fixture(params=["few samples", "many samples"])
def regime(request, monkeypatch):
    if request.param == "many samples":
        monkeypatch.setattr(crd, "_SMALL", 0)
    return request.param


# Classes of 5, 20 and 15 samples, not in order.
UNEQUAL = torch.tensor([2, 1, 1, 0, 1, 2, 1, 2] * 5)


def samples_of(label):
    return [sample for sample, found in enumerate(UNEQUAL.tolist()) if found == label]


class TestDraw:
    def test_negatives_are_of_other_classes_and_the_positive_is_the_sample(self, regime):
        criterion = make(UNEQUAL, num_negatives=9)
        index = torch.randint(40, (500,))
        contrast = criterion.draw(index)
        assert contrast.shape == (500, 10)
        assert contrast.dtype == torch.int64
        assert torch.equal(contrast[:, 0], index)
        assert (UNEQUAL[contrast[:, 1:]] != UNEQUAL[index][:, None]).all()

    def test_a_relaxed_positive_is_any_sample_of_the_class(self):
        criterion = make(UNEQUAL, mode="relax")
        for sample, label in ((0, 2), (1, 1), (3, 0)):
            drawn = criterion.draw(torch.full((500,), sample))[:, 0]
            assert drawn.unique().tolist() == samples_of(label)

    def test_negatives_are_uniform_over_the_other_classes(self, regime):
        torch.manual_seed(0)
        repeats = 4000
        criterion = make(UNEQUAL, num_negatives=9)
        for sample, label in ((0, 2), (1, 1), (3, 0)):
            others = label != UNEQUAL
            contrast = criterion.draw(torch.full((repeats,), sample))[:, 1:]
            counts = torch.bincount(contrast.flatten(), minlength=40)[others]
            expected = repeats * 9 / int(others.sum())
            assert (counts - expected).abs().max() < 5 * expected**0.5

    def test_of_few_samples_none_is_drawn_twice(self):
        criterion = make(UNEQUAL, num_negatives=15)
        drawn = criterion.draw(torch.arange(40))[:, 1:].sort(1).values
        assert (drawn.diff(dim=1) > 0).all()

    def test_there_are_no_more_negatives_than_the_largest_class_leaves(self):
        assert make(UNEQUAL).num_negatives == 20
        assert make(UNEQUAL, num_negatives=7).num_negatives == 7
        every = make(UNEQUAL).draw(torch.tensor([1]))[0, 1:].sort().values
        assert every.tolist() == sorted(samples_of(0) + samples_of(2))

    @pytest.mark.parametrize("mode", ["exact", "relax"])
    def test_nothing_is_read_back(self, regime, mode):
        criterion = make(UNEQUAL, mode=mode)
        index = torch.arange(8)
        with NoHostReads():
            criterion.draw(index)

    def test_tables_for_drawing_are_not_saved_but_move_with_the_criterion(self):
        criterion = make(UNEQUAL)
        saved = [name for name in criterion.state_dict() if "embedding" not in name]
        assert saved == ["memories", "constants"]
        assert criterion.to("meta").by_class.device.type == "meta"


class TestRefusals:
    def test_one_class_has_nothing_to_contrast_with(self):
        with pytest.raises(UserError, match="needs two classes at least"):
            make(torch.zeros(5, dtype=torch.int64))

    def test_an_unknown_mode_is_named(self):
        with pytest.raises(UserError, match="mode is 'relaxed'; did you mean 'relax'"):
            make(mode="relaxed")

    def test_maps_are_refused(self):
        with pytest.raises(UserError, match="CRD takes vectors"):
            CRD(((6, 4, 4),), ((6,),), LABELS)
