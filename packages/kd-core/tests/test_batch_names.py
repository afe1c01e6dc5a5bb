"""Batches of other libraries are understood, and ambiguous ones refused."""

from collections import UserDict

import pytest
import torch
from kd_core import Distiller, Term
from kd_core.criteria import CRD, DKD, KD, FitNet
from kd_core.errors import UserError
from kd_core.networks.batch_names import by_our_names
from kd_core.networks.task import Task
from kd_core.testing import discover, make, sample
from kd_core.training.step import TrainStep
from torch import nn


def test_hugging_faces_names_are_understood_and_stay():
    image, label = torch.rand(2, 3, 4, 4), torch.tensor([0, 1])
    for kind in (dict, UserDict):  # BatchFeature is a UserDict
        batch = by_our_names(kind({"pixel_values": image, "labels": label}))
        assert batch["image"] is batch["pixel_values"] is image
        assert batch["label"] is batch["labels"] is label


def test_a_batch_of_our_names_and_what_is_not_a_batch_are_left_alone():
    batch, images = {"image": torch.rand(2), "label": torch.zeros(2)}, [{"image": 1}]
    assert by_our_names(batch) is batch
    assert by_our_names(images) is images
    targets = {"labels": [{"boxes": 1}]}  # of a detector
    assert by_our_names(targets) is targets


@pytest.mark.parametrize(
    "other", [torch.tensor([0, 2]), torch.tensor([0]), torch.tensor([0.0, 1.5]), "text"]
)
def test_two_names_with_two_values_are_refused(other):
    label = torch.tensor([0, 1])
    with pytest.raises(UserError, match="has 'label' and 'labels', and they differ"):
        by_our_names({"label": other, "labels": label})
    same = by_our_names({"label": label.clone(), "labels": label})
    assert same["label"].tolist() == [0, 1]


class Small(Task):
    """A task whose own loss needs labels, unless they are not wanted."""

    def forward(self, batch):
        logits = self.network(batch["image"])
        if not self.training:
            return logits
        return {"ce": nn.functional.cross_entropy(logits, batch["label"])}

    def run_for_taps(self, batch):
        self.network(batch["image"])


def small(classes=3):
    return Small(nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, classes)))


def distiller(criterion, **options):
    taps = {"student": "1", "teacher": "1"} if "vectors" in criterion.takes else {}
    return Distiller(small(), small(), {"term": Term(criterion, **taps)}, **options)


BATCH = {"image": torch.rand(4, 3, 2, 2)}


def test_labels_are_not_needed_where_nothing_reads_them():
    trained = distiller(KD(), task_weight=0, sample=BATCH)
    step = TrainStep(trained, torch.optim.SGD(trained.student.parameters(), lr=0.1))
    assert step([BATCH]).keys() == {"term"}
    named = {"pixel_values": BATCH["image"]}
    assert step([named]).keys() == {"term"}


def test_a_criterion_that_reads_labels_says_so_before_training():
    with pytest.raises(UserError, match=r"term 'term': DKD reads 'label', which the batch lacks"):
        distiller(DKD(), task_weight=0, sample=BATCH)
    crd = CRD(((8,),), ((8,),), torch.arange(8) % 2)
    with pytest.raises(UserError, match=r"CRD reads 'index', which the batch lacks \(it has image"):
        distiller(crd, task_weight=0, sample=BATCH)


MULTI_LABEL = {**BATCH, "label": torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]])}
SOFTMAX = [cls for cls in discover() if cls.takes_logits() and not cls.multi_label]


@pytest.mark.parametrize("cls", SOFTMAX, ids=lambda cls: cls.__name__)
def test_logits_of_a_softmax_are_refused_for_several_labels(cls):
    student, teacher, batch = sample(cls)
    label = torch.ones(len(batch["index"]), 7)
    with pytest.raises(UserError, match=rf"{cls.__name__} takes the logits .*l2d \(MLD, L2D\)"):
        make(cls)(student, teacher, {**batch, "label": label})


def test_that_is_said_when_a_distiller_is_made():
    with pytest.raises(UserError, match=r"term 'term': KD takes the logits as those of one class"):
        distiller(KD(), task_weight=0, sample=MULTI_LABEL)
    with pytest.raises(UserError, match="CRD needs one label an image"):
        CRD(((8,),), ((8,),), MULTI_LABEL["label"])


class ReadsLabels(FitNet):
    def forward(self, student, teacher, batch):
        return super().forward(student, teacher, batch) + batch["label"].sum()


def test_maps_may_be_compared_but_one_label_not_be_read():
    shapes = [(4, 2, 2)], [(4, 2, 2)]
    maps = (torch.rand(4, 4, 2, 2),)
    assert FitNet(*shapes)(maps, maps, MULTI_LABEL).isfinite()
    with pytest.raises(UserError, match="ReadsLabels reads one label an image"):
        ReadsLabels(*shapes)(maps, maps, MULTI_LABEL)


def test_criteria_tried_on_a_sample_are_unchanged():
    crd = CRD(((8,),), ((8,),), torch.arange(8) % 2)
    before = {name: value.clone() for name, value in crd.state_dict().items()}
    built = distiller(crd, task_weight=0)
    state = torch.get_rng_state()
    built.infer_shapes({**BATCH, "index": torch.arange(4)})
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in crd.state_dict().items())
