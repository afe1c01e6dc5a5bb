"""The examples that the README shows run as they stand."""

import json
import re
import runpy
from pathlib import Path

import pytest
import torch
from kd_cls.compare import main as compare
from kd_cls.train import main
from kd_core.errors import UserError
from kd_core.experiment.adapter import TaskAdapter
from kd_core.experiment.command_line import TrainingTool
from kd_core.experiment.tables.products import Products
from kd_core.testing import check_contract

ROOT = Path(__file__).parents[1]
HOOKED = "configs/examples/own_hook.py"
STUDENT = ROOT / "configs/examples/torchvision_student.py"
GUIDE = (ROOT / "docs/own_method.md").read_text(encoding="utf-8")
FEW = (
    "data={'_delete_': True, 'type': 'kd_cls.data.synthetic', 'num_classes': 10, 'num_train': 40,"
    " 'num_test': 50, 'image_size': 8, 'batch_size': 20}"
)
"""Images instead of the digits, all of which but those for training are test images."""


@pytest.fixture(autouse=True)
def _seeded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


def test_a_loss_alone_gives_the_student_a_gradient():
    names = runpy.run_path(str(ROOT / "examples/loss_only.py"))
    assert names["student"].grad.abs().sum() > 0
    assert names["teacher"].grad is None


def test_a_loop_of_one_s_own_trains_a_torchvision_student_that_loads_without_us():
    names = runpy.run_path(str(ROOT / "examples/own_loop.py"))
    assert set(names["losses"]) == {"ce", "dkd", "hint"}
    assert all(loss.isfinite() for loss in names["losses"].values())
    plain = names["resnet18"](num_classes=10)
    plain.load_state_dict(torch.load("student.pth", weights_only=True))


def test_regression_is_learned_from_a_teacher_without_labels(capsys):
    names = runpy.run_path(str(ROOT / "examples/regression.py"))
    after = names["error"](names["distiller"])
    assert after < names["before"] / 2
    assert "student" in capsys.readouterr().out


def test_a_torchvision_student_of_a_zoo_network_needs_twenty_lines_and_no_shape(monkeypatch):
    text = STUDENT.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 20
    assert "shapes" not in text
    monkeypatch.chdir(ROOT)  # where its recipe is
    assert main([str(STUDENT), "--dry-run"]) == 0


def test_that_student_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    options = ["trainer.epochs=1", "trainer.loggers=[]", "teacher.weights=random"]
    options += [FEW]
    status = main([str(STUDENT), "--work-dir", str(tmp_path / "run"), "--cfg-options", *options])
    assert status == 0
    assert (tmp_path / "run/criteria/hint.pth").is_file()


def test_a_criterion_of_one_s_own_is_found_in_the_working_folder_and_obeys_the_contract(
    tmp_path, capsys
):
    source = (ROOT / "examples/own_criterion.py").read_text(encoding="utf-8")
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples/own_criterion.py").write_text(source)
    config = (ROOT / "configs/examples/own_criterion.py").read_text(encoding="utf-8")
    (tmp_path / "mine.py").write_text(config.replace("configs/", f"{ROOT}/configs/"))
    assert main(["mine.py", "--dry-run"]) == 0
    assert "one training step done" in capsys.readouterr().out
    names = runpy.run_path("examples/own_criterion.py")
    check_contract(names["DirectionDistance"])


@pytest.mark.parametrize("name", ["own_method.md own_criterion.py", "own_hook.md own_hook.py"])
def test_the_guides_show_them_as_they_are(name):
    guide, example = name.split()
    guide = (ROOT / "docs" / guide).read_text(encoding="utf-8")
    shown = re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    for folder in ("examples", "configs/examples"):
        assert (ROOT / folder / example).read_text(encoding="utf-8") in shown
    for path in re.findall(r"`((?:configs|kd_core)/[\w/]+\.py)`", guide):
        folder = "packages/kd-core/src" if path.startswith("kd_core") else "."
        assert (ROOT / folder / path).is_file()


def test_a_method_of_one_s_own_stands_in_a_table_beside_kd(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Products, "draw", lambda self, rows: None)  # curves, which take a while
    section = GUIDE.partition("## Beside other methods")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    for name, text in zip(("my_term", "my_table", "my_teacher"), blocks, strict=True):
        Path(f"{name}.py").write_text(text)
    criterion = "from kd_core.criteria.kd import KD\n\n\nclass Mine(KD): ...\n"
    Path("my_method.py").write_text(criterion)
    monkeypatch.syspath_prepend(str(tmp_path))
    demo, cifar = re.findall(r"^uv run tools/cls_compare.py (.*)$", section, re.MULTILINE)
    few = [FEW, "trainer.epochs=1", "schedule.warmup_epochs=0", "teacher.weights=random"]
    assert compare([*demo.split(), "--cfg-options", *few]) == 0
    shown = capsys.readouterr()
    assert [line.split(" | ")[0] for line in shown.out.splitlines()[2:5]] == [
        "| student alone",
        "| KD",
        "| mine",
    ]
    assert "task_weight differs: 0.1 in KD; 1 in mine" in shown.err
    assert compare([*cifar.split(), "--only", "mine"]) == 0


def test_a_hook_of_one_s_own_freezes_what_it_is_told_and_is_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))
    options = [FEW, "trainer.loggers=[]"]
    options += ["schedule.type=kd_core.training.schedule.constant"]

    def run(folder, *more):
        work_dir = str(tmp_path / folder)
        return main([HOOKED, "--work-dir", work_dir, *more[1:], "--cfg-options", *options, more[0]])

    assert run("resumed", "trainer.epochs=2") == 0
    assert run("resumed", "trainer.epochs=4", "--resume") == 0
    assert run("whole", "trainer.epochs=4") == 0
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("resumed", "whole")]
    resumed, whole = (
        [
            [json.loads(line)[key] for key in ("loss_ce", "top1", "epochs_without_progress")]
            for line in log.splitlines()
        ]
        for log in logs
    )
    assert resumed == whole
    assert len(whole) == 4
    other = "trainer.hooks=[{'type': 'examples.own_hook.FreezeOnPlateau', 'part': 'fc'}]"
    options += [other]
    assert run("whole", "trainer.epochs=4", "--resume") == 2
    assert "trainer.hooks.0.part is 'conv1' there and 'fc' here" in capsys.readouterr().err


def test_a_task_of_one_s_own_trains_a_teacher_and_a_student(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)  # where its configs are
    monkeypatch.syspath_prepend(str(ROOT))
    task = runpy.run_path("examples/own_task.py")
    written = [value for value in vars(task["Location"]).values() if callable(value)]
    assert len(written) <= 5
    tool = TrainingTool(task["Location"]())
    options = ["trainer.epochs=1", "trainer.loggers=[]", "data.count=64"]
    run = ["configs/examples/own_task.py", "--work-dir", str(tmp_path / "runs/x")]
    assert tool.main([*run, "--cfg-options", *options]) == 0
    assert "within_2px" in capsys.readouterr().out
    assert (tmp_path / "runs/x/student.safetensors").is_file()
    assert list((tmp_path / "runs/teachers").glob("teacher-*/result.json"))
    assert tool.main([]) == 2
    assert "name a CONFIG" in capsys.readouterr().err


def test_a_task_that_cannot_read_finished_runs_says_so(tmp_path, monkeypatch, capsys):
    class Task(TaskAdapter):
        title, metric = "x", "y"

        def build_model(self, data, where, /, *, network):
            raise NotImplementedError

        def evaluators(self, config, data):
            raise NotImplementedError

    with pytest.raises(UserError, match=r"Task cannot read finished runs.*`weights`"):
        Task().load_finished(tmp_path, {})
