"""What only teachers determine is trained once; an interrupted phase is resumed."""

import json
from pathlib import Path

import pytest
import torch
from kd_cls import train
from kd_core.training.step import TrainStep

CONFIGS = Path(__file__).parents[3] / "configs/cls"
TINY = """
data = dict(
    type="kd_cls.data.synthetic", num_train=24, num_test=8, batch_size=8, image_size=8, augment=[]
)
student = dict(network=dict(type="kd_cls.models.build_model", name="tiny"))
teacher = dict(
    network=dict(type="kd_cls.models.build_model", name="tiny"), weights="teacher.pth"
)
optimizer = dict(type="torch.optim.SGD", lr=0.01, momentum=0.9)
schedule = dict(type="kd_core.training.schedule.constant")
trainer = dict(epochs=1, loggers=[], allow_weak_teacher=True)
phases = dict(analysis=dict(trainer=dict(epochs=3)))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in an empty folder that has the configs."""
    from kd_cls.models import build_model

    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(CONFIGS.parent)
    Path("tiny.py").write_text(TINY)
    torch.manual_seed(0)
    torch.save(build_model("tiny", num_classes=10).state_dict(), "teacher.pth")


@pytest.fixture
def steps(monkeypatch):
    """Note every step's losses; a number in `stop` is the step at which Ctrl-C comes."""
    taken, call = [], TrainStep.__call__

    def count(self, batches):
        if len(taken) in stop:
            stop.clear()
            raise KeyboardInterrupt
        taken.append(call(self, batches))
        return taken[-1]

    stop: list[int] = []
    monkeypatch.setattr(TrainStep, "__call__", count)
    return taken, stop


def run(name, *options, extra=()):
    arguments = [*extra, "configs/cls/methods/mag.py", "tiny.py", "--work-dir", name, "--resume"]
    return train.main([*arguments, "--cfg-options", "trainer.log_every=1", *options])


def product():
    (found,) = Path("teachers").glob("analysis-*")
    return found


def test_a_second_student_another_seed_and_mas_take_the_product_of_the_first(steps, capsys):
    taken, _ = steps
    assert run("first") == 0
    assert ["analysis" in losses for losses in taken] == [True] * 9 + [False] * 3
    made = torch.load(product() / "criteria/analysis.pth", weights_only=True)
    for name, options in {
        "other": ["student.network.name=resnet14"],
        "seed": ["seed=3"],
        "mas": ["phases.student.distiller.terms.mag.criterion.stable=true"],
    }.items():
        before = len(taken)
        assert run(name, *options) == 0, capsys.readouterr().err
        assert len(taken) == before + 3
    assert "phase analysis: done before" in capsys.readouterr().err
    used = torch.load("mas/criteria/mag.pth", weights_only=True)
    assert all(torch.equal(used[name], value) for name, value in made.items())


def test_the_first_student_s_seed_does_not_matter():
    assert run("a/one", "seed=1") == 0
    assert run("b/two", "seed=2") == 0
    one, other = (torch.load(path) for path in Path().glob("[ab]/teachers/*/criteria/analysis.pth"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_teacher_has_a_product_of_its_own():
    assert run("first") == 0
    state = torch.load("teacher.pth")
    torch.save({**state, "fc.bias": state["fc.bias"] + 1}, "teacher.pth")
    assert run("second") == 0
    assert len(list(Path("teachers").glob("analysis-*"))) == 2


@pytest.mark.parametrize("step", [4, 10])
def test_a_run_cut_off_in_any_stage_ends_like_a_whole_one(steps, step):
    taken, stop = steps
    assert run("a/whole") == 0
    whole, taken[:] = list(taken), []
    stop.append(step)
    assert run("b/cut") == 130
    assert run("b/cut") == 0
    assert len(taken) < 2 * len(whole) - 3
    last = [losses["mag"] for losses in (whole[-1], taken[-1])]
    assert torch.equal(*last)
    one, other = (torch.load(f"{name}/student.pth") for name in ("a/whole", "b/cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_method_below_takes_no_part_in_the_analysis(steps):
    taken, _ = steps
    assert run("both", extra=["configs/cls/methods/at.py"]) == 0
    assert [set(losses) for losses in (taken[0], taken[-1])] == [{"analysis"}, {"ce", "at", "mag"}]
    result = json.loads(Path("both/result.json").read_text())
    assert result["student_parameters"] == 6418
