"""Hooks and loggers from a config: judged first, called in order, remembered in checkpoints."""

import json
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.distill.distiller import Distiller
from kd_core.errors import UserError
from kd_core.experiment.parts import Parts
from kd_core.experiment.run import build_trainer
from kd_core.files import checkpoint
from kd_core.networks.task import Task
from kd_core.training.hooks import CheckpointHook, EvaluateHook, Hook
from kd_core.training.loggers import Logger
from kd_core.training.settings import parse_trainer
from torch import nn

STEPS = 3


class Toy(Task):
    def forward(self, batch):
        logits = self.network(batch["image"].flatten(1))
        return {"ce": F.cross_entropy(logits, batch["label"])} if self.training else logits


class Loader:
    """Three batches an epoch."""

    batch_size = 4

    def __len__(self):
        return STEPS

    def epoch(self, epoch, start=0):
        for number in range(start, STEPS):
            generator = torch.Generator().manual_seed(100 * epoch + number)
            image = torch.randn(4, 2, 1, 1, generator=generator)
            yield {"image": image, "label": torch.arange(4) % 3}


class Sum(Hook):
    """Sums losses over steps, and lets the sum act on the weights: its state must resume."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor, self.sum, self.epochs = factor, torch.zeros(()), []

    def after_step(self, trainer):
        self.sum = self.sum + self.factor * trainer.losses["ce"]

    def after_epoch(self, trainer):
        self.epochs.append(float(self.sum))
        trainer.record["sum"] = float(self.sum)
        with torch.no_grad():
            trainer.distiller.student.network.bias.add_(self.sum)

    def state_dict(self):
        return {"sum": self.sum, "epochs": self.epochs}

    def load_state_dict(self, state):
        self.sum, self.epochs = state["sum"], state["epochs"]


class Other(Sum):
    """Another class."""


class Forgetful(Sum):
    """Writes a state that it cannot read."""

    load_state_dict = Hook.load_state_dict


class Strange(Sum):
    """Remembers what no checkpoint can hold."""

    def state_dict(self):
        return {"seen": {1, 2}}


class Choosy(Sum):
    """Reads no state."""

    def load_state_dict(self, state):
        raise KeyError("mean")


class Adds(Hook):
    """Adds a value to the record."""

    def __init__(self, value) -> None:
        self.value = value

    def after_epoch(self, trainer):
        trainer.record["added"] = self.value


class Sees(Logger):
    """Notes what is in a record."""

    seen: list = []  # noqa: RUF012

    def after_epoch(self, trainer):
        self.seen.append(dict(trainer.record))

    def state_dict(self):
        return {"seen": self.seen}  # in no checkpoint: loggers may differ


def make(folder, *, seed=0, evaluate=None, **options):
    torch.manual_seed(seed)
    parts = Parts(
        Distiller(Toy(nn.Linear(2, 3)), {}, {}),
        Loader(),
        evaluate or (lambda model: {"top1": model.network.bias.sum().item()}),
        "top1",
    )
    settings = {
        "optimizer": {"type": "torch.optim.SGD", "lr": 0.1},
        "schedule": {"type": "kd_core.training.schedule.constant"},
        "epochs": 3,
        "loggers": [],
    }
    return build_trainer(parts, folder, **{**settings, **options})


def node(kind, **arguments):
    return {"type": kind, **arguments}


def test_hooks_of_a_config_run_after_the_evaluation_and_before_loggers_and_checkpoints(tmp_path):
    Sees.seen.clear()
    trainer = make(tmp_path, hooks=[node(Sum), node(Adds, value=7)], loggers=[node(Sees)])
    kinds = [type(hook) for hook in trainer.hooks]
    assert kinds[1:4] == [EvaluateHook, Sum, Adds]  # the first measures memory
    assert kinds[-2:] == [Sees, CheckpointHook]
    trainer.train()
    assert [record["added"] for record in Sees.seen] == [7, 7, 7]
    assert all({"top1", "sum"} <= record.keys() for record in Sees.seen)
    line = (tmp_path / "log.jsonl").read_text().splitlines()[-1]
    assert json.loads(line)["sum"] == trainer.history[-1]["sum"]


@pytest.mark.parametrize("cut", [1, STEPS - 1, STEPS, STEPS + 2])
def test_a_hook_s_state_resumes_exactly(tmp_path, cut):
    hooks = [node(Sum), node(Sum, factor=0.5)]
    whole = make(tmp_path / "whole", hooks=hooks)
    whole.train()
    first = make(tmp_path / "cut", hooks=hooks, save_minutes=0)
    for _, _ in zip(range(cut), first.steps(), strict=False):
        pass
    resumed = make(tmp_path / "cut", seed=5, hooks=hooks)
    resumed.resume(tmp_path / "cut/last.pth")
    resumed.train()
    for one, other in zip(whole.hooks[2:4], resumed.hooks[2:4], strict=True):
        assert torch.equal(one.sum, other.sum)
        assert one.epochs == other.epochs
    ours, theirs = whole.distiller.state_dict(), resumed.distiller.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    states = checkpoint.load(tmp_path / "cut/last.pth")["hooks"]
    assert list(states) == [f"{__name__}.Sum", f"{__name__}.Sum 2"]


@pytest.mark.parametrize(
    ("there", "here"),
    [([Sum], []), ([], [Sum]), ([Sum], [Sum, Sum]), ([Sum], [Other])],
    ids=["one less", "one more", "twice", "another class"],
)
def test_a_checkpoint_of_other_hooks_is_refused_in_a_line(tmp_path, there, here):
    make(tmp_path, hooks=[node(kind) for kind in there], epochs=1).train()
    other = make(tmp_path, seed=5, hooks=[node(kind) for kind in here])
    before = {name: value.clone() for name, value in other.distiller.state_dict().items()}
    with pytest.raises(UserError, match=r"last\.pth: has the states of other hooks, .* here") as e:
        other.resume(tmp_path / "last.pth")
    assert "\n" not in str(e.value)
    after = other.distiller.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_other_loggers_resume_the_same_run(tmp_path):
    make(tmp_path, epochs=1, loggers=[node(Sees)]).train()
    again = make(tmp_path, epochs=2)
    again.resume(tmp_path / "last.pth")
    assert again.epoch == 1


def test_a_state_that_cannot_be_kept_is_refused_before_training(tmp_path):
    with pytest.raises(UserError, match=r"Forgetful has a state_dict and no load_state_dict"):
        make(tmp_path, hooks=[node(Forgetful)])
    with pytest.raises(UserError, match=r"Strange: its state_dict gives .*wanted a dict by name"):
        make(tmp_path, hooks=[node(Strange)])


@pytest.mark.parametrize(
    ("name", "method", "message"),
    [
        (
            "after_stp",
            lambda self, trainer: 0,
            r"after_stp is .*not call .*name with _\); did you mean 'after_step'",
        ),
        ("after_step", lambda self: 0, r"after_step takes \(self\); wanted \(self, trainer\)"),
        ("close", lambda self, trainer: 0, r"close takes .*wanted \(self\)"),
        ("state_dict", lambda self, trainer: 0, r"state_dict takes .*wanted \(self\)"),
    ],
)
@pytest.mark.parametrize(("parent", "place"), [(Hook, "hooks"), (Logger, "loggers")])
def test_a_method_that_would_not_be_called_is_refused(
    tmp_path, name, method, message, parent, place
):
    kind = type("Own", (parent,), {name: method})
    with pytest.raises(UserError, match=rf"^hook .*Own: {message}"):
        make(tmp_path, **{place: [node(kind)]})


class Helpful(Hook):
    after_epochs = 3
    before_loss: float | None = None

    @property
    def after_all(self):
        return self._after_warm_up()

    def _after_warm_up(self):
        return self.after_epochs

    @staticmethod
    def after_epoch(trainer):
        pass

    @classmethod
    def before_train(cls, trainer):
        cls.seen = trainer


def test_values_own_helpers_and_methods_of_the_class_are_let_be(tmp_path):
    make(tmp_path, epochs=1, hooks=[node(Helpful)]).train()
    assert Helpful.seen.epoch == 1


def test_what_is_no_method_is_refused(tmp_path):
    with pytest.raises(UserError, match="Own: after_step is not a method"):
        make(tmp_path, hooks=[node(type("Own", (Hook,), {"after_step": None}))])


@pytest.mark.parametrize(
    ("construct", "name"),
    [
        (lambda value: EvaluateHook(dict, "x", every=value), "every"),
        (lambda value: CheckpointHook(epochs=value), "epochs"),
        (lambda value: CheckpointHook(keep_every=value), "keep_every"),
    ],
)
@pytest.mark.parametrize("value", [0, -1, 1.5, float("nan"), "1", True])
def test_ranges_hold_for_who_constructs_a_hook(construct, name, value):
    with pytest.raises(UserError, match=rf"Hook: {name}: wanted a"):
        construct(value)


def test_a_state_that_a_hook_cannot_load_is_refused_in_a_line(tmp_path):
    make(tmp_path, epochs=1, hooks=[node(Choosy)]).train()
    other = make(tmp_path, seed=5, hooks=[node(Choosy)])
    with pytest.raises(UserError, match=r"hook .*Choosy cannot load \(KeyError: 'mean'\)"):
        other.resume(tmp_path / "last.pth")
    assert other.steps_done == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hooks": node(Sum)}, r"^trainer\.hooks: wanted a list"),
        ({"hooks": [5]}, r"^trainer\.hooks(\.0)?: wanted a dict.*5"),
        ({"hooks": ["x.Y"]}, r"^trainer\.hooks(\.0)?: wanted a dict"),
        ({"hooks": [{"factor": 1.0}]}, r"^trainer\.hooks\.0: wanted a dict with `type`"),
        ({"hooks": [node(Sum), node(nn.Linear)]}, r"^trainer\.hooks\.1\.type: .*is not a hook"),
        ({"hooks": [node(Sees)]}, r"^trainer\.hooks\.0\.type: .*is not a hook.*trainer\.loggers"),
        ({"loggers": [node(Sum)]}, r"^trainer\.loggers\.0\.type: .*is not a logger"),
        ({"hooks": [node("os.system")]}, r"^trainer\.hooks\.0\.type: .*Python's own"),
        ({"hooks": [node("kd_core.Hok")]}, r"^trainer\.hooks\.0\.type: .*did you mean 'Hook'"),
        ({"hooks": [node(Sum, facto=1.0)]}, r"^trainer\.hooks\.0: .*did you mean 'factor'"),
        ({"hooks": [node(Sum, factor="a")]}, r"^trainer\.hooks\.0\.factor: wanted a number"),
        ({"hooks": [node(Adds)]}, r"^trainer\.hooks\.0: .*needs 'value'"),
        ({"loggers": True}, r"^trainer\.loggers: wanted a list"),
        ({"tensorboard": False}, r"^trainer: .*no parameter 'tensorboard'"),
        ({"ema": 1.0}, r"^trainer\.ema: wanted a number less than 1"),
        ({"epochs": 0}, r"^trainer\.epochs: wanted a number greater than 0"),
        ({"step": 5}, r"^trainer\.step: wanted"),
    ],
)
def test_a_wrong_key_is_refused_before_anything_is_built(settings, message):
    with pytest.raises(UserError, match=message) as error:
        parse_trainer({"epochs": 1, **settings})
    assert "\n" not in str(error.value)


def test_a_logger_whose_package_is_missing_is_refused_before_anything_is_built(monkeypatch):
    logger = node("kd_core.training.loggers.WandbLog", project="kd")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"^trainer\.loggers\.0: .*pip install wandb"):
        parse_trainer({"epochs": 1, "loggers": [logger]})
    monkeypatch.setitem(sys.modules, "wandb", sys)
    assert parse_trainer({"epochs": 1, "loggers": [logger]}).loggers == [logger]


def test_tensorboard_is_written_where_it_is_installed_and_nothing_is_said(tmp_path, monkeypatch):
    def names(**options):
        return [type(hook).__name__ for hook in make(tmp_path, **options).hooks]

    assert "TensorBoardLog" not in names()
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert "TensorBoardLog" not in names(loggers=None)
    monkeypatch.delitem(sys.modules, "tensorboard")
    pytest.importorskip("tensorboard")
    assert "TensorBoardLog" in names(loggers=None)


@pytest.mark.parametrize("value", [torch.tensor(2.5), np.float64(2.5), torch.ones(1) * 2.5])
def test_arrays_of_one_number_become_numbers_in_the_record(tmp_path, value):
    trainer = make(tmp_path, epochs=1, hooks=[node(Adds, value=value)])
    trainer.train()
    assert type(trainer.history[0]["added"]) is float
    measured = make(tmp_path, epochs=1, evaluate=lambda model: {"top1": value})
    measured.train()
    assert measured.best == {"epoch": 1, "top1": 2.5}
    make(tmp_path, epochs=1).resume(tmp_path / "last.pth")


@pytest.mark.parametrize("value", [torch.ones(2), [1], object()])
def test_anything_else_in_a_record_is_refused_in_a_line(tmp_path, value):
    with pytest.raises(UserError, match=r"^hook Adds gave 'added' as .*; wanted a number"):
        make(tmp_path, epochs=1, hooks=[node(Adds, value=value)]).train()
    with pytest.raises(UserError, match=r"^the evaluation gave 'top1'"):
        make(tmp_path, epochs=1, evaluate=lambda model: {"top1": value}).train()


def test_a_step_that_is_a_hook_too_is_called_as_the_last(tmp_path):
    class Step(Hook):
        epochs = 0

        def __call__(self, batches):
            return {"ce": torch.zeros(())}

        def before_epoch(self, trainer):
            self.epochs += 1

    from kd_core.training.trainer import Trainer

    made, step = make(tmp_path), Step()
    arguments = {"schedule": made._rates.schedule, "epochs": 2, "work_dir": tmp_path}
    trainer = Trainer(made.distiller, Loader(), step, made.optimizer, hooks=[Sum()], **arguments)
    trainer.train()
    assert trainer.hooks[-1] is step
    assert step.epochs == 2
