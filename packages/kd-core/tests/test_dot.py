"""DOT: two gradients, two momenta."""

import copy

import pytest
import torch
from kd_core.criteria.kd import KD
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.networks.task import Task
from kd_core.training.dot import DOTStep, update
from torch import nn

# a, b, c after every step: both gradients reach a, the task's alone b, the distillation's alone c.
TRAJECTORY = [
    (0.989, -0.5195, 0.2497, 0.66),
    (0.945936, -0.583568, 0.1541803, 0.58334),
    (0.850537264, -0.712878032, 0.0180583897, 0.47376266),
    (0.683280894536, -0.924457492868, -0.15446938796, 0.33466929134),
]


def parameter(*values):
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


@pytest.mark.parametrize("rate", [0.1, torch.tensor(0.1, dtype=torch.float64)])
def test_follows_the_trajectory_of_the_authors_code(rate, golden):
    a, b, c = parameter(1.0, -0.5), parameter(0.3), parameter(0.7)
    optimizer = torch.optim.SGD([a, b, c], lr=rate, momentum=0.9, weight_decay=0.01)
    for step, expected in enumerate(TRAJECTORY, start=1):
        task = [torch.tensor([-0.1, 0.3 * step]), torch.tensor([0.5]), None]
        terms = [torch.tensor([0.2 * step, -0.1]), None, torch.tensor([0.4])]
        double = [[None if g is None else g.double() for g in part] for part in (task, terms)]
        update(optimizer, *double, delta=0.075)
        for value, reference in zip([*a.tolist(), *b.tolist(), *c.tolist()], expected, strict=True):
            golden(value, reference)


class Regress(Task):
    def forward(self, batch):
        output = self.network(batch["image"])
        return {"ce": (output - batch["target"]).square().mean()} if self.training else output


def batch():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(6, 3, generator=generator)
    return {"image": image, "target": torch.randn(6, 4, generator=generator)}


def make(delta=0.075, **options):
    torch.manual_seed(0)
    student, teacher = Regress(nn.Linear(3, 4)), Regress(nn.Linear(3, 4))
    distiller = Distiller(student, teacher, {"kd": Term(KD())}).train()
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, **options}
    optimizer = torch.optim.SGD(distiller.parameters(), **settings)
    return distiller, optimizer, DOTStep(distiller, optimizer, delta=delta)


def test_without_delta_it_is_sgd_on_the_sum_of_the_losses():
    distiller, _, step = make(delta=0.0)
    plain, optimizer, _ = make()
    for number in range(4):
        losses = step([batch()])
        optimizer.zero_grad()
        sum(plain(batch()).values()).backward()
        optimizer.step()
        assert list(losses) == ["ce", "kd"]
        assert distiller.steps == number + 1
    for one, other in zip(distiller.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_two_halves_accumulate_to_one_batch():
    whole, halves = make(), make()
    whole[2]([batch()])
    parts = [{k: v[s] for k, v in batch().items()} for s in (slice(3), slice(3, 6))]
    halves[2](parts)
    for one, other in zip(whole[0].parameters(), halves[0].parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_both_momenta_are_saved_with_the_optimizer():
    distiller, optimizer, step = make()
    step([batch()])
    state = copy.deepcopy(optimizer.state_dict())
    assert {"momentum_buffer", "momentum_kd_buffer"} <= state["state"][0].keys()
    twin, other, again = make()
    twin.load_state_dict(distiller.state_dict())
    other.load_state_dict(state)
    for one in (step, again):
        one([batch()])
    for one, two in zip(distiller.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("delta", [5.0, 0.1, -0.1, 1e300, float("nan"), "0.075"])
def test_a_delta_that_makes_a_momentum_of_one_or_more_is_refused(delta):
    distiller, optimizer, _ = make()
    with pytest.raises(UserError, match=r"DOT.* delta"):
        DOTStep(distiller, optimizer, delta=delta)


def test_what_is_no_plain_sgd_and_nothing_to_distil_are_refused():
    with pytest.raises(UserError, match="without nesterov"):
        make(nesterov=True)
    distiller, optimizer, _ = make()
    with pytest.raises(UserError, match=r"torch\.optim\.SGD"):
        DOTStep(distiller, torch.optim.Adam(distiller.parameters()))
    with pytest.raises(UserError, match="leave clip_norm out"):
        DOTStep(distiller, optimizer, clip_norm=1.0)
    alone = Distiller(Regress(nn.Linear(3, 4)), {}, {})
    with pytest.raises(UserError, match="needs a term"):
        DOTStep(alone, torch.optim.SGD(alone.parameters(), lr=0.1))
