"""What terms compare in batches that nothing is trained on."""

import copy

import pytest
import torch
from kd_core.criteria.criterion import Criterion
from kd_core.criteria.fitnet import FitNet
from kd_core.data.device_loader import DeviceLoader
from kd_core.data.loader_set import LoaderSet, has_labels
from kd_core.data.mix import CutMix
from kd_core.distill.compared import Comparison
from kd_core.distill.stored_outputs import StoredOutputs
from kd_core.distill.term import Term, build_terms
from kd_core.distill.weighing import require_losses
from kd_core.errors import UserError
from kd_core.networks.task import Task
from torch import nn


class Whole(Task):
    """A task without a loss."""

    def forward(self, batch):
        return self.network(batch["image"])

    def without_role(self, role):
        return "take a walk" if role == "logits" else ""


class NeedsLabels(Criterion):
    takes = "vectors"

    def __init__(self, labels=None):
        super().__init__()


def network(seed, width=4):
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


BATCH = {"image": torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(1))}


def compared(student, teacher, more):
    torch.manual_seed(2)
    term = Term(FitNet([(4, 6, 6)], [(7, 6, 6)]), student="1", teacher="1")
    comparison = Comparison(student, {"t": teacher}, {"hint": term}, {"hint": "t"}, BATCH, more)
    return term, comparison


def test_pairs_are_what_the_criterion_predicts_and_the_teacher_gives():
    student, teacher = Whole(network(0)).eval(), Whole(network(1, 7)).eval()
    term, comparison = compared(student, teacher, {"student": ["3"]})
    before = copy.deepcopy(term.criterion.state_dict())
    term.criterion.train()
    predictions, values = comparison(BATCH, student)
    ((name, ((predicted, target),)),) = comparison.pairs(values)["t"]
    assert name == "hint"
    assert torch.equal(target, teacher.network[:2](BATCH["image"]).movedim(1, -1))
    term.criterion.eval()
    expected = term.criterion.regressors[0](student.network[:2](BATCH["image"])).movedim(1, -1)
    assert torch.equal(predicted, expected)
    assert torch.equal(predictions["student"], student(BATCH))
    assert values["student"]["3"].shape == (5, 4, 1, 1)
    after = term.criterion.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_average_that_is_evaluated_is_compared_not_the_network_that_is_trained():
    student, teacher = Whole(network(0)).eval(), Whole(network(1, 7)).eval()
    _, comparison = compared(student, teacher, {"student": ["4"]})
    average = Whole(network(3)).eval()
    seen = comparison(BATCH, average)[1]["student"]["4"]
    assert torch.equal(seen, average(BATCH))
    around = Whole(nn.Sequential(average.network, nn.Linear(4, 2))).eval()
    predictions, values = comparison(BATCH, around)
    assert predictions["student"].shape == (5, 2)
    assert torch.equal(values["student"]["4"], average(BATCH))
    other = Whole(nn.Sequential(nn.Flatten(), nn.Linear(108, 2))).eval()
    assert torch.equal(comparison(BATCH, other)[1]["student"]["4"], student(BATCH))


def test_teachers_that_know_training_images_alone_are_left_out():
    student, stored = Whole(network(0)).eval(), StoredOutputs(torch.zeros(5, 4))
    term = Term(FitNet([(4, 6, 6)], [(7, 6, 6)]))
    comparison = Comparison(student, {"t": stored}, {"hint": term}, {"hint": "t"}, BATCH, {})
    predictions, values = comparison(BATCH, student)
    assert list(predictions) == ["student"]
    assert comparison.pairs(values) == {}


def test_criteria_that_are_made_with_labels_are_refused_without_them():
    models = Whole(network(0)), {"teacher": Whole(network(1))}
    node = {"criterion": {"type": NeedsLabels}, "student": "4", "teacher": "4"}
    given = {"num_samples": 5, "num_classes": 0}
    build_terms({"a": node}, *models, BATCH, **given, labels=torch.zeros(5).long())
    with pytest.raises(UserError, match=r"distiller\.terms\.a: NeedsLabels is made with labels"):
        build_terms({"a": node}, *models, BATCH, **given, labels=torch.zeros(0).long())


def test_a_task_says_what_to_do_where_it_lacks_a_role():
    node = {"criterion": {"type": "kd_core.criteria.pkt.PKT"}, "student": "@logits"}
    student = Whole(network(0), roles={"logits": ()})
    with pytest.raises(UserError, match=r"no such role.*take a walk"):
        build_terms({"a": node}, student, {"teacher": Whole(network(1))}, BATCH)


@pytest.mark.parametrize("augment", [(), (CutMix(),)])
def test_batches_without_labels_have_no_label_whatever_mixes_them(augment):
    images = torch.zeros(6, 3, 4, 4, dtype=torch.uint8)
    options = {"batch_size": 4, "augment": augment}
    loader = DeviceLoader(images, torch.zeros(6).long(), labelled=False, **options)
    batch = next(loader.epoch(0))
    assert not {"label", "mixed_labels"} & set(batch)
    assert ("mixed_weights" in batch) == bool(augment)
    data = LoaderSet(train=loader)
    assert (has_labels(data), len(data.labels), data.num_samples) == (False, 0, 6)
    assert "label" in next(DeviceLoader(images, torch.zeros(6).long(), **options).epoch(0))


def test_mixed_images_without_labels_have_no_index_for_criteria():
    class ReadsIndex(Criterion):
        takes = "vectors"

        def forward(self, student, teacher, batch):
            return batch["index"].sum()

    vectors, batch = (
        torch.zeros(2, 3),
        {"index": torch.arange(2), "mixed_weights": torch.ones(2, 2)},
    )
    with pytest.raises(UserError, match="mixed from several"):
        ReadsIndex()(vectors, vectors, batch)


def test_a_training_without_losses_is_refused():
    require_losses(0, ["kd"])
    require_losses({"ce": 0.0}, [])
    with pytest.raises(UserError, match="nothing to learn"):
        require_losses(0, [])
