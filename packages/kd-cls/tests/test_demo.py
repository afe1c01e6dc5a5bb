"""The demo: the same student without and with a teacher, and what it leaves."""

from pathlib import Path

import pytest
from kd_cls import train
from kd_cls.adapter import ADAPTER
from kd_cls.classifier import Classifier
from kd_cls.data import synthetic
from kd_cls.models import build_model
from kd_core.experiment import identity, runner
from kd_core.experiment.parsing import read_experiment
from kd_core.experiment.teachers import recorded, teacher_folder
from kd_core.files import checkpoint

SHORT = ["trainer.epochs=2", "schedule.warmup_epochs=1", "distiller.terms.dkd.warmup_epochs=1"]
SHORT += ["data.train_per_class=173"]  # which leaves few test images
SHORT += ["trainer.allow_weak_teacher=True"]  # it has random weights
SHORT += ["student.network.name=tiny"]
SEEDS = "seeds 0 1"
ARGUMENTS = ["--seeds", "0", "1", "--cfg-options", *SHORT]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in a folder where the teacher's recipe was run, though its weights are random."""
    monkeypatch.chdir(tmp_path)
    settings = read_experiment(ADAPTER, ADAPTER.demo_config).teachers["teacher"].experiment
    made = teacher_folder(settings, Path("runs/teachers"))
    teacher = Classifier(build_model(settings.student["network"]["name"], num_classes=10))
    facts = ADAPTER.metadata(settings.student["network"], synthetic(), teacher)
    checkpoint.export(teacher.network.state_dict(), made / "student", facts)
    identity.keep(made, recorded(settings, 0))
    result = {"metric": "top1", "last": {"top1": 98.7}, "epochs": settings.trainer["epochs"]}
    result |= {"best": {"top1": 98.7, "chosen_on": "test data"}, "student_parameters": 272474}
    result |= {"train_seconds": 20.5, "made_by": identity.digest_of(made)}
    checkpoint.save_json(result, made / "result.json")
    return tmp_path


def test_it_ends_with_a_table_curves_and_numbers(capsys):
    assert train.main(ARGUMENTS) == 0
    printed = capsys.readouterr()
    parts = [line for line in printed.err.splitlines() if " of 3: " in line]
    students = [f"1 of 3: student alone, {SEEDS}", f"3 of 3: student + DKD, {SEEDS}"]
    assert parts == [students[0], "2 of 3: teacher, trained before", students[1]]
    shown = printed.out.splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown if "│" in line]
    assert [row[0] for row in rows] == ["teacher", "student", "student + DKD"]
    assert rows[0][1:] == ["98.70", "272,474", "20.5"]
    assert all("±" in row[1] and row[2] == "6,418" for row in rows[1:])
    assert "digits, last epoch, 2 seeds" in "\n".join(shown)
    assert Path("runs/demo/curves.png").read_bytes().startswith(b"\x89PNG")
    numbers = checkpoint.load_json(Path("runs/demo/demo.json"))
    assert numbers["teacher"]["last"]["top1"] == 98.7
    for name, summary in numbers["students"].items():
        run = {"student": "student", "student + DKD": "dkd"}[name]
        assert summary == checkpoint.load_json(Path(f"runs/demo/{run}/summary.json"))
        assert summary["last"]["top1"]["n"] == 2


def test_the_students_differ_in_the_teacher_only():
    assert train.main([*ARGUMENTS[3:], "--seeds", "3"]) == 0
    files = [f"runs/demo/{name}/config.py" for name in ("student", "dkd")]
    alone, distilled = (read_experiment(ADAPTER, file).plain() for file in files)
    assert distilled.keys() - alone.keys() == {"teacher", "distiller"}
    assert all(distilled[name] == alone[name] for name in alone)
    assert alone["seed"] == 3
    assert alone["trainer"]["epochs"] == 2
    assert distilled["distiller"]["terms"]["dkd"]["warmup_epochs"] == 1


def test_it_resumes_where_it_stopped(monkeypatch):
    assert train.main([*ARGUMENTS[3:], "--seeds", "0"]) == 0
    before = Path("runs/demo/dkd/result.json").read_bytes()
    monkeypatch.delattr(runner, "run")  # so that nothing can be trained
    assert train.main([*ARGUMENTS[3:], "--seeds", "0", "--resume"]) == 0
    assert Path("runs/demo/dkd/result.json").read_bytes() == before


def test_evaluation_needs_a_config(capsys):
    assert train.main(["--eval-only=x.pth"]) == 2
    assert "name a CONFIG" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "shown"), [("--dry-run", "step done"), ("--list-taps", "fc")])
def test_it_can_be_looked_at(option, shown, capsys):
    assert train.main([option]) == 0
    assert shown in capsys.readouterr().out
    assert not Path("runs/demo").exists()


def test_a_checkpoint_needs_a_config(capsys):
    assert train.main(["--eval-only", "x.pth"]) == 2
    assert "name a CONFIG" in capsys.readouterr().err


def test_a_teacher_that_is_missing_is_trained_between_the_students(folder, capsys):
    few = ["teacher.trainer.epochs=1", "teacher.schedule.warmup_epochs=0"]
    few += ["teacher.data.limit_per_class=2", "trainer.epochs=1", "schedule.warmup_epochs=0"]
    few += ["data.limit_per_class=2", "distiller.terms.dkd.warmup_epochs=0"]
    few += ["trainer.allow_weak_teacher=True", "data.train_per_class=173"]
    few += ["teacher.data.train_per_class=173"]
    few += ["student.network.name=tiny", "teacher.student.network.name=tiny"]
    assert train.main(["--seeds", "0", "--cfg-options", *few]) == 0
    lines = capsys.readouterr().err.splitlines()
    shown = [line.partition(",")[0] for line in lines if " of 3: " in line or "epoch 1/1" in line]
    assert [line if " of 3" in line else "epoch" for line in shown] == [
        "1 of 3: student alone",
        "epoch",
        "2 of 3: teacher",
        "epoch",
        "3 of 3: student + DKD",
        "epoch",
    ]
    assert len(list(folder.glob("runs/teachers/*/result.json"))) == 2
