"""Two processes train one embedder, and search as one process does."""

import json

import pytest
from kd_reid import train
from kd_reid.synthetic.people import synthetic_people

CONFIG = """
data = dict(type="kd_reid.data.market1501", root="set", image_size=(32, 16), batch_size=8,
            instances=4)
student = dict(
    network=dict(type="kd_reid.models.build_model", name="osnet_x0_25"),
    bnneck=True,
    fixed_base_epochs=1,
    metric_losses=dict(triplet=dict(type="kd_reid.losses.BatchHardTriplet")),
)
optimizer = dict(type="torch.optim.Adam", lr=0.001)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=2, loggers=[], find_unused_parameters=True)
"""


def run(arguments):
    return train.main(arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, forks):
    """Train in two processes."""
    folder = tmp_path_factory.mktemp("ddp")
    people = {"num_train_ids": 5, "num_test_ids": 3, "num_cameras": 3, "images_per_camera": 3}
    synthetic_people(folder / "set", image_height=32, **people)
    (folder / "config.py").write_text(CONFIG)
    ranks = forks.start_ranks(run, ["config.py", "--work-dir", "run"], folder=folder)
    for status, said in [rank.end() for rank in ranks]:
        assert status == 0, said
    return folder


def test_what_two_processes_measured_is_what_one_measures(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    last = json.loads((folder / "run/result.json").read_text())["last"]
    assert train.main(["config.py", "--eval-only", "run/last.pth"]) == 0
    shown = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.strip())
    assert float(shown["mAP"]) == pytest.approx(last["mAP"], abs=0.1)
    assert float(shown["rank5"]) == pytest.approx(last["rank5"], abs=0.1)
