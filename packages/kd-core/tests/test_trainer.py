"""Trainer: resume is exact, nothing is saved after a bad step, hooks run in order."""

import math
import signal
from contextlib import nullcontext
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.fitnet import FitNet
from kd_core.criteria.kd import KD
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.experiment.parts import Parts
from kd_core.experiment.run import build_trainer
from kd_core.files import checkpoint
from kd_core.networks.task import Task
from kd_core.runtime.signals import Interrupted
from kd_core.training.hooks import Hook
from kd_core.training.meter import NonFiniteLossError
from kd_core.training.trainer import Trainer
from kd_core.training.training_state import collect
from torch import nn

BATCHES, STEPS = 5, 3  # an epoch's; two batches a step, so the last step has one
CLOCK = ("seconds", "epoch_began", "images_per_second")


class Toy(Task):
    """Classifies images [N, 3, 4, 4] and counts them."""

    def __init__(self, network):
        super().__init__(network)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, batch):
        logits = self.network(batch["image"])
        self.seen += len(logits) * self.training
        return {"ce": F.cross_entropy(logits, batch["label"])} if self.training else logits

    def training_metrics(self):
        seen = int(self.seen)
        self.seen.zero_()
        return {"seen": seen}


class Loader:
    """Batches that follow from epoch and number; `edit` may spoil one."""

    batch_size = 4

    def __init__(self, edit=None):
        self.edit = edit

    def __len__(self):
        return BATCHES

    def epoch(self, epoch, start=0):
        for number in range(start, BATCHES):
            generator = torch.Generator().manual_seed(100 * epoch + number)
            image = torch.randn(4, 3, 4, 4, generator=generator)
            batch = {"image": image, "label": torch.arange(4) % 3, "index": torch.arange(4)}
            if self.edit:
                self.edit(epoch, number, batch)
            yield batch


class Cut(Hook):
    """Ends the process, as it were, after so many steps."""

    def __init__(self, step):
        self.step = step

    def after_step(self, trainer):
        if trainer.steps_done == self.step:
            raise ConnectionAbortedError


def toy(width, seed):
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.5)
    return Toy(nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 16, 3)))


def make(folder, *, seed=0, width=4, edit=None, test=None, val=None, **options):
    """Build a trainer: dropout, BatchNorm, momentum, average, accumulation, clipping, warm-up."""
    student, teacher = toy(width, seed), toy(6, seed=9)
    hint = FitNet(student_shapes=((width, 4, 4),), teacher_shapes=((6, 4, 4),))
    terms = {
        "kd": Term(KD(), warmup_epochs=2.0),
        "hint": Term(hint, student=["2"], teacher=["2"], weight=0.1),
    }
    sample = next(Loader().epoch(0))
    distiller = Distiller(student, teacher, terms, sample=sample)
    torch.manual_seed(seed + 1)
    evaluate = test or (lambda model: {"top1": model(sample).max().item()})
    parts = Parts(distiller, Loader(edit), evaluate, "top1", val=val)
    settings = {
        "optimizer": {"type": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9},
        "schedule": {"type": "kd_core.training.schedule.cosine", "warmup_epochs": 1},
        "epochs": 3,
        "accumulate": 2,
        "clip_norm": 5.0,
        "ema": 0.9,
        "loggers": [],
    }
    return build_trainer(parts, folder, **{**settings, **options})


def leaves(value, path=""):
    """Flatten a state to its leaves by path, without what a clock gave."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        parts = [leaves(item, f"{path}/{name}") for name, item in items if name not in CLOCK]
        return {name: leaf for part in parts for name, leaf in part.items()}
    # The optimizer's present rate follows from the position; it is set before every step.
    return {} if path.startswith("/optimizer") and path.endswith("/lr") else {path: value}


def assert_equal_bit_for_bit(trainer, other):
    ours, theirs = leaves(collect(trainer)), leaves(collect(other))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        same = (
            torch.equal(value, theirs[name]) if hasattr(value, "dtype") else value == theirs[name]
        )
        assert same, name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    trainer = make(tmp_path_factory.mktemp("full"))
    trainer.train()
    return trainer


class TestResume:
    @pytest.mark.parametrize("steps", [1, STEPS - 1, STEPS, STEPS + 2, 2 * STEPS, 3 * STEPS])
    def test_a_resumed_run_equals_an_uninterrupted_one(self, uninterrupted, tmp_path, steps):
        cut = make(tmp_path, save_minutes=0)
        cut.hooks.append(Cut(steps))
        with pytest.raises(ConnectionAbortedError):
            cut.train()
        resumed = make(tmp_path, seed=5)  # other weights and generators: all must be in the file
        resumed.resume(tmp_path / "last.pth")
        assert resumed.steps_done == steps
        resumed.train()
        assert_equal_bit_for_bit(resumed, uninterrupted)

    def test_a_run_in_fp16_resumes_with_the_scale_of_its_loss(self, tmp_path):
        def bad(trainer):
            return trainer.steps_done in (0, STEPS)

        def run(folder, cut=None):
            made = make(tmp_path / folder, seed=0, precision="fp16", save_minutes=0)
            bias = made.distiller.student.network[0].bias
            bias.register_hook(lambda g: g * (math.inf if bad(made) else 1.0))
            if cut:
                made.hooks.append(Cut(cut))
            elif (made.work_dir / "last.pth").is_file():
                made.resume(made.work_dir / "last.pth")
            with pytest.raises(ConnectionAbortedError) if cut else nullcontext():
                made.train()
            return made

        whole = run("whole")
        assert [record["skipped_steps"] for record in whole.history] == [1, 2, 2]
        assert whole.history[-1]["loss_scale"] == 2.0**14
        for cut in (2, STEPS + 1):
            run(str(cut), cut)
            assert_equal_bit_for_bit(run(str(cut)), whole)

    def test_a_run_resumed_between_two_epochs_does_too(self, uninterrupted, tmp_path):
        make(tmp_path, keep_every=1).train()
        resumed = make(tmp_path, seed=5)
        resumed.resume(tmp_path / "epoch_0002.pth")
        assert (resumed.epoch, resumed.step_in_epoch) == (2, 0)
        resumed.train()
        assert_equal_bit_for_bit(resumed, uninterrupted)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_stops_after_the_step_and_saves(self, uninterrupted, tmp_path, number):
        class Signal(Hook):
            def before_step(self, trainer):
                if trainer.steps_done == STEPS + 1:
                    signal.raise_signal(number)

        stopped = make(tmp_path)
        stopped.hooks.append(Signal())
        with pytest.raises(Interrupted) as exit_:
            stopped.train()
        assert exit_.value.code == 128 + number
        resumed = make(tmp_path, seed=5)
        resumed.resume(tmp_path / "last.pth")
        assert resumed.steps_done == STEPS + 2
        resumed.train()
        assert_equal_bit_for_bit(resumed, uninterrupted)

    def test_a_signal_in_the_last_evaluation_is_not_lost(self, tmp_path):
        def evaluate(model):
            signal.raise_signal(signal.SIGTERM)
            return {"top1": 1.0}

        with pytest.raises(Interrupted):
            make(tmp_path, epochs=2, eval_every=2, test=evaluate).train()
        assert checkpoint.load(tmp_path / "last.pth")["epoch"] == 2

    def test_the_epoch_that_was_cut_reports_all_of_it(self, tmp_path):
        cut = make(tmp_path, save_minutes=0)
        cut.hooks.append(Cut(2 * STEPS - 1))
        with pytest.raises(ConnectionAbortedError):
            cut.train()
        resumed = make(tmp_path)
        resumed.resume(tmp_path / "last.pth")
        resumed.train()
        assert [record["seen"] for record in resumed.history] == [20, 20, 20]
        ends = [0.0, *(record["seconds"] for record in resumed.history)]
        for record, (began, ended) in zip(resumed.history, pairwise(ends), strict=True):
            assert 20 / record["images_per_second"] == pytest.approx(ended - began, abs=2e-3)

    def test_resuming_a_finished_run_changes_nothing(self, uninterrupted):
        again = make(uninterrupted.work_dir, seed=5)
        again.resume(uninterrupted.work_dir / "last.pth")
        again.train()
        assert_equal_bit_for_bit(again, uninterrupted)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"width": 5}, r"another student or other terms: \d+ tensors differ, such as 'student"),
            ({"accumulate": 1}, r"has 3 steps an epoch, this run 5: the data, batch_size or"),
            ({"ema": None}, r"trainer\.ema"),
            ({"precision": "fp16"}, "precision=fp16"),
            ({"optimizer": {"type": "torch.optim.AdamW"}}, "another optimizer"),
        ],
        ids=["student", "steps", "ema", "fp16", "optimizer"],
    )
    def test_another_config_is_refused_and_nothing_is_loaded(self, uninterrupted, options, message):
        other = make(uninterrupted.work_dir, seed=5, **options)
        before = leaves(collect(other))
        with pytest.raises(UserError, match=rf"last\.pth: .*{message}.*; resume with the config"):
            other.resume(uninterrupted.work_dir / "last.pth")
        assert other.steps_done == 0
        after = leaves(collect(other))
        tensors = [name for name, value in before.items() if hasattr(value, "dtype")]
        assert all(torch.equal(before[name], after[name]) for name in tensors)

    def test_a_file_of_weights_is_no_training_state(self, uninterrupted):
        with pytest.raises(UserError, match=r"best\.pth: is not a training state.*last\.pth"):
            make(uninterrupted.work_dir).resume(uninterrupted.work_dir / "best.pth")

    def test_a_run_of_more_epochs_is_not_resumed_as_a_shorter_one(self, uninterrupted):
        with pytest.raises(UserError, match="3 epochs are done there, 2 are wanted here; resume"):
            make(uninterrupted.work_dir, epochs=2).resume(uninterrupted.work_dir / "last.pth")

    def test_settings_of_the_optimizer_are_those_of_the_new_config(self, uninterrupted):
        node = {"type": "torch.optim.SGD", "lr": 0.4, "momentum": 0.9, "weight_decay": 0.5}
        resumed = make(uninterrupted.work_dir, optimizer=node)
        rate = resumed.optimizer.param_groups[0]["lr"]
        resumed.resume(uninterrupted.work_dir / "last.pth")
        (group,) = resumed.optimizer.param_groups
        assert group["weight_decay"] == 0.5
        assert group["lr"] is rate  # a captured step reads this memory


class TestNonFinite:
    @pytest.mark.parametrize("save_minutes", [0, 10])
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_nothing_is_saved_after_a_bad_loss(self, tmp_path, save_minutes, value):
        def spoil(epoch, number, batch):
            if (epoch, number) == (1, 2):  # in the second step of the second epoch
                batch["image"][0] = value

        trainer = make(tmp_path, edit=spoil, save_minutes=save_minutes)
        with pytest.raises(NonFiniteLossError, match=rf"not finite since step {STEPS + 2};"):
            trainer.train()
        state = checkpoint.load(tmp_path / "last.pth")
        done = state["epoch"] * STEPS + state["step_in_epoch"]
        assert done == (STEPS + 1 if save_minutes == 0 else STEPS)
        assert all(t.isfinite().all() for t in state["distiller"].values())

    def test_a_bad_loss_is_seen_at_the_log_interval(self, tmp_path):
        def spoil(epoch, number, batch):
            batch["image"][0] = math.nan

        trainer = make(tmp_path, edit=spoil, log_every=2)
        with pytest.raises(NonFiniteLossError, match="since step 1;"):
            trainer.train()
        assert trainer.steps_done == 2

    def test_a_bad_loss_ends_a_run_in_fp16_too(self, tmp_path):
        def spoil(epoch, number, batch):
            batch["image"][0] = math.nan

        with pytest.raises(NonFiniteLossError, match="since step 1;"):
            make(tmp_path, edit=spoil, precision="fp16").train()
        assert not (tmp_path / "last.pth").exists()

    def test_gradients_that_are_never_finite_end_a_run_in_fp16(self, tmp_path):
        trainer = make(tmp_path, precision="fp16", epochs=12)
        trainer.distiller.student.network[0].bias.register_hook(lambda g: g * math.nan)
        with pytest.raises(NonFiniteLossError, match="gradients are not finite in step 27"):
            trainer.train()

    def test_nothing_is_saved_after_a_bad_gradient_of_a_finite_loss(self, tmp_path):
        trainer = make(tmp_path, save_minutes=0)

        def spoil(gradient):
            return gradient * (math.nan if trainer.steps_done == STEPS - 1 else 1.0)

        trainer.distiller.student.network[0].bias.register_hook(spoil)
        with pytest.raises(
            NonFiniteLossError, match=rf"'student.* is not finite after step {STEPS}"
        ):
            trainer.train()
        assert checkpoint.load(tmp_path / "last.pth")["step_in_epoch"] == STEPS - 1
        assert not (tmp_path / "best.pth").exists()

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_nothing_is_saved_after_statistics_became_bad(self, tmp_path, value):
        trainer = make(tmp_path, save_minutes=0, ema=None)
        norm = trainer.distiller.student.network[1]

        def spoil(*_):
            if trainer.steps_done == STEPS - 1:
                norm.running_var.data[0] = value

        norm.register_forward_hook(spoil)
        message = rf"'student\.network\.1\.running_var' is not finite after step {STEPS}"
        with pytest.raises(NonFiniteLossError, match=message):
            trainer.train()
        assert checkpoint.load(tmp_path / "last.pth")["step_in_epoch"] == STEPS - 1

    def test_a_mask_of_infinities_stops_nothing(self, tmp_path):
        for seed in (0, 5):
            made = make(tmp_path, seed=seed)
            made.distiller.student.register_buffer("mask", torch.tensor([0.0, -math.inf]))
            trainer = Trainer(
                made.distiller,
                made.loader,
                made.step,
                made.optimizer,
                schedule=made.schedule,
                epochs=1,
                work_dir=tmp_path,
                accumulate=2,
            )
            if seed:
                trainer.resume(tmp_path / "x.pth")
            trainer.train()
            trainer.save(tmp_path / "x.pth")


class TestHooks:
    def test_hooks_are_called_in_their_order_around_each_part(self, tmp_path):
        calls = []

        class Noting(Hook):
            def __init__(self, name):
                self.name = name

            def close(self):
                calls.append(f"close {self.name}")

        def note(moment):
            def method(self, trainer):
                done = f"{trainer.epoch}.{trainer.step_in_epoch}"
                calls.append(f"{moment} {self.name} {done}")

            return method

        for when in ("before", "after"):
            for what in ("train", "epoch", "step"):
                setattr(Noting, f"{when}_{what}", note(f"{when}_{what}"))
        trainer = make(
            tmp_path,
            epochs=1,
            accumulate=3,
            schedule={"type": "kd_core.training.schedule.constant"},
        )
        trainer.hooks = [Noting("a"), Noting("b")]
        trainer.train()
        order = ["before_train 0.0", "before_epoch 0.0", "before_step 0.0", "after_step 0.1"]
        order += ["before_step 0.1", "after_step 0.2", "after_epoch 1.0", "after_train 1.0"]
        moments = [(*call.split(), "") for call in order]
        expected = [f"{m} {name} {done}" for m, done, _ in moments for name in "ab"]
        assert calls == [*expected, "close a", "close b"]

    def test_hooks_are_closed_after_an_error_and_after_train_is_not_called(self, tmp_path):
        calls = []

        class Noting(Hook):
            def after_train(self, trainer):
                calls.append("after_train")

            def close(self):
                calls.append("close")

        trainer = make(tmp_path)
        trainer.hooks = [Noting(), Cut(1)]
        with pytest.raises(ConnectionAbortedError):
            trainer.train()
        assert calls == ["close"]

    def test_the_best_epoch_and_the_last_are_kept(self, tmp_path):
        scores = iter([3.0, 7.0, 7.0, 5.0])
        trainer = make(tmp_path, epochs=4, keep_every=1, test=lambda model: {"top1": next(scores)})
        trainer.train()
        assert trainer.best == {"epoch": 2, "top1": 7.0}  # the first of equals
        best, second = (torch.load(tmp_path / name) for name in ("best.pth", "epoch_0002.pth"))
        assert best["epoch"] == 2
        assert best["top1"] == 7.0
        assert all(torch.equal(best["model"][k], v) for k, v in second["average"].items())
        assert checkpoint.load(tmp_path / "last.pth")["epoch"] == 4

    def test_the_best_is_known_after_a_resume(self, tmp_path):
        first = make(tmp_path, test=lambda model: {"top1": 7.0})
        first.hooks.append(Cut(STEPS + 1))
        with pytest.raises(ConnectionAbortedError):
            first.train()
        resumed = make(tmp_path, test=lambda model: {"top1": 5.0})
        resumed.resume(tmp_path / "last.pth")
        resumed.train()
        assert resumed.best == {"epoch": 1, "top1": 7.0}
        assert checkpoint.load(tmp_path / "best.pth")["epoch"] == 1

    def test_evaluations_and_checkpoints_follow_their_intervals(self, tmp_path):
        saved = []

        class Watch(Hook):
            def after_epoch(self, trainer):
                saved.append(
                    checkpoint.load(tmp_path / "last.pth")["epoch"] if trainer.epoch > 1 else 0
                )

        trainer = make(tmp_path, epochs=5, eval_every=2, save_every=2, keep_every=2)
        trainer.hooks.append(Watch())
        trainer.train()
        assert [r["epoch"] for r in trainer.history if "top1" in r] == [2, 4, 5]
        assert saved == [0, 2, 2, 4, 5]
        kept = sorted(path.name for path in tmp_path.glob("epoch_*"))
        assert kept == ["epoch_0002.pth", "epoch_0004.pth"]

    def test_checkpoints_inside_an_epoch_follow_the_clock(self, tmp_path, monkeypatch):
        now = [0.0]
        monkeypatch.setattr("kd_core.training.hooks.time.monotonic", lambda: now[0])
        saved = []

        class Minute(Hook):
            def before_step(self, trainer):
                now[0] += 60.0

            def after_step(self, trainer):
                path = tmp_path / "last.pth"
                saved.append(checkpoint.load(path)["step_in_epoch"] if path.exists() else None)

        now[0] = 1e6  # the clock starts with training, not when the hook was made
        trainer = make(tmp_path, epochs=1, accumulate=1, save_minutes=2,
                       schedule={"type": "kd_core.training.schedule.constant"})  # fmt: skip
        now[0] = 2e6
        trainer.hooks.append(Minute())
        trainer.train()
        assert saved == [None, 2, 2, 4, 4]


@pytest.mark.parametrize("name", ["epochs", "accumulate", "log_every", "ema"])
@pytest.mark.parametrize("value", [0, -1, 1.5, float("nan"), "1", True])
def test_ranges_hold_for_who_constructs_a_trainer(name, value, tmp_path):
    """Nothing else is looked at before them."""
    parts = (object(), Loader(), object(), object())
    options = {"schedule": object(), "work_dir": tmp_path, "epochs": 1, name: value}
    with pytest.raises(UserError, match=rf"^Trainer: {name}: wanted a"):
        Trainer(*parts, **options)


class TestLoop:
    def test_the_average_is_what_is_evaluated(self, tmp_path):
        seen = []
        trainer = make(tmp_path, test=lambda model: seen.append(model) or {"top1": 1.0})
        trainer.train()
        assert all(model.network is trainer.average.network for model in seen)
        assert not any(model.training for model in seen)
        plain = make(tmp_path / "plain", ema=None)
        assert plain.predictor() is plain.distiller.student

    def test_the_record_has_the_rate_of_its_own_epoch(self, tmp_path):
        node = {"type": "kd_core.training.schedule.multi_step", "milestones": [1, 2]}
        trainer = make(tmp_path, schedule=node)
        trainer.train()
        assert [r["lr"] for r in trainer.history] == pytest.approx([0.1, 0.01, 0.001])
        assert [r["step"] for r in trainer.history] == [STEPS, 2 * STEPS, 3 * STEPS]
        assert float(trainer.optimizer.param_groups[0]["lr"]) == pytest.approx(0.001)

    def test_every_batch_is_seen_once_an_epoch(self, tmp_path):
        seen = []
        make(tmp_path, edit=lambda epoch, number, batch: seen.append((epoch, number))).train()
        assert seen == [(epoch, number) for epoch in range(3) for number in range(BATCHES)]

    def test_no_teacher_is_in_a_checkpoint(self, uninterrupted):
        names = leaves(checkpoint.load(uninterrupted.work_dir / "last.pth"))
        assert not [name for name in names if "teacher" in name]

    @pytest.mark.parametrize(
        "name", ["epochs", "accumulate", "eval_every", "save_every", "log_every"]
    )
    def test_a_count_below_1_is_refused(self, tmp_path, name):
        with pytest.raises(UserError, match=rf"{name}: wanted a number greater than 0, got 0"):
            make(tmp_path, **{name: 0})


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (1, "term 'kd': its warm-up of 2 epochs is longer than the run of 1, so it ends at 50% of"),
        (2, ""),
    ],
)
def test_a_warm_up_longer_than_the_run_is_told_before_it_starts(tmp_path, capsys, epochs, expected):
    make(tmp_path, epochs=epochs, schedule={"type": "kd_core.training.schedule.constant"})
    told = capsys.readouterr().err
    assert told.startswith(expected)
    assert bool(told) == bool(expected)
