"""Logs: JSON lines, TensorBoard, Weights & Biases, the console."""

import io
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from kd_core.errors import UserError
from kd_core.runtime.console import _console
from kd_core.training.loggers import JsonLog, ProgressLog, TensorBoardLog, WandbLog
from rich.console import Console
from rich.progress import track


def trainer_at(folder, epoch, epochs=4):
    """Return what a log looks at after some epochs of two steps each."""
    history = [{"epoch": n, "top1": 10.0 * n, "loss_ce": 1 / n} for n in range(1, epoch + 1)]
    return SimpleNamespace(
        work_dir=folder,
        history=history,
        record=history[-1] if history else {},
        epoch=epoch,
        epochs=epochs,
        step_in_epoch=0,
        steps_per_epoch=2,
        steps_done=2 * epoch,
        total_steps=2 * epochs,
        best=history[-1] if history else {},
        meter=SimpleNamespace(means=lambda local: {"ce": 0.5}),
    )


def epochs_in(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["epoch"] for line in lines]


class TestJsonLog:
    def test_every_epoch_is_a_line(self, tmp_path):
        log = JsonLog()
        log.before_train(trainer_at(tmp_path, 0))
        for epoch in (1, 2):
            log.after_epoch(trainer_at(tmp_path, epoch))
            assert epochs_in(tmp_path) == list(range(1, epoch + 1))

    def test_a_resumed_run_drops_lines_after_its_checkpoint_and_continues(self, tmp_path):
        JsonLog().after_epoch(trainer_at(tmp_path, 3))  # then killed before last.pth was written
        log = JsonLog()
        log.before_train(trainer_at(tmp_path, 2))
        assert epochs_in(tmp_path) == [1, 2]
        log.after_epoch(trainer_at(tmp_path, 3))
        assert epochs_in(tmp_path) == [1, 2, 3]


class TestTensorBoardLog:
    def test_scalars_are_written_and_continue_after_a_resume(self, tmp_path):
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        def before(second):
            return str(int(second[0]) - 10)

        for begin, end in ((0, 3), (2, 4)):  # killed after the third epoch, resumed at the second
            log = TensorBoardLog()
            log.before_train(trainer_at(tmp_path, begin))
            for epoch in range(begin + 1, end + 1):
                log.after_epoch(trainer_at(tmp_path, epoch))
            log.close()
            for file in (tmp_path / "tensorboard").iterdir():  # else both may be of one second
                file.rename(file.with_name(re.sub(r"\d{10}", before, file.name, count=1)))
        events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
        shown = [(event.step, event.value) for event in events.Scalars("top1")]
        assert shown == [(1, 10.0), (2, 20.0), (3, 30.0), (4, 40.0)]

    def test_a_text_of_a_hook_is_written_as_one(self, tmp_path):
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        log, trainer = TensorBoardLog(), trainer_at(tmp_path, 1)
        log.before_train(trainer)
        trainer.record |= {"note": "frozen", "nothing": None}
        log.after_epoch(trainer)
        log.close()
        events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
        (text,) = events.Tensors("note/text_summary")
        assert text.tensor_proto.string_val == [b"frozen"]
        assert "nothing" not in events.Tags()["scalars"]

    def test_without_the_package_one_line_says_what_to_do(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "tensorboard", None)
        with pytest.raises(UserError, match=r"needs the package tensorboard"):
            TensorBoardLog()

    def test_closing_before_training_began_is_harmless(self):
        pytest.importorskip("tensorboard")
        TensorBoardLog().close()


class FakeWandb:
    """What WandbLog uses of wandb."""

    def __init__(self):
        self.inits, self.logged, self.finished = [], [], 0

    def init(self, **settings):
        self.inits.append(settings)
        name = settings.get("id", f"run{len(self.inits)}")
        return SimpleNamespace(id=name, log=self._log, finish=self._finish)

    def _log(self, record, step):
        self.logged.append((step, record["top1"]))

    def _finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


class TestWandbLog:
    def test_without_the_package_one_line_says_what_to_do(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "wandb", None)
        with pytest.raises(UserError, match=r"pip install wandb") as error:
            WandbLog(project="kd")
        assert "\n" not in str(error.value)

    def test_records_are_sent_under_their_epoch(self, wandb, tmp_path):
        log = WandbLog(project="kd")
        log.before_train(trainer_at(tmp_path, 0))
        log.after_epoch(trainer_at(tmp_path, 1))
        log.close()
        assert wandb.inits == [{"dir": str(tmp_path), "resume": "allow", "project": "kd"}]
        assert wandb.logged == [(1, 10.0)]
        assert wandb.finished == 1

    def test_a_resumed_run_continues_in_the_same_wandb_run_and_a_new_one_does_not(
        self, wandb, tmp_path
    ):
        for epoch in (0, 2, 0):
            WandbLog().before_train(trainer_at(tmp_path, epoch))
        assert [settings.get("id") for settings in wandb.inits] == [None, "run1", None]

    def test_the_user_s_own_name_wins(self, wandb, tmp_path):
        WandbLog().before_train(trainer_at(tmp_path, 0))
        WandbLog(id="mine").before_train(trainer_at(tmp_path, 1))
        assert wandb.inits[-1]["id"] == "mine"

    def test_closing_before_training_began_is_harmless(self, wandb):
        WandbLog().close()
        assert wandb.finished == 0


class TestProgressLog:
    def test_an_evaluated_epoch_is_a_line_with_metric_best_and_time_left(self, tmp_path, capsys):
        log = ProgressLog("top1")
        log.before_train(trainer_at(tmp_path, 0))
        log.after_epoch(trainer_at(tmp_path, 1))
        log.after_epoch(trainer_at(tmp_path, 4))
        log.close()
        first, last = capsys.readouterr().err.splitlines()
        for wanted in ("epoch 1/4", "top1 10", "ce 1", "(best 10 @1)", "ETA 0:00:00"):
            assert wanted in first
        assert last.endswith("done")

    def test_what_a_hook_adds_may_be_a_text_or_none(self, tmp_path, capsys):
        trainer = trainer_at(tmp_path, 4)
        trainer.record |= {"note": "frozen", "nothing": None}
        ProgressLog("top1").after_epoch(trainer)
        assert "note frozen  nothing None" in capsys.readouterr().err

    def test_other_epochs_are_silent_until_the_silence_is_long(self, tmp_path, capsys, monkeypatch):
        now = [0.0]
        monkeypatch.setattr("kd_core.training.loggers.time.monotonic", lambda: now[0])
        log = ProgressLog("val_top1", seconds=60)
        log.before_train(trainer_at(tmp_path, 0))
        trainer = trainer_at(tmp_path, 2)
        trainer.best = {}
        for now[0] in (30.0, 50.0):
            log.after_epoch(trainer)
            log.after_step(trainer)
        assert capsys.readouterr().err == ""
        now[0] = 61.0
        log.after_step(trainer)
        (line,) = capsys.readouterr().err.splitlines()
        assert "epoch 3  step 0/2  ce 0.5" in line
        assert "ETA 0:01:01" in line

    def test_a_line_ends_in_the_memory_of_a_gpu(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: 1_500_000_000)
        log = ProgressLog("top1", device=torch.device("cuda"))
        log.after_epoch(trainer_at(tmp_path, 4))
        assert capsys.readouterr().err.endswith("done  GPU 1.50 GB\n")

    def test_on_a_terminal_a_bar_has_time_left_and_memory(self, tmp_path, monkeypatch):
        monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: 1_500_000_000)
        monkeypatch.setattr("kd_core.training.loggers._EVERY", 1)
        screen = io.StringIO()
        terminal = Console(file=screen, force_terminal=True, width=100)
        monkeypatch.setattr("kd_core.training.loggers.err", terminal)
        log = ProgressLog("top1", device=torch.device("cuda"))
        log.before_train(trainer_at(tmp_path, 1))
        log.after_step(trainer_at(tmp_path, 2))
        log.close()
        assert re.search(r"4/8.*-:--:--.*GPU 1.50 GB", screen.getvalue())


@pytest.mark.parametrize(
    "settings", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}, {"NO_COLOR": "1"}]
)
def test_piped_stderr_has_no_bar_and_no_colour(monkeypatch, capsys, settings):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    console = _console(stderr=True)
    for _ in track(range(3), "images", console=console, transient=True):
        console.print("a line", style="red")
    console.rule("a part", style="dim")
    said = capsys.readouterr().err
    assert said.splitlines()[:3] == ["a line"] * 3
    assert "\x1b" not in said
    assert "images" not in said


def test_no_color_is_honoured_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    console = _console(stderr=True)
    assert console.is_terminal
    console.print("a line", style="red")
    assert "31m" not in capsys.readouterr().err


def test_the_logs_touch_only_the_run_s_folder(tmp_path):
    log = JsonLog()
    log.before_train(trainer_at(tmp_path / "run", 1))
    assert [Path(path).name for path in tmp_path.iterdir()] == ["run"]
