"""`--json`: lines for programs on stdout, all else on stderr."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from kd_core.experiment.cli import training_main
from kd_core.experiment.parsers import training_parser
from kd_core.runtime import json_lines
from kd_core.runtime.console import err, out
from kd_core.runtime.failures import during_run
from kd_core.training.loggers import StdoutLog


def train(args):
    print("a library prints")
    out.print("a table")
    record = {"epoch": 1, "loss_kd": float("nan"), "top1": 5.0}
    StdoutLog().after_epoch(SimpleNamespace(work_dir="runs/x", record=record))
    json_lines.say("result", last={"top1": {"mean": float("inf"), "n": 1}}, seeds=(0,))
    err.print("results in runs/x")


def test_stdout_has_lines_of_json_alone(capsys):
    main = training_main("Train.", lambda: SimpleNamespace(run=train))
    assert main(["--json"]) == 0
    said, told = capsys.readouterr()
    epoch, result = map(json.loads, said.splitlines())
    assert epoch == {
        "event": "epoch",
        "run": "runs/x",
        "record": {"epoch": 1, "loss_kd": None, "top1": 5.0},
    }
    assert result == {"event": "result", "last": {"top1": {"mean": None, "n": 1}}, "seeds": [0]}
    assert told.splitlines() == ["a library prints", "a table", "results in runs/x"]


def test_without_it_nothing_changes(capsys):
    assert training_main("Train.", lambda: SimpleNamespace(run=train))([]) == 0
    said, told = capsys.readouterr()
    assert said.splitlines() == ["a library prints", "a table"]
    assert told.splitlines() == ["results in runs/x"]


@pytest.mark.parametrize(
    "other", [["--dry-run"], ["--list-taps"], ["--save-outputs", "x.safetensors"]]
)
def test_it_is_refused_where_there_is_no_epoch_and_no_result(capsys, other):
    assert training_main("Train.", lambda: SimpleNamespace(run=train))(["--json", *other]) == 2
    said, told = capsys.readouterr()
    assert said == ""
    (line,) = told.splitlines()
    assert f"leave it out with {other[0]}" in line


def in_a_run(args):
    with during_run(Path("runs/x"), 0, ""):
        json_lines.say("result")


def print_in_a_run(args):
    with during_run(Path("runs/x"), 0, ""):
        out.print("a table")


@pytest.mark.parametrize(
    ("run", "arguments"), [(train, ["--json"]), (in_a_run, ["--json"]), (print_in_a_run, [])]
)
def test_a_reader_that_left_gives_141(monkeypatch, run, arguments):
    class Gone:
        encoding = "utf-8"

        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            """Do nothing."""

        def fileno(self):
            raise OSError

    monkeypatch.setattr("sys.stdout", Gone())
    assert training_main("Train.", lambda: SimpleNamespace(run=run))(arguments) == 141


def test_help_says_what_each_exit_status_means():
    text = " ".join(training_parser("Train.").format_help().split())
    for status in (
        "0 done",
        "1 failed",
        "2 refused",
        "130 Ctrl-C",
        "141 the reader",
        "143 SIGTERM",
    ):
        assert status in text
