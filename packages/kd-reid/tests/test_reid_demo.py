"""The demo ends with a table, a picture and numbers; here with few people and one epoch."""

import json
from pathlib import Path

import pytest
from kd_core.config.reading import load_config
from kd_core.experiment.parsing import read_experiment
from kd_reid import train
from kd_reid.adapter import ADAPTER
from PIL import Image

FEW = ["data.num_train_ids=10", "data.num_test_ids=6", "data.num_cameras=2"]
TINY = "student.network.name=osnet_tiny"
SHORT = [TINY, "trainer.epochs=1", "schedule.warmup_epochs=0", "data.batch_size=16", *FEW]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in a folder where nothing is, with a short recipe of the teacher."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KD_CACHE", str(tmp_path / "cache"))
    lines = [f"{name} = dict({value})" for name, value in RECIPE.items()]
    recipe = ADAPTER.demo_config.parent / "reid_teacher.py"
    Path("teacher.py").write_text("\n".join([f'_base_ = "{recipe}"', *lines]))


RECIPE = {
    "data": "num_train_ids=10, num_test_ids=6, num_cameras=2, batch_size=16",
    "trainer": "epochs=1",
    "schedule": "warmup_epochs=0",
    "student": "network=dict(name='osnet_tiny')",
}


def test_it_ends_with_a_table_a_picture_and_numbers(capsys):
    options = ["teacher.config=teacher.py", *SHORT]
    assert train.main(["--seeds", "0", "1", "--cfg-options", *options]) == 0
    shown = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown if "│" in line]
    assert [row[0] for row in rows] == ["teacher", "student", "student + KD"]
    assert all("±" in row[1] and "±" in row[2] for row in rows[1:])
    assert "synthetic people, last epoch, 2 seeds" in "\n".join(shown)
    with Image.open("runs/reid_demo/galleries.png") as image:
        assert image.size[0] > 1000
    numbers = json.loads(Path("runs/reid_demo/demo.json").read_text())
    assert numbers["students"].keys() == {"student", "student + KD"}
    assert numbers["teacher"]["last"]["rank1"] >= 0
    alone, distilled = (
        load_config(f"runs/reid_demo/{name}/seed-1/config.py") for name in ("student", "kd")
    )
    assert distilled.keys() - alone.keys() == {"teacher", "distiller"}
    assert all(distilled[name] == alone[name] for name in alone)


def test_its_configs_are_checked_as_users_are():
    experiment = read_experiment(ADAPTER, ADAPTER.demo_config)
    assert experiment.student["network"]["name"] == "osnet_x0_25"


def test_evaluation_needs_a_config(capsys):
    assert train.main(["--eval-only=x.pth"]) == 2
    assert "name a CONFIG" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "shown"), [("--dry-run", "step done"), ("--list-taps", "conv5")]
)
def test_it_can_be_looked_at(option, shown, capsys):
    assert train.main([option, "--cfg-options", "data.batch_size=8"]) == 0
    assert shown in capsys.readouterr().out
