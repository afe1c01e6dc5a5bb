"""A training state with anything changed is refused in one line, and nothing is restored of it."""

import copy
import math
import random

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.fitnet import FitNet
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term
from kd_core.experiment.parts import Parts
from kd_core.experiment.run import build_trainer
from kd_core.files import checkpoint
from kd_core.networks.task import Task
from kd_core.testing.damage import refusal
from kd_core.training.training_state import collect, restore
from torch import nn

STEPS = 3  # of an epoch
MEAN, COUNT = "student.network.1.running_mean", "student.network.1.num_batches_tracked"
TRIES = 60  # of some 1000 changes; all of them were tried once


class Toy(Task):
    """Classifies images [N, 4, 1, 1]."""

    def forward(self, batch):
        logits = self.network(batch["image"])
        return {"ce": F.cross_entropy(logits, batch["label"])} if self.training else logits


class Loader:
    """Batches of noise."""

    batch_size = 4

    def __len__(self):
        return STEPS

    def epoch(self, epoch, start=0):
        for number in range(start, STEPS):
            generator = torch.Generator().manual_seed(100 * epoch + number)
            image = torch.randn(4, 4, 1, 1, generator=generator)
            yield {"image": image, "label": torch.arange(4) % 3, "index": torch.arange(4)}


def make(folder, *, seed=0, **options):
    """Build a trainer with BatchNorm, momentum, an average and a criterion that learns."""
    torch.manual_seed(seed)
    student, teacher = (
        Toy(nn.Sequential(nn.Conv2d(4, n, 1), nn.BatchNorm2d(n), nn.Flatten(), nn.Linear(n, 3)))
        for n in (2, 3)
    )
    hint = FitNet(student_shapes=((2, 1, 1),), teacher_shapes=((3, 1, 1),))
    terms = {"hint": Term(hint, student=["1"], teacher=["1"], warmup_epochs=2.0)}
    sample = next(Loader().epoch(0))
    distiller = Distiller(student, teacher, terms, sample=sample)
    parts = Parts(distiller, Loader(), lambda model: {"top1": 1.0}, "top1")
    settings = {
        "optimizer": {"type": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9},
        "schedule": {"type": "kd_core.training.schedule.cosine"},
        "epochs": 3,
        "ema": 0.9,
        "loggers": [],
    }
    return build_trainer(parts, folder, **{**settings, **options})


@pytest.fixture(scope="module", params=["sgd", "adamw"])
def kind(request):
    if request.param == "sgd":
        return {}
    return {"optimizer": {"type": "torch.optim.AdamW", "lr": 0.01}, "ema": None}


@pytest.fixture(scope="module")
def saved(kind, tmp_path_factory):
    """Give a state in the middle of the second epoch, which two processes might have written."""
    trainer = make(tmp_path_factory.mktemp("cut"), **kind)
    for _, _ in zip(range(STEPS + 2), trainer.steps(), strict=False):
        pass
    trainer.save(trainer.work_dir / "x.pth")
    state = checkpoint.load(trainer.work_dir / "x.pth")
    return {**state, "others": [another(state)]}


def another(state):
    """Return what another process than the first may have."""
    parts = {
        part: {name: state[part][name] + 1 for name in names if state[part]}
        for part, names in (("distiller", [MEAN, COUNT]), ("average", ["1.running_mean"]))
    }
    meter = {**state["meter"], "sums": state["meter"]["sums"] + 2}
    return {"rng": state["rng"], "meter": meter, **parts}


@pytest.fixture(scope="module")
def fresh(kind, tmp_path_factory):
    """Give a trainer that nothing may be restored to."""
    return make(tmp_path_factory.mktemp("fresh"), seed=5, **kind)


def places(value, path=()):
    """Yield the path of every node of a nested state."""
    yield path
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            yield from places(item, (*path, name))


MISSING = object()


def replaced(state, path, value):
    """Return a copy with another value at a path, or what a function makes of it, or none."""
    if not path:
        return value(state) if callable(value) else value
    first, *rest = path
    items = state.items() if isinstance(state, dict) else enumerate(state)
    new = {name: item for name, item in items if value is not MISSING or rest or name != first}
    if value is not MISSING or rest:
        new[first] = replaced(state[first], rest, value)
    return new if isinstance(state, dict) else type(state)(new.values())


NUMBERS = [-1, 10**12, 1.5, math.nan, math.inf, -0.5, True, 2**63]
OTHERS = [None, "text", [], {}, [1], {"a": 1}, {1: 2}, torch.zeros(()), torch.zeros(2, 3), *NUMBERS]
TENSORS = [
    lambda tensor: tensor[None],
    lambda tensor: torch.full_like(tensor, math.nan, dtype=torch.float32).to(tensor.dtype),
    lambda tensor: tensor.to(torch.int32),
    lambda tensor: tensor.to(torch.float64 if tensor.dtype != torch.float64 else torch.float16),
    lambda tensor: tensor.to(torch.complex64),
    lambda tensor: tensor.bool(),
    lambda tensor: tensor.to("meta"),
    lambda tensor: tensor[None].to_sparse(),
    lambda tensor: torch.zeros(5, 5, 5),
]


def is_refused(fresh, state):
    """Return whether a state is refused in a line, after which nothing has changed."""
    before = copy.deepcopy(collect(fresh))
    if not refusal(lambda: restore(fresh, state)):
        restore(fresh, before)
        return False
    assert repr(collect(fresh)) == repr(before)
    return True


def test_the_state_itself_is_restored(saved, kind, tmp_path):
    trainer = make(tmp_path, seed=5, **kind)
    restore(trainer, saved)
    assert trainer.steps_done == STEPS + 2


def test_one_process_continues_with_the_means_of_two(saved, kind, tmp_path):
    trainer = make(tmp_path, seed=5, **kind)
    restore(trainer, saved)
    state = collect(trainer)
    torch.testing.assert_close(state["distiller"][MEAN], saved["distiller"][MEAN] + 0.5)
    assert state["distiller"][COUNT] == saved["distiller"][COUNT]
    torch.testing.assert_close(state["meter"]["sums"], saved["meter"]["sums"] + 1)
    if saved["average"]:
        one, other = state["average"], saved["average"]
        torch.testing.assert_close(one["1.running_mean"], other["1.running_mean"] + 0.5)
    assert state["others"] == []


def changes(state):
    """List what can be done to a state: a path, a name of the change, and the change."""
    found = []
    every = {repr(value): value for value in OTHERS}
    for path in list(places(state))[1:]:
        now = state
        for name in path:
            now = now[name]
        own = repr(now)
        found += [(path, name, value) for name, value in every.items() if name != own]
        found += [(path, "missing", MISSING)]
        if isinstance(now, torch.Tensor):
            found += [(path, f"tensor {n}", change) for n, change in enumerate(TENSORS)]
    return found


def is_harmless(path, change):
    """Return whether a state is another's with a change, and nothing tells that it is not."""
    if path[0] == "optimizer" and path[1:]:  # the config's settings are taken; a step makes momenta
        settings = path[1] == "param_groups" and len(path) > 3 and path[3] != "params"
        return settings or (change in ("missing", "{}") and len(path) in (2, 3, 4))
    if path[0] == "others":  # one process less; or it has no more than the first
        return change == ("[]" if len(path) == 1 else "{}" if len(path) == 3 else "missing")
    if path[0] == "history":
        return len(path) == 3 and path[2] not in ("epoch", "step")
    if path[:2] == ("meter", "names") and change == "'text'":
        return True  # the next step tells that losses changed their names
    clock = path[0] in ("seconds", "epoch_began") and change[:1].isdigit()
    return clock or (path == ("best",) and change == "{}")


def test_a_state_with_a_change_is_refused_whole(saved, fresh):
    for path, name, change in random.Random(1).sample(changes(saved), TRIES):
        refused = is_refused(fresh, replaced(saved, path, change))
        assert refused or is_harmless(path, name), (path, name)


def test_an_optimizer_that_misses_something_leaves_all_as_it_was(saved, fresh, kind):
    if not kind:
        pytest.skip("SGD misses nothing: it makes new momenta")
    state = replaced(saved, ("optimizer", "state", 1, "step"), MISSING)
    assert is_refused(fresh, state)
