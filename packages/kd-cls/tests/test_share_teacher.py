"""Students that share one pass over data and teacher end as they would alone."""

import signal
from pathlib import Path

import pytest
import torch
from kd_cls import compare, train
from kd_cls.models import build_model
from kd_core.files.checkpoint import load_json
from kd_core.training.step import TrainStep
from kd_core.training.trainer import Trainer

TINY = """
data = dict(type="kd_cls.data.synthetic", num_train=24, num_test=8, batch_size=8, image_size=8)
data_seed = 5
student = dict(network=dict(type="kd_cls.models.build_model", name="tiny"))
teacher = dict(
    network=dict(type="kd_cls.models.build_model", name="tiny"), weights="teacher.pth"
)
optimizer = dict(type="torch.optim.SGD", lr=0.01, momentum=0.9)
schedule = dict(type="kd_core.training.schedule.constant")
trainer = dict(epochs=2, loggers=[], allow_weak_teacher=True)
"""
TERMS = "distiller = dict(terms=dict({0}=dict(criterion=dict(type='kd_core.criteria.{0}.{1}'){2})))"
METHODS = {
    "kd": TERMS.format("kd", "KD", ""),
    "rkd": TERMS.format("rkd", "RKD", ", student='@pooled', teacher='@pooled'"),
    "crd": TERMS.format("crd", "CRD", ", student='@pooled', teacher='@pooled'"),  # draws negatives
}
TABLE = 'rows = {"alone": [], "KD": ["kd.py"], "RKD": ["rkd.py"]}'
STEPS = 6  # of a run

NETS = """
from torch import nn

def one_vector(num_classes):
    pooled = (nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4))
    return nn.Sequential(*pooled, nn.Linear(4, num_classes))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in {"tiny": TINY, "table": TABLE, **METHODS}.items():
        Path(f"{name}.py").write_text(text)
    torch.manual_seed(0)
    torch.save(build_model("tiny", num_classes=10).state_dict(), "teacher.pth")
    return tmp_path


def run(name, *options, method="kd", seeds=("3", "4"), extra=("--share-teacher",)):
    arguments = ["tiny.py", f"{method}.py", "--work-dir", f"runs/{name}", "--seeds", *seeds, *extra]
    return train.main([*arguments, *(("--cfg-options", *options) if options else ())])


def weights(folder):
    return torch.load(Path("runs", folder, "student.pth"), weights_only=True)


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("method", ["kd", "crd"])
def test_seeds_together_end_as_they_do_alone(method, passes):
    assert run("alone", method=method, extra=()) == 0
    assert len(passes) == 2 * STEPS
    passes.clear()
    assert run("together", method=method) == 0
    assert len(passes) == STEPS
    for seed in (3, 4):
        assert same(weights(f"alone/seed-{seed}"), weights(f"together/seed-{seed}"))
    assert not same(weights("together/seed-3"), weights("together/seed-4"))
    summaries = [Path("runs", name, "summary.json") for name in ("alone", "together")]
    one, other = (load_json(path) for path in summaries)
    assert one["last"] == other["last"]


def test_accumulated_and_averaged_runs_share_too(passes):
    options = ("trainer.accumulate=2", "trainer.ema=0.9", "trainer.epochs=1")
    run("alone", *options, extra=())
    passes.clear()
    run("together", *options)
    assert len(passes) == 3
    assert same(weights("alone/seed-4"), weights("together/seed-4"))


def test_the_table_says_what_its_deviation_covers(capsys):
    run("together")
    assert "data_seed 5 in all runs: sd is that of initialisation" in capsys.readouterr().out
    assert compare.main(["tiny.py", "--rows", "table.py", "--seeds", "0", "1"]) == 0
    assert "data_seed 5 in all runs" in capsys.readouterr().out


def test_rows_of_a_table_share_a_pass_and_a_student_alone_joins_them(passes):
    arguments = ["tiny.py", "--rows", "table.py", "--seeds", "0", "1"]
    assert compare.main([*arguments, "--work-dir", "runs/separate"]) == 0
    assert len(passes) == 4 * STEPS
    passes.clear()
    assert compare.main([*arguments, "--work-dir", "runs/shared", "--share-teacher"]) == 0
    assert len(passes) == STEPS
    tables = [load_json(Path(f"runs/{n}/table.json")) for n in ("separate", "shared")]
    for label, results in tables[0].items():
        for one, other in zip(results, tables[1][label], strict=True):
            assert one["last"] == other["last"]
            assert one["teachers"] == other["teachers"]
    # Once more: all is finished.
    passes.clear()
    assert compare.main([*arguments, "--work-dir", "runs/shared", "--share-teacher"]) == 0
    assert not passes


@pytest.mark.parametrize("stop_after", [3, 4])
def test_a_signal_stops_all_and_resume_continues_all(stop_after, monkeypatch, capsys):
    run("whole")
    taken, call = [], TrainStep.__call__

    def step(self, batches):
        taken.append(self)
        if len(taken) == stop_after:
            signal.raise_signal(signal.SIGINT)
        return call(self, batches)

    monkeypatch.setattr(TrainStep, "__call__", step)
    with pytest.raises(SystemExit):
        run("cut")
    assert len(taken) in (stop_after, stop_after + 1)  # the others finish their turn
    files = [Path(f"runs/cut/seed-{seed}/last.pth") for seed in (3, 4)]
    assert all(file.is_file() for file in files)
    # One of them was a step ahead, as when a checkpoint is written between two turns.
    assert run("cut", extra=("--share-teacher", "--resume")) == 0
    for seed in (3, 4):
        assert same(weights(f"whole/seed-{seed}"), weights(f"cut/seed-{seed}"))


def test_one_that_fails_lets_the_others_finish(monkeypatch, capsys):
    run("whole")
    check = Trainer.check_finite

    def fail(self):
        if self.work_dir.name == "seed-3":
            from kd_core.training.meter import NonFiniteLossError

            raise NonFiniteLossError("loss 'kd' is not finite")
        check(self)

    monkeypatch.setattr(Trainer, "check_finite", fail)
    assert run("failed") == 1
    assert "loss 'kd' is not finite" in capsys.readouterr().err
    assert not Path("runs/failed/seed-3/result.json").exists()
    assert same(weights("whole/seed-4"), weights("failed/seed-4"))


def test_the_cache_fills_once_for_all(passes):
    options = ("trainer.teacher_cache=True",)
    assert run("first", *options) == 0
    first = sum(passes)
    assert 24 < first <= 2 * 24 + 10  # fewer than the 48 of each of two seeds
    passes.clear()
    assert run("again", *options, seeds=("7", "8")) == 0
    assert sum(passes) == 10  # a sample, and a few compared
    assert len(list(Path("runs/teachers").glob("cache-*"))) == 1


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["data_seed=None"], "say so with data_seed=0"),
        (["teacher.weights=random"], "random teachers differ with the seed"),
    ],
)
def test_what_cannot_be_shared_is_refused(options, problem, capsys):
    assert run("refused", *options) == 2
    assert problem in capsys.readouterr().err
    assert not Path("runs/refused").exists()


def test_a_refusal_before_work_leaves_no_folder(capsys):
    assert run("refused", "student.network.name=resnet9") == 2
    assert "did you mean 'resnet8" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_without_a_data_seed_it_is_refused_before_any_work(capsys):
    Path("tiny.py").write_text(TINY.replace("data_seed = 5\n", ""))
    assert run("refused") == 2
    assert "say so with data_seed=0" in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("data.batch_size=4", "data"),
        ("data_seed=6", "data_seed"),
        ("trainer.precision=bf16", "trainer.precision"),
        ("trainer.accumulate=2", "trainer.accumulate"),
        ("teacher.size=8", "teacher"),
    ],
)
def test_rows_that_differ_in_what_is_shared_are_refused(option, name, capsys):
    Path("table.py").write_text(
        f'rows = {{"KD": ["kd.py"], "other": dict(files=["kd.py"], options=["{option}"])}}'
    )
    assert compare.main(["tiny.py", "--rows", "table.py", "--share-teacher"]) == 2
    assert f"--share-teacher: {name} is not the same in all runs" in capsys.readouterr().err


def test_students_that_leave_out_other_batches_share_no_pass(folder, monkeypatch, capsys):
    monkeypatch.syspath_prepend(folder)
    Path("net_of_a_vector.py").write_text(NETS)
    network = "dict(_delete_=True, type='net_of_a_vector.one_vector')"
    Path("other.py").write_text(f"student = dict(network={network})")
    Path("table.py").write_text('rows = {"KD": ["kd.py"], "other": ["kd.py", "other.py"]}')
    arguments = ["tiny.py", "--rows", "table.py", "--share-teacher"]
    assert compare.main([*arguments, "--cfg-options", "data.num_train=9"]) == 2
    assert "set data.drop_last=True" in capsys.readouterr().err
