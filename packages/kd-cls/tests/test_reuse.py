"""A finished run, seed, phase or teacher is reused only when its config is the one asked for."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from kd_cls import compare, train
from kd_core.files import checkpoint
from kd_core.training.step import TrainStep

TINY = """
data = dict(
    type="kd_cls.data.synthetic", num_train=16, num_test=8, num_classes=3, image_size=8,
    batch_size=8, augment=[]
)
student = dict(network=dict(type="kd_cls.models.build_model", name="tiny"))
optimizer = dict(type="torch.optim.SGD", lr=0.1, momentum=0.9)
schedule = dict(type="kd_core.training.schedule.constant")
trainer = dict(epochs=2, loggers=[])
"""
RECIPE = '_base_ = "tiny.py"\ntrainer = dict(epochs=1)\n'
KD = """
_base_ = "tiny.py"
teacher = dict(config="recipe.py")
distiller = dict(terms=dict(kd=dict(criterion=dict(type="kd_core.criteria.kd.KD"))))
"""
PHASES = """
_base_ = "tiny.py"
phases = dict(
    first=dict(trainer=dict(epochs=1)),
    second=dict(student=dict(weights="phase:first"), trainer=dict(epochs=1)),
)
"""
FILES = {"tiny": TINY, "recipe": RECIPE, "kd": KD, "phases": PHASES}
STEPS = 2  # of an epoch


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(f"{name}.py").write_text(text)


@pytest.fixture
def steps(monkeypatch):
    """Note every step; a number in `stop` is the step at which Ctrl-C comes."""
    taken, stop, call = [], [], TrainStep.__call__

    def count(self, batches):
        if len(taken) in stop:
            stop.clear()
            raise KeyboardInterrupt
        taken.append(call(self, batches))
        return taken[-1]

    monkeypatch.setattr(TrainStep, "__call__", count)
    return taken, stop


def run(*options, config="tiny", seeds=(), flags=("--resume",), work_dir="runs/run"):
    chosen = ["--seeds", *map(str, seeds)] if seeds else []
    changed = ["--cfg-options", *options] if options else []
    return train.main([f"{config}.py", "--work-dir", work_dir, *chosen, *flags, *changed])


def result(folder="runs/run"):
    return json.loads(Path(folder, "result.json").read_text())


def weights(folder):
    return torch.load(Path(folder, "student.pth"), weights_only=True)


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


class TestAnotherConfig:
    def test_is_refused_by_a_finished_run_naming_key_and_both_values(self, steps, capsys):
        assert run(config="kd") == 0
        taken, before = len(steps[0]), Path("runs/run/result.json").read_bytes()
        for option, shown in {
            "optimizer.lr=0.2": "optimizer.lr is 0.1 there and 0.2 here",
            "optimizer.type=torch.optim.RMSprop": "'torch.optim.SGD' there and 'torch.optim.RMSp",
            "distiller.terms.kd.criterion.temperature=2": "temperature is not set there and 2 here",
            "distiller.terms.kd.criterion.type=kd_core.criteria.dkd.DKD": "criteria.kd.KD' there",
            "trainer.precision=bf16": "trainer.precision is 'fp32' there and 'bf16' here",
            "trainer.eval_every=2": "trainer.eval_every",
            "teacher.weights=random": "teacher.weights is not set there and 'random' here",
            "teacher.size=16": "teacher.size",
            "seed=1": "seed is 0 there and 1 here",
            "data.batch_size=4": "data.batch_size is 8 there and 4 here",
        }.items():
            capsys.readouterr()
            assert run(option, config="kd") == 2, option
            said = capsys.readouterr()
            assert shown in said.err
            assert "name another --work-dir, or the old values" in said.err
            assert said.err.count("\n") == 1
            assert not said.out
        assert run(config="tiny") == 2
        assert "teacher.config" in capsys.readouterr().err
        assert len(steps[0]) == taken
        assert Path("runs/run/result.json").read_bytes() == before

    def test_is_refused_by_a_run_that_was_cut_off_too(self, steps, capsys):
        steps[1].append(STEPS)
        assert run() == 130
        assert run("optimizer.lr=0.2") == 2
        assert "optimizer.lr is 0.1 there and 0.2 here" in capsys.readouterr().err
        assert run() == 0

    def test_may_differ_in_what_cannot_change_the_result(self, steps, capsys):
        assert run() == 0
        taken = len(steps[0])
        options = ["trainer.loggers=None", "trainer.log_every=7", "trainer.save_every=5"]
        options += ["trainer.save_minutes=1", "trainer.keep_every=1", "trainer.precision=fp32"]
        assert run(*options, "trainer.capture=false") == 0
        assert len(steps[0]) == taken

    def test_of_a_recipe_is_another_teacher(self, steps, capsys):
        assert run(config="kd") == 0
        Path("recipe.py").write_text(RECIPE + "optimizer = dict(lr=0.3)\n")
        assert run(config="kd") == 2
        assert "teacher.config.optimizer.lr is 0.1 there and 0.3 here" in capsys.readouterr().err
        assert run(config="kd", work_dir="runs/other") == 0
        assert len(list(Path("runs/teachers").glob("teacher-*"))) == 2

    def test_of_a_file_of_weights_is_seen_by_its_content(self, capsys):
        assert run(work_dir="runs/first") == 0
        shutil.copy("runs/first/student.pth", "start.pth")
        assert run("student.weights=start.pth") == 0
        Path("start.pth").rename("moved.pth")
        assert run("student.weights=moved.pth") == 0
        assert run("student.weights=start.pth") == 0  # not there, but of that name
        changed = {name: value + 1 for name, value in weights("runs/first").items()}
        torch.save(changed, "start.pth")
        capsys.readouterr()
        assert run("student.weights=start.pth") == 2
        assert "student.weights is 'start.pth' (" in capsys.readouterr().err

    def test_of_a_file_in_the_home_folder_is_seen_too(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert run(work_dir="runs/first") == 0
        shutil.copy("runs/first/student.pth", "start.pth")
        assert run("student.weights=~/start.pth") == 0
        assert run("student.weights=start.pth") == 0
        torch.save({k: v + 1 for k, v in weights("runs/first").items()}, "start.pth")
        assert run("student.weights=~/start.pth") == 2
        assert "student.weights is '~/start.pth' (" in capsys.readouterr().err

    def test_of_a_checkpoint_is_seen_when_a_run_resumes_from_it(self, steps, capsys):
        for option in ("optimizer.lr=0.2", "seed=1"):
            assert run(option, work_dir=f"runs/{option}") == 0
        assert run() == 0
        whole = weights("runs/run")
        Path("runs/run/result.json").unlink()
        shutil.copy("runs/run/last.pth", "own.pth")
        for option in ("optimizer.lr=0.2", "seed=1"):
            shutil.copy(f"runs/{option}/last.pth", "runs/run/last.pth")
            capsys.readouterr()
            assert run() == 2
            assert "last.pth: is of another run" in capsys.readouterr().err.splitlines()[-1]
        shutil.copy("own.pth", "runs/run/last.pth")
        assert run("trainer.precision=fp32") == 0  # a default, said outright
        assert same(whole, weights("runs/run"))
        assert run("trainer.epochs=3") == 0
        assert result()["epochs"] == 3

    def test_of_an_earlier_stage_is_refused(self, capsys):
        assert run(config="phases") == 0
        assert run("phases.first.trainer.epochs=2", config="phases") == 2
        assert "phases.first.trainer.epochs is 1 there and 2 here" in capsys.readouterr().err
        assert run("phases.second.trainer.epochs=2", config="phases") == 0
        assert result()["epochs"] == 2


class TestEpochs:
    @pytest.mark.parametrize("schedule", ["constant", "cosine"])
    def test_more_than_were_trained_resume_from_the_checkpoint(self, steps, capsys, schedule):
        taken, option = steps[0], f"schedule.type=kd_core.training.schedule.{schedule}"
        assert run(option) == 0
        assert len(taken) == 2 * STEPS
        assert run(option, "trainer.epochs=3") == 0
        assert len(taken) == 3 * STEPS
        assert "resumes for 3 epochs, started with 2; the schedule is that of 3 from here on" in (
            " ".join(capsys.readouterr().err.split())
        )
        assert (result()["epochs"], result()["last"]["epoch"]) == (3, 3)
        assert run(option, "trainer.epochs=3", work_dir="runs/whole") == 0
        assert same(weights("runs/run"), weights("runs/whole")) == (schedule == "constant")
        assert run(option, "trainer.epochs=3") == 0
        assert len(taken) == 6 * STEPS  # all is finished

    def test_fewer_are_refused(self, capsys):
        assert run() == 0
        assert run("trainer.epochs=1") == 2
        said = capsys.readouterr().err
        assert "trainer.epochs is 1, but runs/run has trained for 2 epochs" in said
        assert run() == 0

    def test_may_grow_and_shrink_down_to_what_was_trained_while_a_run_is_cut_off(
        self, steps, capsys
    ):
        taken, stop = steps
        stop.append(2 * STEPS + 1)
        assert run("trainer.epochs=5", "trainer.save_minutes=0") == 130
        assert run("trainer.epochs=2") == 2
        assert "has trained for 2 epochs and 1 steps" in capsys.readouterr().err
        assert run("trainer.epochs=3") == 0
        assert len(taken) == 3 * STEPS
        assert result()["epochs"] == 3

    def test_that_were_not_reached_leave_the_old_result_open_to_its_own_config(self, steps):
        taken, stop = steps
        assert run() == 0
        stop.append(2 * STEPS)
        assert run("trainer.epochs=3") == 130
        assert run() == 0
        assert len(taken) == 2 * STEPS
        assert run("trainer.epochs=3") == 0
        assert len(taken) == 3 * STEPS

    def test_without_the_checkpoint_are_refused(self, capsys):
        assert run() == 0
        Path("runs/run/last.pth").unlink()
        assert run("trainer.epochs=3") == 2
        assert "has no last.pth, from which it could resume for 3" in capsys.readouterr().err


class TestSeeds:
    def test_are_never_averaged_over_two_configs(self, steps, capsys):
        assert run("optimizer.lr=0.2", seeds=[2], work_dir="runs/run/seed-2") == 0
        taken = len(steps[0])
        assert run(seeds=[0, 1, 2]) == 2
        assert "runs/run/seed-2 was made by another config: optimizer.lr" in capsys.readouterr().err
        assert len(steps[0]) == taken  # before the first seed was trained

    @pytest.mark.parametrize(
        ("seeds", "shown"),
        [((0, 1, 0), "--seeds names 0 twice"), ((-1,), "-1 is not a number from 0")],
    )
    def test_that_cannot_be_told_apart_are_refused(self, seeds, shown, capsys):
        assert run(seeds=seeds) == 2
        assert shown in capsys.readouterr().err
        assert compare.main(["tiny.py", "--sweep", "seed", "0", "--seeds", *map(str, seeds)]) == 2
        assert shown in capsys.readouterr().err
        assert not Path("runs").exists()

    def test_may_be_added_and_only_these_run(self, steps):
        assert run(seeds=[0, 1]) == 0
        assert run(seeds=[0, 1, 2]) == 0
        assert len(steps[0]) == 3 * 2 * STEPS
        summary = json.loads(Path("runs/run/summary.json").read_text())
        assert summary["seeds"] == [0, 1, 2]
        assert summary["last"]["top1"]["n"] == 3

    def test_may_be_added_to_a_run_of_one_and_taken_alone(self, steps):
        assert run(seeds=[4]) == 0
        assert run(seeds=[4, 5]) == 0
        assert len(steps[0]) == 2 * 2 * STEPS
        assert json.loads(Path("runs/run/summary.json").read_text())["seeds"] == [4, 5]
        assert run(seeds=[5]) == 0
        assert run(seeds=[4]) == 0
        assert len(steps[0]) == 2 * 2 * STEPS

    def test_together_are_compared_too(self, steps, capsys):
        flags = ("--share-teacher", "--resume")
        assert run("data_seed=0", seeds=[0, 1], flags=flags) == 0
        taken = len(steps[0])
        assert run("data_seed=0", "optimizer.lr=0.2", seeds=[0, 1], flags=flags) == 2
        assert "runs/run/seed-0 was made by another config" in capsys.readouterr().err
        assert len(steps[0]) == taken
        assert run("data_seed=0", "trainer.epochs=3", seeds=[0, 1], flags=flags) == 0
        assert len(steps[0]) == taken + 2 * STEPS
        assert result("runs/run/seed-1")["epochs"] == 3


class TestData:
    @pytest.fixture(autouse=True)
    def images(self, folder):
        from PIL import Image

        generator = torch.Generator().manual_seed(0)
        for root in ("one", "two"):
            for part in ("train", "test"):
                for name in ("a", "b"):
                    Path(root, part, name).mkdir(parents=True)
                    for number in range(4):
                        pixels = torch.randint(256, (8, 8, 3), generator=generator).byte()
                        image = Image.fromarray(pixels.numpy())
                        image.save(Path(root, part, name, f"{number}.png"))
        Path("tiny.py").write_text(
            TINY.replace(
                "num_train=16, num_test=8, num_classes=3,", 'root="one", resident=RESIDENT,'
            ).replace("kd_cls.data.synthetic", "kd_cls.data.image_folder")
        )

    @pytest.mark.parametrize("resident", ["True", "False"])
    def test_may_move_but_not_be_other_data(self, steps, capsys, resident):
        text = Path("tiny.py").read_text().replace("RESIDENT", resident)
        Path("tiny.py").write_text(text)
        assert run("data.workers=0") == 0
        taken = len(steps[0])
        assert run("data.root=two", "data.workers=0") == 2
        assert "runs/run was made from other data" in capsys.readouterr().err
        Path("one").rename("elsewhere")
        assert run("data.root=elsewhere", "data.workers=1") == 0
        assert len(steps[0]) == taken

    def test_that_changed_in_their_place_are_seen_when_training_resumes(self, steps, capsys):
        Path("tiny.py").write_text(Path("tiny.py").read_text().replace("RESIDENT", "True"))
        steps[1].append(1)
        assert run() == 130
        shutil.copy("two/train/a/0.png", "one/train/a/0.png")
        assert run() == 2
        assert "runs/run was made from other data" in capsys.readouterr().err


class TestFolders:
    def test_hold_the_config_as_data_before_anything_else(self, steps):
        steps[1].append(0)
        assert run(config="kd") == 130
        (teacher,) = Path("runs/teachers").iterdir()
        for folder in (Path("runs/run"), teacher):
            kept = checkpoint.load_json(folder / "config.json")
            assert kept["config"]["optimizer"]["lr"] == 0.1
            assert kept["config"]["seed"] == 0
        recipe = checkpoint.load_json(Path("runs/run/config.json"))["config"]["teacher"]["config"]
        assert recipe["trainer"]["epochs"] == 1

    def test_of_an_older_version_are_refused_and_their_config_is_not_run(self, capsys):
        assert run() == 0
        Path("runs/run/config.json").unlink()
        Path("runs/run/config.py").write_text("raise SystemExit(99)")
        assert run() == 2
        assert "but no config.json with its config" in capsys.readouterr().err

    @pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"config": 3}'])
    def test_with_a_damaged_config_are_refused(self, text, capsys):
        assert run() == 0
        Path("runs/run/config.json").write_text(text)
        assert run() == 2
        said = capsys.readouterr().err
        assert "runs/run/config.json: damaged" in said
        assert "start again in another folder" in said

    def test_of_a_teacher_whose_config_was_swapped_are_refused(self, capsys):
        assert run(config="kd") == 0
        (teacher,) = Path("runs/teachers").iterdir()
        shutil.copy("runs/run/config.json", teacher / "config.json")
        assert run(config="kd", work_dir="runs/other") == 2
        said = capsys.readouterr().err
        assert f"{teacher} was made by another config" in said
        assert f"move {teacher} elsewhere, and it is created again" in said

    def test_of_a_finished_teacher_without_its_weights_are_refused(self, capsys):
        assert run(config="kd") == 0
        (teacher,) = Path("runs/teachers").iterdir()
        (teacher / "student.safetensors").unlink()
        assert run(config="kd", work_dir="runs/other") == 2
        assert "but its student.safetensors is missing; move" in capsys.readouterr().err


class TestDamagedResults:
    @pytest.mark.parametrize("text", ["", "null", "{}", "[1]", '{"last": {}}'])
    def test_are_one_line_for_a_run_and_for_its_seeds(self, text, capsys):
        assert run(seeds=[0, 1]) == 0
        file = Path("runs/run/seed-1/result.json")
        file.write_text(text)
        for seeds in ([0, 1], [1]):
            assert run(seeds=seeds) == 2
            said = capsys.readouterr().err
            assert f"{file}: damaged" in said
            assert "move result.json elsewhere, and --resume creates it again" in said
        file.unlink()
        before = weights("runs/run/seed-1")
        assert run(seeds=[0, 1]) == 0
        assert same(before, weights("runs/run/seed-1"))

    def test_are_one_line_for_a_teacher(self, capsys):
        assert run(config="kd") == 0
        (file,) = Path("runs/teachers").glob("*/result.json")
        file.write_text("null")
        assert run(config="kd", work_dir="runs/other") == 2
        assert f"{file}: damaged" in capsys.readouterr().err

    def test_are_one_line_for_a_stage(self, capsys):
        assert run(config="phases") == 0
        Path("runs/run/result.json").unlink()
        (file,) = Path("runs/run").glob("first-*/result.json")
        file.write_text("{}")
        assert run(config="phases") == 2
        assert f"{file}: damaged" in capsys.readouterr().err

    def test_are_one_line_for_a_comparison(self, capsys):
        table = ["tiny.py", "--sweep", "optimizer.lr", "0.1", "0.2", "--seeds", "0", "1"]
        assert compare.main([*table, "--work-dir", "runs/table"]) == 0
        file = sorted(Path("runs/table").glob("*/seed-1/result.json"))[0]
        file.write_text("null")
        assert compare.main([*table, "--work-dir", "runs/table"]) == 2
        assert f"{file}: damaged" in capsys.readouterr().err


def test_rows_of_a_comparison_are_compared_by_their_whole_config(steps, capsys):
    table = [
        "tiny.py",
        "--sweep",
        "optimizer.lr",
        "0.1",
        "--seeds",
        "0",
        "--work-dir",
        "runs/table",
    ]
    assert compare.main(table) == 0
    taken = len(steps[0])
    assert compare.main([*table, "--cfg-options", "trainer.log_every=3"]) == 0
    assert len(steps[0]) == taken
    table[table.index("--seeds") + 1 : table.index("--work-dir")] = ["0", "1"]
    assert compare.main(table) == 0
    assert len(steps[0]) == 2 * taken
    (row,) = Path("runs/table").glob("optimizer_lr_0_1-*")
    kept = checkpoint.load_json(row / "config.json")
    kept["config"]["optimizer"]["lr"] = 0.3
    checkpoint.save_json(kept, row / "config.json")
    assert compare.main(table) == 2
    assert "optimizer.lr is 0.3 there and 0.1 here" in capsys.readouterr().err
