"""Early stop: when a training ends, that it resumes exactly, and what it says."""

import json

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.distill.distiller import Distiller
from kd_core.errors import UserError
from kd_core.experiment.parts import Parts
from kd_core.experiment.run import build_trainer, resume_training, run
from kd_core.experiment.seeds import stops_of
from kd_core.networks.task import Task
from kd_core.training.early_stop import best_epoch
from kd_core.training.hooks import Hook
from kd_core.training.shared_teacher import Turn, train_in_turns
from torch import nn

BEST_IN_3 = (1.0, 2.0, 3.0, 3.0, 2.0, 2.5, 9.0)
PLAIN = {"optimizer": {"type": "torch.optim.SGD", "lr": 0.1}}
PLAIN["schedule"] = {"type": "kd_core.training.schedule.constant"}


class Toy(Task):
    """Classifies vectors [N, 4]."""

    def forward(self, batch):
        logits = self.network(batch["image"])
        return {"ce": F.cross_entropy(logits, batch["label"])} if self.training else logits


class Loader:
    """Two batches."""

    batch_size = 4

    def __len__(self):
        return 2

    def epoch(self, epoch, start=0):
        for number in range(start, 2):
            image = torch.randn(4, 4, generator=torch.Generator().manual_seed(number))
            yield {"image": image, "label": torch.arange(4) % 3, "index": torch.arange(4)}


class Script:
    """An evaluation whose values follow from the epoch alone, as those of a model do."""

    def __init__(self, values, name="top1"):
        self.values, self.name, self.trainer = values, name, None

    def __call__(self, model):
        epoch = max(self.trainer.epoch, 1)
        return {self.name: self.values[epoch - 1], "loss": -self.values[epoch - 1]}


class Cut(Hook):
    """Ends the process, as it were, after an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def before_epoch(self, trainer):
        if trainer.epoch == self.epoch:
            raise ConnectionAbortedError


def make(folder, values=BEST_IN_3, *, val=False, cut=None, **options):
    script = Script(values)
    torch.manual_seed(0)
    parts = Parts(Distiller(Toy(nn.Linear(4, 3)), {}, {}), Loader(), script, "top1")
    parts.val = script if val else None
    settings = {"epochs": len(values), "loggers": [], "early_stop": {"patience": 2}, **options}
    trainer = build_trainer(parts, folder, **PLAIN, **settings)
    script.trainer = trainer
    if cut is not None:
        trainer.hooks.append(Cut(cut))
    return trainer, parts


@pytest.mark.parametrize(
    ("early_stop", "ended"),
    [
        ({"patience": 2}, 5),
        ({"patience": 3}, 6),
        ({"patience": 4}, 7),
        ({"patience": 2, "min_delta": 1.5}, 5),  # 1, then 3 are improvements
        ({"patience": 2, "min_delta": 2.0}, 3),
        ({"patience": 1, "metric": "loss", "mode": "min"}, 4),
        ({"patience": 2, "metric": "loss", "mode": "max"}, 3),
        (None, 7),
    ],
    ids=str,
)
@pytest.mark.parametrize("val", [False, True], ids=["test", "val"])
def test_it_ends_when_nothing_has_improved_for_so_many_epochs(early_stop, ended, val, tmp_path):
    trainer, parts = make(tmp_path, early_stop=early_stop, val=val)
    result = run(trainer, parts, {})
    assert trainer.epoch == ended == result["last"]["epoch"]
    assert result["epochs"] == 7
    assert result.get("stopped_in_epoch", 7) == ended
    assert (tmp_path / "student.pth").is_file()
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == ended


def test_epochs_without_evaluation_count_and_only_others_are_looked_at(tmp_path):
    trainer, _ = make(tmp_path, (1.0, 5.0, 5.0, 5.0, 5.0, 4.0, 9.0, 9.0), eval_every=3)
    trainer.train()
    assert trainer.epoch == 6


@pytest.mark.parametrize("cut", [1, 4])
def test_a_resumed_run_ends_where_the_whole_one_does(cut, tmp_path, capsys):
    with pytest.raises(ConnectionAbortedError):
        make(tmp_path, cut=cut)[0].train()
    resumed, parts = make(tmp_path)
    resume_training(resumed)
    result = run(resumed, parts, {})
    assert result["stopped_in_epoch"] == 5
    text = " ".join(capsys.readouterr().err.split())
    assert "early stop after epoch 5 of 7: top1 has not improved since epoch 3" in text
    assert "the end is chosen on the test data" in text


def test_a_run_that_had_ended_is_not_trained_on(tmp_path):
    make(tmp_path)[0].train()
    again, parts = make(tmp_path, (*BEST_IN_3, 9.0, 9.0))  # resumed for more epochs
    resume_training(again)
    assert run(again, parts, {})["stopped_in_epoch"] == 5


def test_the_checkpoint_of_the_end_is_written_whenever_it_comes(tmp_path):
    trainer, _ = make(tmp_path, save_every=100)
    trainer.train()
    assert (tmp_path / "last.pth").is_file()


def test_others_that_share_a_teacher_continue(tmp_path):
    trainers = [make(tmp_path / "a")[0], make(tmp_path / "b", early_stop=None)[0]]
    state = {"cpu": torch.get_rng_state()}
    train_in_turns([Turn(trainer, trainer.steps(), state) for trainer in trainers])
    assert [trainer.epoch for trainer in trainers] == [5, 7]


@pytest.mark.parametrize(
    ("early_stop", "message"),
    [
        ({}, "early_stop: .*'patience'"),
        ({"patience": 0}, "early_stop.patience: wanted"),
        ({"patience": 1, "patients": 2}, "'patients'; did you mean 'patience'"),
        ({"patience": 1, "min_delta": -1}, "min_delta: wanted"),
        ({"patience": 1, "metric": "loss"}, "set both metric and mode"),
        ({"patience": 1, "mode": "min"}, "set both metric and mode"),
        ({"patience": 1, "metric": "loss", "mode": "least"}, "mode: wanted"),
        ({"patience": 1, "evaluate": "os.system"}, "evaluate"),
        (3, "wanted a dict"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_one_line(early_stop, message, tmp_path):
    with pytest.raises(UserError, match=message):
        make(tmp_path, early_stop=early_stop)


def test_a_metric_that_the_evaluation_does_not_give_is_told_before_the_first_step(tmp_path):
    early_stop = {"patience": 1, "metric": "lose", "mode": "min"}
    trainer, _ = make(tmp_path, early_stop=early_stop)
    with pytest.raises(UserError, match="gives no 'lose'; did you mean 'loss'"):
        trainer.train()
    assert trainer.steps_done == 0


def test_what_is_not_a_number_is_no_improvement():
    nan = float("nan")
    history = [{"epoch": n + 1, "x": value} for n, value in enumerate([nan, 1.0, nan, 0.5])]
    assert best_epoch(history, "x", 1.0, 0.0) == 2
    assert best_epoch(history[:1], "x", 1.0, 0.0) == 0


def test_a_table_says_which_runs_were_stopped():
    runs = [{"stopped_in_epoch": 5, "epochs": 9, "best": {"chosen_on": "test data"}}]
    assert stops_of(runs) == "stopped early, after epoch 5 of 9: chosen on test data"
    runs.append({"epochs": 9, "best": {"chosen_on": "test data"}})
    assert stops_of(runs).startswith("1 of 2 runs stopped early, after epoch 5 of 9")
    assert stops_of(runs[1:]) is None
    assert json.dumps(stops_of(runs))
