"""fp16: the scale of the loss, steps that are skipped, and what the device keeps for itself."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.kd import KD
from kd_core.distill.distiller import Distiller
from kd_core.distill.mutual import MutualDistiller
from kd_core.distill.term import Term
from kd_core.networks.task import Task
from kd_core.testing import NoHostReads
from kd_core.training import loss_scale
from kd_core.training.cuda_graph import why_not_capturable
from kd_core.training.dot import DOTStep
from kd_core.training.loss_scale import LossScale, is_state
from kd_core.training.meter import NonFiniteLossError
from kd_core.training.mutual_step import AlternatingStep
from kd_core.training.optimizer import build_optimizer
from kd_core.training.step import TrainStep
from torch import nn

SGD = {"type": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
DAMPED = {**SGD, "dampening": 0.1}
OPTIMIZERS = {
    "sgd": SGD,
    "nesterov": {**SGD, "nesterov": True},
    "damped": DAMPED,
    "adamw": {"type": "torch.optim.AdamW", "lr": 0.1},
    "rmsprop": {"type": "torch.optim.RMSprop", "lr": 0.1, "momentum": 0.9},
}
CPU = torch.device("cpu")


class Toy(Task):
    """Classifies images [N, 12]."""

    def forward(self, batch):
        logits = self.network(batch["image"])
        return {"ce": F.cross_entropy(logits, batch["label"])} if self.training else logits


def toy(seed):
    torch.manual_seed(seed)
    return Toy(nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)))


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    image, label = torch.randn(4, 12, generator=generator), torch.arange(4) % 3
    return {"image": image, "label": label, "index": torch.arange(4)}


def make(kind="sgd", node=SGD, **options):
    """Build a step in float32 arithmetic, in which scaling by powers of two is exact."""
    if kind == "mutual":
        distiller, kind = MutualDistiller(toy(0), {"peer": toy(2)}), AlternatingStep
    else:
        distiller = Distiller(toy(0), toy(1), {"kd": Term(KD())})
        kind = DOTStep if kind == "dot" else TrainStep
    step = kind(distiller.train(), build_optimizer(node, distiller), **options)
    step.dtype = None
    return step


def spoiled(step):
    """Let a gradient of every network be infinite as long as `step.bad` is set."""
    step.bad = False
    for model in (step.distiller.student, *step.distiller.peers.values()):
        parameter = list(model.parameters())[2]
        parameter.register_hook(lambda g: torch.full_like(g, math.inf) if step.bad else g)
    return step


def weights(step):
    return copy.deepcopy(step.distiller.student.state_dict())


@pytest.mark.parametrize("interval", [1, 3])
def test_the_scale_follows_that_of_torch(interval, monkeypatch):
    monkeypatch.setattr(loss_scale, "INTERVAL", interval)
    theirs, ours = torch.amp.GradScaler("cpu", growth_interval=interval), LossScale(CPU)
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    for bad in [1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0]:
        weight.grad = torch.tensor([1.0, math.nan if bad else 3.0])
        gradient = weight.grad.clone()
        theirs.scale(weight.sum())
        theirs.unscale_(optimizer)
        found = ours.unscale([gradient, None])
        torch.testing.assert_close(gradient, weight.grad, rtol=0, atol=0, equal_nan=True)
        theirs.step(optimizer)
        theirs.update()
        ours.update(found)
        assert ours.factor == theirs.get_scale()
        assert ours.good_steps == theirs._get_growth_tracker()
    assert ours.skipped == 4


@pytest.mark.parametrize("kind", ["sgd", "dot", "mutual"])
def test_a_scaled_step_is_the_plain_one(kind):
    plain, scaled = make(kind), make(kind, precision="fp16")
    for seed in range(4):
        pair = [batch(seed), batch(seed + 9)]
        losses = plain(pair)
        torch.testing.assert_close(scaled(pair), losses, rtol=0, atol=0)
    torch.testing.assert_close(weights(scaled), weights(plain), rtol=0, atol=0)


def test_gradients_are_unscaled_before_they_are_clipped():
    plain, scaled = make(clip_norm=0.1), make(clip_norm=0.1, precision="fp16")
    before = torch.cat([p.detach().flatten() for p in plain.distiller.parameters()])
    for step in (plain, scaled):
        step([batch(0)])
    after = torch.cat([p.detach().flatten() for p in scaled.distiller.parameters()])
    torch.testing.assert_close((after - before).norm(), torch.tensor(0.01))
    torch.testing.assert_close(weights(scaled), weights(plain), rtol=0, atol=0)


@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
@pytest.mark.parametrize("kind", [*OPTIMIZERS, "dot", "mutual"])
def test_a_skipped_step_leaves_no_trace_but_a_halved_scale(kind, first):
    node = OPTIMIZERS.get(kind, SGD)
    skipping = spoiled(make(kind, node, precision="fp16"))
    never = make(kind, node, precision="fp16")
    seeds = [0, 1, 2]
    for seed in seeds:
        if first == (seed == 0) and seed < 2:
            kept, skipping.bad = weights(skipping), True
            torch.full((4096,), math.nan)  # what new memory may hold
            losses = skipping([batch(9)])
            assert all(loss.isfinite() for loss in losses.values())
            torch.testing.assert_close(weights(skipping), kept, rtol=0, atol=0)
            skipping.bad = False
        skipping([batch(seed)])
        never([batch(seed)])
    torch.testing.assert_close(weights(skipping), weights(never), rtol=0, atol=0)
    steps = 2 if kind == "mutual" else 1  # one a network
    assert skipping.loss_scale.factor == never.loss_scale.factor / 2**steps
    assert skipping.loss_scale.skipped == steps
    assert skipping.distiller.steps == 4  # so the schedule advances as ever


@pytest.mark.parametrize("kind", ["sgd", "adamw", "dot", "mutual"])
def test_nothing_of_it_is_read_back(kind):
    step = spoiled(make(kind, OPTIMIZERS.get(kind, SGD), precision="fp16"))
    step([batch(0)])  # which sees the shapes
    with NoHostReads():
        for step.bad in (True, False, True, False):
            step([batch(0)])
    assert step.loss_scale.skipped == (4 if kind == "mutual" else 2)


def test_a_momentum_of_fused_sgd_begins_at_zero_in_a_skipped_step():
    step = spoiled(make(precision="fp16"))
    step.bad = True
    step([batch(0)])
    assert all((state["momentum_buffer"] == 0).all() for state in step.optimizer.state.values())


def test_an_optimizer_that_asks_the_host_is_not_captured_and_says_why():
    for node, expected in ((SGD, ""), (DAMPED, "precision=fp16 .* asks the host")):
        step = make(node=node, precision="fp16")
        reason = why_not_capturable(step.distiller, step.optimizer, step.loss_scale)
        assert bool(reason) == bool(expected)
        assert why_not_capturable(step.distiller, step.optimizer) == ""


def test_gradients_that_no_scale_makes_finite_end_the_run():
    scale = LossScale(CPU)
    for _ in range(26):
        scale.update(torch.ones(()))
        scale.check(1)
    scale.update(torch.ones(()))
    with pytest.raises(NonFiniteLossError, match="fp16: gradients are not finite in step 27"):
        scale.check(27)


@pytest.mark.parametrize(
    "change",
    [
        {"factor": torch.tensor(math.inf)},
        {"factor": torch.tensor(0.0)},
        {"factor": torch.ones(2)},
        {"skipped": -torch.ones(())},
        {"good_steps": 3},
        {"other": torch.ones(())},
    ],
    ids=str,
)
def test_a_damaged_state_is_not_one(change):
    state = LossScale(CPU).state_dict()
    assert is_state(state)
    assert not is_state({**state, **change})


def test_fp16_computes_the_network_in_fp16():
    step, seen = make(precision="fp16"), []
    step.dtype = torch.float16
    step.distiller.student.network[0].register_forward_hook(lambda m, a, o: seen.append(o.dtype))
    losses = step([batch(1)])
    assert set(seen) == {torch.float16}
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
