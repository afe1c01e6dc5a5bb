"""Mutual learning: every network is a teacher of the others."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core.criteria.kd import kd
from kd_core.distill.distiller import Distiller
from kd_core.distill.mutual import MutualDistiller
from kd_core.errors import UserError
from kd_core.networks.task import Task
from kd_core.testing import signals
from kd_core.training.mutual_step import AlternatingStep
from kd_core.training.step import TrainStep
from torch import nn


class Classify(Task):
    def forward(self, batch):
        logits = self.network(batch["image"])
        return {"ce": F.cross_entropy(logits, batch["label"])} if self.training else logits


def batch():
    generator = torch.Generator().manual_seed(0)
    return {"image": torch.randn(6, 3, generator=generator), "label": torch.arange(6) % 4}


def make(count=2, **options):
    torch.manual_seed(0)
    first, *others = (Classify(nn.Linear(3, 4)) for _ in range(count))
    peers = {f"peer{number}": peer for number, peer in enumerate(others)}
    distiller = MutualDistiller(first, peers, sample=batch(), **options).train()
    return distiller, torch.optim.SGD(distiller.parameters(), lr=0.5)


def weights(distiller):
    return [member.network.weight.detach().clone() for member in distiller.members.values()]


def test_each_learns_the_task_and_the_mean_of_the_others():
    distiller, _ = make(3, weight=2.0)
    losses = distiller(batch())
    assert list(losses) == ["ce", "dml", "ce_peer0", "dml_peer0", "ce_peer1", "dml_peer1"]
    logits = [member.network(batch()["image"]) for member in distiller.members.values()]
    expected = sum(kd(logits[1], logits[j], temperature=1.0) for j in (0, 2))
    torch.testing.assert_close(losses["dml_peer0"], expected)
    losses["dml_peer0"].backward()
    touched = [member.network.weight.grad is not None for member in distiller.members.values()]
    assert touched == [False, True, False]


def test_elementwise_reduction_is_that_of_public_code(golden):
    student, teacher = signals((4, 10), 0.7, 0.3, 3), signals((4, 10), 0.7, 1.1, 4)
    members = {"": [student], "peer": [teacher]}
    distiller, _ = make(reduction="elementwise")
    golden(distiller._divergence("", members), 0.07985965769566698)


def test_simultaneous_step_equals_separate_optimizers():
    distiller, optimizer = make()
    twin, _ = make()
    TrainStep(distiller, optimizer)([batch()])
    logits = [member.network(batch()["image"]) for member in twin.members.values()]
    for number, member in enumerate(twin.members.values()):
        own = torch.optim.SGD(member.parameters(), lr=0.5)
        loss = F.cross_entropy(logits[number], batch()["label"])
        (loss + kd(logits[number], logits[1 - number], temperature=1.0)).backward()
        own.step()
    for one, other in zip(weights(distiller), weights(twin), strict=True):
        torch.testing.assert_close(one, other)


def test_alternating_step_shows_the_second_what_the_first_has_become():
    distiller, optimizer = make()
    start = weights(distiller)
    losses = AlternatingStep(distiller, optimizer)([batch()])
    assert list(losses) == ["ce", "dml", "ce_peer0", "dml_peer0"]
    assert distiller.steps == 1
    after = weights(distiller)
    simultaneous, other = make()
    TrainStep(simultaneous, other)([batch()])
    torch.testing.assert_close(after[0], weights(simultaneous)[0])
    assert not torch.allclose(after[1], weights(simultaneous)[1])
    assert all(not torch.equal(*pair) for pair in zip(start, after, strict=True))


def test_evaluation_is_the_student_s():
    distiller, _ = make()
    torch.testing.assert_close(
        distiller.eval()(batch()), distiller.student.network(batch()["image"])
    )
    assert any(name.startswith("peers.peer0") for name in distiller.state_dict())


def test_mistakes_are_refused():
    with pytest.raises(UserError, match="needs a peer"):
        make(1)
    with pytest.raises(UserError, match="did you mean 'batchmean'"):
        make(reduction="batchmena")
    alone, optimizer = Distiller(Classify(nn.Linear(3, 4)), {}, {}), make()[1]
    with pytest.raises(UserError, match="name `peers`"):
        AlternatingStep(alone, optimizer)


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body, self.fc = nn.Linear(3, width), nn.Linear(width, 4)

    def forward(self, images):
        return self.fc(self.body(images).relu())


def make_coding(**options):
    torch.manual_seed(0)
    student, peer = (Classify(Net(width), roles={"pooled": "fc:in"}) for width in (5, 7))
    options = {"widths": [2, 6], "sample": batch(), **options}
    return MutualDistiller(student, {"peer": peer}, **options).train()


@pytest.mark.parametrize("reduction", ["batchmean", "elementwise"])
def test_codes_of_any_features_are_taught_beside_the_logits(reduction):
    distiller = make_coding(reduction=reduction)
    own, other = (
        [m.network(batch()["image"]), *(e(m.network.body(batch()["image"]).relu()) for e in codes)]
        for m, codes in zip(distiller.members.values(), distiller.encoders.values(), strict=True)
    )
    divide = [4, 2, 6] if reduction == "elementwise" else [1, 1, 1]
    parts = zip(own, other, (1.0, 2.0, 8.0), divide, strict=True)
    expected = sum(kd(s, t, temperature=heat) / by for s, t, heat, by in parts)
    losses = distiller(batch())
    torch.testing.assert_close(losses["dml"], expected)
    losses["dml"].backward()
    assert all(p.grad is not None for p in distiller.encoders["student"].parameters())
    assert all(p.grad is None for p in distiller.encoders["peer"].parameters())


def test_codes_need_a_sample_and_a_temperature_each():
    for wrong in ({"sample": None}, {"widths": [2]}):
        with pytest.raises(UserError, match="need a temperature each"):
            make_coding(**wrong)


def test_several_labels_an_image_are_refused():
    batch = {"image": torch.rand(2, 3, 4, 4), "label": torch.ones(2, 3)}

    class Any(Task):
        def forward(self, batch):
            logits = self.network(batch["image"])
            return {"own": logits.mean()} if self.training else logits

    pair = [Any(nn.Sequential(nn.Flatten(), nn.Linear(48, 3))) for _ in range(2)]
    with pytest.raises(UserError, match="mutual learning compares classes by a softmax"):
        MutualDistiller(pair[0], {"peer": pair[1]}, sample=batch)
    distiller = MutualDistiller(pair[0], {"peer": pair[1]})
    with pytest.raises(UserError, match="mutual learning compares classes by a softmax"):
        distiller(batch)
