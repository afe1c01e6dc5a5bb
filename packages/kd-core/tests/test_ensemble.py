"""Several teachers teach as one: each sees images as it was trained, their logits are averaged."""

from types import SimpleNamespace

import pytest
import torch
from kd_core.criteria.soft_label import soft_label
from kd_core.distill.ensemble import Ensemble, with_ensembles
from kd_core.errors import UserError
from kd_core.experiment.builder import build_distiller
from kd_core.networks.task import Task
from torch import nn

DATA = SimpleNamespace(num_classes=5, num_samples=8, labels=torch.zeros(8, dtype=torch.int64))
TERM = {"criterion": {"type": "kd_core.criteria.soft_label.SoftLabel"}}


class Scaled(Task):
    """A classifier that was trained on images of another scale."""

    def __init__(self, scale, classes=5, dropout=0.5):
        layers = nn.Flatten(), nn.Linear(12, classes), nn.Dropout(dropout)
        super().__init__(nn.Sequential(*layers))
        self.scale = scale

    def prepare(self, images):
        return images * self.scale

    def forward(self, batch):
        logits = self.network(self.prepare(batch["image"]))
        return {"ce": logits.logsumexp(1).mean()} if self.training else logits


@pytest.fixture
def batch():
    return {"image": torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))}


@pytest.fixture
def teachers():
    torch.manual_seed(0)
    return {"first": Scaled(1.0), "second": Scaled(0.1), "other": Scaled(1.0, classes=7)}


@pytest.fixture
def distil(teachers, batch):
    def build(ensembles, **terms):
        node = {"terms": terms, "ensembles": ensembles, "task_weight": 0}
        return build_distiller(DATA, Scaled(1.0, dropout=0.0), teachers, batch, **node)

    return build


def test_logits_are_the_mean_of_what_the_members_predict(teachers, batch):
    members = [teachers["first"].eval(), teachers["second"].eval()]
    expected = sum(member(batch) for member in members) / 2
    torch.testing.assert_close(Ensemble(members)(batch), expected)


def test_logits_are_the_weighted_mean_where_members_have_weights(distil, teachers, batch):
    term = {"sl": {**TERM, "source": "mean"}}
    distiller = distil({"mean": {"second": 3, "first": 1.0}}, **term).train()
    with torch.no_grad():
        first, second = (teachers[name](batch) for name in ("first", "second"))
        student = distiller.student.network(batch["image"])
    expected = soft_label(student, (first + 3 * second) / 4)
    torch.testing.assert_close(distiller(batch)["sl"].detach(), expected)
    unequal = Ensemble([teachers["first"], teachers["second"]], [1e9, 1e-9])(batch)
    torch.testing.assert_close(unequal, first)


@pytest.mark.parametrize("weight", [0, -1.0, float("nan"), float("inf"), "2"])
def test_a_weight_that_is_none_is_refused(weight, distil):
    with pytest.raises(UserError, match=r"ensembles\.mean|distiller\.ensembles"):
        distil({"mean": {"first": 1.0, "second": weight}}, sl={**TERM, "source": "mean"})


def test_as_many_weights_as_members_are_wanted(teachers):
    with pytest.raises(UserError, match=r"ensemble of 2 needs as many weights above 0, not \[1\]"):
        Ensemble([teachers["first"], teachers["second"]], [1])


def test_low_precision_is_left_before_the_mean(teachers, batch):
    members = [teachers["first"].eval(), teachers["second"].eval()]
    with torch.autocast("cpu", torch.bfloat16):
        logits = [member(batch) for member in members]
        mean = Ensemble(members)(batch)
    assert logits[0].dtype == torch.bfloat16
    assert torch.equal(mean, (logits[0].float() + logits[1].float()) / 2)


def test_a_term_learns_from_the_ensemble_and_others_from_its_members(distil, teachers, batch):
    terms = {"sl": {**TERM, "source": "mean"}, "sl_first": {**TERM, "source": "first"}}
    distiller = distil({"mean": ["first", "second"]}, **terms).train()
    losses = distiller(batch)
    with torch.no_grad():
        shown = [teachers[name](batch) for name in ("first", "second")]
        student = distiller.student.network(batch["image"])
    expected = {
        "sl": soft_label(student, sum(shown) / 2),
        "sl_first": soft_label(student, shown[0]),
    }
    torch.testing.assert_close({name: loss.detach() for name, loss in losses.items()}, expected)


def test_members_are_shared_frozen_and_no_part_of_the_distiller(distil, teachers):
    distiller = distil({"mean": ["first", "second"]}, sl={**TERM, "source": "mean"}).train()
    ensemble = distiller.teachers["mean"].model
    assert [*ensemble.members] == [teachers["first"], teachers["second"]]
    assert not any(module.training for module in ensemble.modules())
    assert not any(parameter.requires_grad for parameter in ensemble.parameters())
    assert len(distiller.state_dict()) == len(distiller.student.state_dict()) + 1  # the steps


def test_members_of_other_classes_are_refused_at_construction(distil):
    message = r"an ensemble needs members of the same classes, but they give \[\[4, 5\], \[4, 7\]\]"
    with pytest.raises(UserError, match=message):
        distil({"mean": ["first", "other"]}, sl={**TERM, "source": "mean"})


def test_an_ensemble_of_nobody_is_refused_at_construction(distil):
    with pytest.raises(UserError, match=r"an ensemble needs members .* give \[\]"):
        distil({"mean": []}, sl={**TERM, "source": "mean"})


@pytest.mark.parametrize(
    ("ensembles", "message"),
    [
        ({"mean": ["first", "secnd"]}, r"mean: there is no teacher 'secnd'; did you mean 'second'"),
        ({"first": ["first", "second"]}, "first: a teacher has this name"),
        (["first", "second"], "ensembles: wanted lists by name"),
        ({"both": "first"}, r"ensembles\.both: wanted names of teachers, .*got 'first'"),
        ({"both": [["first", "second"]]}, r"ensembles\.both: wanted names of teachers"),
        ({"both": None}, r"ensembles\.both: wanted names of teachers, .*got None"),
        ({"both": ["first", "first"]}, r"ensembles\.both: .* names a teacher twice"),
        ({"a.b": ["first", "second"]}, "ensembles: 'a.b' cannot be a name"),
    ],
)
def test_mistakes_are_named(teachers, ensembles, message):
    with pytest.raises(UserError, match=rf"distiller\.?.*{message}"):
        with_ensembles(teachers, ensembles)
