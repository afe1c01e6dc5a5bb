"""The training tool, run in this process on tiny images: what it does and what it leaves."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from kd_cls import train
from kd_cls.models import build_model
from kd_core.config.reading import load_config
from kd_core.experiment import runner
from kd_core.files.weights import read_state_dict
from kd_core.front import main as front

ALONE = """
data = dict(type="kd_cls.data.synthetic", num_train=24, num_test=9, num_classes=3, image_size=8,
            batch_size=8)
student = dict(network=dict(type="kd_cls.models.build_model", name="tiny"))
optimizer = dict(type="torch.optim.SGD", lr=0.2, momentum=0.9)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=2, loggers=[])
"""
TEACHER = """
_base_ = "alone.py"
teacher = dict(network=dict(type="tiny_nets.Dropping"), weights="random")
"""
DKD = """
_base_ = "teacher.py"
distiller = dict(terms=dict(dkd=dict(criterion=dict(type="kd_core.criteria.dkd.DKD"))))
"""
FITNET = """
_base_ = "teacher.py"
distiller = dict(
    terms=dict(
        fitnet=dict(
            criterion=dict(type="kd_core.criteria.fitnet.FitNet"), student="layer2", teacher="hint"
        ),
    ),
)
"""
KD_AND_FITNET = """
_base_ = "fitnet.py"
distiller = dict(
    task_weight=0.5,
    terms=dict(kd=dict(criterion=dict(type="kd_core.criteria.kd.KD"), weight=0.9)),
)
"""
RECIPE = """
_base_ = "dkd.py"
teacher = dict(_delete_=True, config="alone.py")
student = dict(network=dict(name="tiny"))
"""
PHASES = """
_base_ = "fitnet.py"
phases = dict(
    hint=dict(trainer=dict(epochs=1), distiller=dict(task_weight=0.0)),
    kd=dict(
        student=dict(weights="phase:hint"),
        distiller=dict(
            terms=dict(
                kd=dict(criterion=dict(type="kd_core.criteria.kd.KD")),
                fitnet=dict(weights="phase:hint/criteria/fitnet.pth"),
            )
        ),
    ),
)
"""
CONFIGS = {
    "alone": ALONE,
    "teacher": TEACHER,
    "dkd": DKD,
    "fitnet": FITNET,
    "kd_and_fitnet": KD_AND_FITNET,
    "recipe": RECIPE,
    "phases": PHASES,
}
NETS = """
from torch import nn

class Dropping(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.hint = nn.Sequential(nn.Conv2d(6, 12, 3, stride=2, padding=1), nn.Dropout(0.5))
        self.head = nn.Linear(12, num_classes)

    def forward(self, image):
        return self.head(self.hint(self.stem(image)).mean((2, 3)))
"""
RUN = {
    "config.json",
    "config.py",
    "environment.json",
    "log.jsonl",
    "last.pth",
    "best.pth",
    "student.pth",
    "student.safetensors",
    "result.json",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in a folder with the configs."""
    for name, text in CONFIGS.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "tiny_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def runs(monkeypatch):
    """Note every training run: folder, distiller, and the teachers' states before and after."""
    noted, original = [], runner.run

    def run(trainer, parts, facts):
        teachers = {name: t.model for name, t in parts.distiller.teachers.items()}
        states = [{name: copied(model) for name, model in teachers.items()}]
        result = original(trainer, parts, facts)
        states.append({name: copied(model) for name, model in teachers.items()})
        noted.append((trainer.work_dir.name.partition("-")[0], parts, states))
        return result

    monkeypatch.setattr(runner, "run", run)
    return noted


def copied(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def read(path):
    return json.loads(Path(path).read_text())


def log(path):
    return [json.loads(line) for line in Path(path, "log.jsonl").read_text().splitlines()]


def tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors(item)


class TestAlone:
    @pytest.fixture(autouse=True)
    def trained(self, capsys):
        arguments = ["alone.py", "--cfg-options", "trainer.epochs=4", "trainer.keep_every=2"]
        assert train.main(arguments) == 0
        self.out = capsys.readouterr().out

    def test_folder_holds_everything_about_the_run(self):
        files = {path.name for path in Path("runs/alone").iterdir()}
        assert files == RUN | {"epoch_0002.pth", "epoch_0004.pth"}
        config = load_config("alone.py", {"trainer.epochs": 4, "trainer.keep_every": 2})
        assert load_config("runs/alone/config.py") == {**config, "seed": 0}
        assert {"packages", "device", "commit"} <= read("runs/alone/environment.json").keys()

    def test_result_has_the_last_and_the_best_epoch(self):
        result, records = read("runs/alone/result.json"), log("runs/alone")
        assert result["last"]["epoch"] == 4
        assert result["last"]["top1"] == records[-1]["top1"]
        assert result["best"]["top1"] == max(record["top1"] for record in records)
        assert result["best"]["chosen_on"] == "test data"
        assert result["seed"] == result["data_seed"] == 0
        assert "best on test data" in self.out

    def test_it_learns(self):
        losses = [record["loss_ce"] for record in log("runs/alone")]
        assert len(losses) == 4
        assert losses[-1] < losses[0] / 2

    def test_the_plain_network_loads_the_student(self):
        network = build_model("tiny", num_classes=3)
        network.load_state_dict(torch.load("runs/alone/student.pth", weights_only=True))
        assert same(network.state_dict(), read_state_dict("runs/alone/student.safetensors"))

    def test_nothing_is_overwritten(self, capsys):
        assert train.main(["alone.py", "--work-dir", "runs/alone"]) == 2
        assert "has a run already; add --resume" in capsys.readouterr().err
        assert train.main(["alone.py", "--cfg-options", "trainer.epochs=1"]) == 0
        assert read("runs/alone-2/result.json")["epochs"] == 1
        assert read("runs/alone/result.json")["epochs"] == 4

    def test_a_resumed_run_ends_as_if_it_had_not_stopped(self, capsys):
        Path("runs/stopped").mkdir()
        shutil.copy("runs/alone/epoch_0002.pth", "runs/stopped/last.pth")
        shutil.copy("runs/alone/config.json", "runs/stopped/config.json")
        arguments = ["alone.py", "--cfg-options", "trainer.epochs=4"]
        assert train.main([*arguments, "--work-dir", "runs/stopped", "--resume"]) == 0
        assert "after 2 epochs" in capsys.readouterr().err
        ends = [torch.load(f"runs/{name}/student.pth") for name in ("alone", "stopped")]
        assert same(*ends)

    def test_a_finished_run_is_not_trained_again(self, runs):
        arguments = ["alone.py", "--work-dir", "runs/alone", "--resume"]
        assert train.main([*arguments, "--cfg-options", "trainer.epochs=4"]) == 0
        assert runs == []


class TestDistillation:
    @pytest.fixture(params=["dkd", "kd_and_fitnet"])
    def name(self, request):
        return request.param

    def test_every_term_is_trained_and_logged(self, name):
        assert train.main([f"{name}.py"]) == 0
        terms = {"dkd": {"dkd"}, "kd_and_fitnet": {"kd", "fitnet"}}[name]
        losses = {key for key in log(f"runs/{name}")[0] if key.startswith("loss_")}
        assert losses == {"loss_ce", *(f"loss_{term}" for term in terms)}
        assert (terms == {"dkd"}) != Path(f"runs/{name}/criteria/fitnet.pth").is_file()

    def test_the_teacher_s_own_accuracy_is_told(self, capsys):
        assert train.main(["dkd.py"]) == 0
        top1 = read("runs/dkd/result.json")["teachers"]["teacher"]["top1"]
        assert f"teacher 'teacher': top1 {top1:.2f} on the test set" in capsys.readouterr().err

    def test_the_teacher_does_not_change(self, name, runs):
        assert train.main([f"{name}.py"]) == 0
        ((_, parts, (before, after)),) = runs
        assert same(before["teacher"], after["teacher"])
        teacher = parts.distiller.teachers["teacher"]
        batch = next(parts.loader.epoch(0))
        parts.distiller.train()
        first, second = (teacher.model(batch) for _ in range(2))
        assert torch.equal(first, second)  # though it has dropout
        assert not any(module.training for module in teacher.model.modules())

    def test_the_teacher_is_in_no_file(self, name, runs):
        assert train.main([f"{name}.py", "--cfg-options", "trainer.ema=0.5"]) == 0
        weights = [value for value in runs[0][2][0]["teacher"].values() if value.dim() > 1]
        files = list(Path("runs").glob("**/*.pth"))
        assert len(files) == (3 if name == "dkd" else 4)
        for file in files:
            saved = torch.load(file, weights_only=True)
            assert not any("teacher" in key for key in saved.get("distiller", saved))
            for tensor in tensors(saved):
                assert not any(torch.equal(tensor, weight) for weight in weights)

    def test_a_teacher_of_other_classes_is_not_measured(self, capsys):
        options = ["teacher.network.num_classes=5"]
        assert train.main(["fitnet.py", "--cfg-options", *options]) == 0
        assert "teacher 'teacher': knows other classes" in capsys.readouterr().err
        assert read("runs/fitnet/result.json")["teachers"] == {}

    def test_a_teacher_is_trained_by_its_recipe_first_and_once(self, runs, capsys):
        assert train.main(["recipe.py"]) == 0
        assert train.main(["recipe.py", "--seeds", "3"]) == 0
        assert [name for name, _, _ in runs] == ["teacher", "recipe", "recipe"]
        assert "done before, using runs/teachers/teacher-" in capsys.readouterr().err
        (made,) = Path("runs/teachers").iterdir()
        assert read(made / "result.json")["seed"] == 0
        state = runs[2][2][0]["teacher"]
        trained = torch.load(made / "student.pth", weights_only=True)
        assert torch.equal(state["network.conv1.weight"], trained["conv1.weight"])

    def test_a_recipe_s_teacher_does_not_depend_on_the_student_s_seed(self):
        assert train.main(["recipe.py", "--seeds", "3", "--work-dir", "a/run"]) == 0
        assert train.main(["recipe.py", "--seeds", "4", "--work-dir", "b/run"]) == 0
        one, other = (torch.load(path) for path in Path().glob("[ab]/teachers/*/student.pth"))
        assert same(one, other)

    def test_a_misspelt_tap_is_found_before_the_teacher_is_trained(self, runs, capsys):
        options = ["distiller.terms.dkd.student=fcc"]
        assert train.main(["recipe.py", "--cfg-options", *options]) == 2
        assert "did you mean 'fc'" in capsys.readouterr().err
        assert runs == []

    def test_a_rule_for_no_parameter_is_found_before_the_teacher_is_trained(self, runs, capsys):
        options = ["optimizer.groups=[{'names':'student.fcc.*','lr':1.0}]"]
        assert train.main(["recipe.py", "--cfg-options", *options]) == 2
        assert "optimizer.groups.0: names 'student.fcc.*'" in capsys.readouterr().err
        assert runs == []

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            (
                "trainer.hooks=[{'type':'own_losses.Forgets'}]",
                "Forgets has a state_dict and no load",
            ),
            (
                "trainer.hooks=[{'type':'own_losses.Lacks'}]",
                "trainer.hooks.0: .*no attribute 'key'",
            ),
            ("trainer.loggers=[{'type':'own_losses.NoKey'}]", "trainer.loggers.0: .*no key"),
            ("trainer.activation_checkpointing=['fcc']", "trainer.activation_check.*'fcc'"),
            ("trainer.teacher_cache=/dev/null/kept", "/dev/null/kept"),
            ("optimizer={'type':'own_losses.Rateless','_delete_':True}", "keeps no `lr`"),
        ],
    )
    def test_what_the_trainer_refuses_is_found_before_the_teacher_is_trained(
        self, option, message, runs, capsys, monkeypatch
    ):
        assert train_with(option, monkeypatch) == 2
        assert re.search(message, capsys.readouterr().err)
        assert runs == []

    @pytest.mark.parametrize(
        ("own", "message"),
        [
            ("EachImage", r"EachImage returned a loss of shape \[\d+\]"),
            ("Fails", "KeyError: 'gone'"),
        ],
    )
    def test_a_criterion_that_fails_is_found_before_the_teacher_is_trained(
        self, own, message, runs, capsys, monkeypatch
    ):
        assert train_by(own, monkeypatch) > 0
        assert re.search(message, capsys.readouterr().err)
        assert runs == []

    def test_a_criterion_may_ask_for_gradients_in_that_trial(self, runs, monkeypatch):
        assert train_by("Slope", monkeypatch) == 0
        assert [name for name, _, _ in runs] == ["teacher", "recipe"]


def train_by(criterion, monkeypatch):
    """Train with a criterion of `OWN_LOSSES`."""
    node = f"{{'type':'own_losses.{criterion}','_delete_':True}}"
    return train_with(f"distiller.terms.dkd.criterion={node}", monkeypatch)


def train_with(option, monkeypatch):
    """Train with an option that may name what is in `OWN_LOSSES`."""
    Path("own_losses.py").write_text(OWN_LOSSES)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    monkeypatch.delitem(sys.modules, "own_losses", raising=False)
    return train.main(["recipe.py", "--cfg-options", option])


OWN_LOSSES = """
import torch
from kd_core import Criterion, Hook
from kd_core.training.loggers import Logger


class Forgets(Hook):
    def state_dict(self):
        return {"seen": 1}


class Lacks(Hook):
    def __init__(self):
        self.key


class NoKey(Logger):
    def __init__(self):
        raise ValueError("no key for the service")


class Rateless(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {})

    def step(self, closure=None):
        pass


class EachImage(Criterion):
    takes = "logits"

    def forward(self, student, teacher, batch):
        return (student - teacher).square().mean(1)


class Fails(EachImage):
    def forward(self, student, teacher, batch):
        return batch["gone"]


class Slope(EachImage):
    def forward(self, student, teacher, batch):
        (slope,) = torch.autograd.grad(student.logsumexp(1).sum(), student, create_graph=True)
        return slope.square().mean()
"""


class TestStages:
    def test_run_in_order_each_on_the_product_of_the_one_before(self, runs):
        assert train.main(["phases.py"]) == 0
        assert [name for name, _, _ in runs] == ["hint", "phases"]
        (hint,) = Path("runs/phases").glob("hint-*")
        assert log(hint)[0].keys() >= {"loss_fitnet"}
        assert "loss_ce" not in log(hint)[0]
        assert "loss_kd" in log("runs/phases")[0]
        config = load_config("runs/phases/config.py")
        assert config["student"]["weights"] == str(hint / "student.pth")
        weights = config["distiller"]["terms"]["fitnet"]["weights"]
        assert weights == str(hint / "criteria/fitnet.pth")

    def test_that_are_done_are_skipped(self, runs, capsys):
        assert train.main(["phases.py"]) == 0
        Path("runs/phases/result.json").unlink()
        assert train.main(["phases.py", "--resume"]) == 0
        assert [name for name, _, _ in runs] == ["hint", "phases", "phases"]
        assert "phase hint: done before" in capsys.readouterr().err

    def test_a_rule_of_the_last_for_no_parameter_is_found_before_the_first(self, runs, capsys):
        options = ["phases.kd.optimizer={'groups':[{'names':'student.fcc.*','lr':1.0}]}"]
        assert train.main(["phases.py", "--cfg-options", *options]) == 2
        assert "optimizer.groups.0: names 'student.fcc.*'" in capsys.readouterr().err
        assert runs == []

    def test_a_misspelt_tap_of_the_last_is_found_before_the_first(self, runs, capsys):
        options = ["phases.kd.distiller.terms.kd.student=fcc"]
        assert train.main(["phases.py", "--cfg-options", *options]) == 2
        assert "did you mean 'fc'" in capsys.readouterr().err
        assert runs == []


class TestSeeds:
    def test_are_summarised(self, capsys):
        assert train.main(["alone.py", "--seeds", "0", "1"]) == 0
        summary = read("runs/alone/summary.json")
        results = [read(f"runs/alone/seed-{seed}/result.json") for seed in (0, 1)]
        mean = sum(result["last"]["top1"] for result in results) / 2
        assert summary["last"]["top1"]["mean"] == pytest.approx(mean, abs=1e-5)
        assert summary["seeds"] == [0, 1]
        assert "±" in capsys.readouterr().out
        one, other = (torch.load(f"runs/alone/seed-{seed}/student.pth") for seed in (0, 1))
        assert not same(one, other)

    def test_that_are_finished_are_not_run_again(self, runs):
        assert train.main(["alone.py", "--seeds", "0"]) == 0
        assert train.main(["alone.py", "--seeds", "0", "1", "--work-dir", "both"]) == 0
        shutil.rmtree("both/seed-1")
        assert train.main(["alone.py", "--seeds", "0", "1", "--work-dir", "both", "--resume"]) == 0
        assert [name for name, _, _ in runs] == ["alone", "seed", "seed", "seed"]
        one, other = (torch.load(f"{name}/student.pth") for name in ("runs/alone", "both/seed-0"))
        assert same(one, other)

    def test_change_the_student_but_not_the_data_where_it_has_a_seed(self, runs):
        arguments = ["alone.py", "--seeds", "0", "1", "--cfg-options", "data_seed=7"]
        assert train.main(arguments) == 0
        first, second = (next(parts.loader.epoch(0))["index"] for _, parts, _ in runs)
        assert torch.equal(first, second)
        assert read("runs/alone/seed-1/result.json")["data_seed"] == 7


def test_a_validation_split_chooses_the_best_epoch():
    options = ["data.val_fraction=0.25", "trainer.epochs=3"]
    assert train.main(["alone.py", "--cfg-options", *options]) == 0
    result, records = read("runs/alone/result.json"), log("runs/alone")
    assert result["best"]["chosen_on"] == "validation split"
    chosen = max(records, key=lambda record: record["val_top1"])
    assert result["best"]["epoch"] == chosen["epoch"]
    assert "top1" not in records[0]
    assert result["last"]["epoch"] == 3


def test_programs_get_a_line_an_epoch_and_one_with_the_result(capsys):
    arguments = ["alone.py", "--json", "--seeds", "3", "4", "--cfg-options", "trainer.epochs=2"]
    assert train.main(arguments) == 0
    *epochs, result = map(json.loads, capsys.readouterr().out.splitlines())
    assert [line["run"] for line in epochs] == [f"runs/alone/seed-{n}" for n in (3, 3, 4, 4)]
    assert [line["record"] for line in epochs[:2]] == log("runs/alone/seed-3")
    assert (result["event"], result["work_dir"], result["seeds"]) == (
        "result",
        "runs/alone",
        [3, 4],
    )
    file = "runs/alone/seed-3/student.pth"
    assert train.main(["alone.py", "--json", "--eval-only", file]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["scores"]["top1"] == pytest.approx(epochs[1]["record"]["top1"])
    assert front.main(["list", "runs", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    wanted = {"task": "cls", "metric": "top1", "state": "finished", "done": 2, "of": 2}
    assert [wanted.items() <= run.items() for run in found] == [True, True]
    assert [run["seed"] for run in found] == [3, 4]


class TestEvaluation:
    def test_every_kind_of_checkpoint_can_be_evaluated(self, capsys):
        arguments = ["dkd.py", "--cfg-options", "trainer.ema=0.5"]
        assert train.main(arguments) == 0
        result = read("runs/dkd/result.json")
        for file in ("student.pth", "student.safetensors", "last.pth", "best.pth"):
            capsys.readouterr()
            assert train.main([*arguments, "--eval-only", f"runs/dkd/{file}"]) == 0
            scores = dict(map(str.split, capsys.readouterr().out.splitlines()))
            expected = result["best" if file == "best.pth" else "last"]
            for metric in ("top1", "top5", "cross_entropy", "ece"):
                assert float(scores[metric]) == pytest.approx(expected[metric], abs=1e-3)
            assert 0 <= float(scores["agreement_teacher"]) <= 100

    def test_nothing_is_trained_for_it(self, runs, capsys):
        assert train.main(["recipe.py", "--work-dir", "a/run"]) == 0
        runs.clear()
        arguments = ["recipe.py", "--eval-only", "a/run/student.pth"]
        assert train.main([*arguments, "--work-dir", "a/run"]) == 0
        assert train.main(arguments) == 2
        assert "is not trained; set teacher.weights, or --work-dir" in capsys.readouterr().err
        assert runs == []

    def test_a_misspelt_checkpoint_names_its_neighbour(self, capsys):
        Path("student.pth").touch()
        assert train.main(["alone.py", "--eval-only", "studnet.pth"]) == 2
        assert "did you mean 'student.pth'" in capsys.readouterr().err


class TestLooking:
    @pytest.mark.parametrize("name", ["alone", "kd_and_fitnet", "recipe", "phases"])
    def test_a_dry_run_takes_a_step_and_leaves_nothing(self, name, folder, capsys):
        before = set(folder.iterdir())
        assert train.main([f"{name}.py", "--dry-run"]) == 0
        shown = capsys.readouterr()
        assert shown.out.count("one training step done") == (2 if name == "phases" else 1)
        assert ("FitNet" in shown.err) == (name in ("kd_and_fitnet", "phases"))
        assert {path for path in folder.iterdir() if path.name != "__pycache__"} <= before

    def test_a_dry_run_needs_neither_data_nor_weights(self, monkeypatch):
        def refuse(*args, **kwargs):
            raise AssertionError("a download was tried")

        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
        Path("pretrained.py").write_text(
            """
_base_ = "dkd.py"
data = dict(_delete_=True, type="kd_cls.data.cifar10", root="nowhere", batch_size=4)
student = dict(
    network=dict(
        _delete_=True, type="torchvision.models.shufflenet_v2_x0_5", weights="DEFAULT"
    ),
    new_head=True,
)
teacher = dict(weights="nowhere.pth")
"""
        )
        assert train.main(["pretrained.py", "--dry-run"]) == 0

    def test_taps_are_listed_for_student_and_teacher(self, capsys):
        options = ["distiller.terms.fitnet.student=misspelt"]
        arguments = ["kd_and_fitnet.py", "--list-taps", "--cfg-options", *options]
        assert train.main(arguments) == 0
        student, teacher = capsys.readouterr().out.split("teacher:")
        assert any("layer2 " in line and "[N, 32, 4, 4]" in line for line in student.splitlines())
        assert any(" hint " in line and "[N, 12, 4, 4]" in line for line in teacher.splitlines())
