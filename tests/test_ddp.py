"""Two processes, as torchrun starts them, train one student."""

import json
import os
from pathlib import Path

import pytest
import torch
from kd_cls.train import main
from kd_core.errors import UserError
from kd_core.experiment import identity, runner
from kd_core.networks.task import network_of

CONFIG = """
data = dict(type="kd_cls.data.synthetic", num_train=26, num_test=7, num_classes=3, batch_size=8)
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"))
teacher = dict(network=dict(type="kd_cls.models.build_model", name="resnet14"), weights="random")
distiller = dict(terms=dict(kd=dict(criterion=dict(type="kd_core.criteria.kd.KD"))))
optimizer = dict(type="torch.optim.SGD", lr=0.05, momentum=0.9)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(
    epochs=3, ema=0.9, loggers=[], precision="fp16", early_stop=dict(patience=1, min_delta=100.0)
)
"""


def train_and_keep(*arguments):
    """Run the tool's `main`, and leave what this process ended with in a file of its rank."""
    run = runner.run

    def run_and_keep(trainer, parts, facts):
        result = run(trainer, parts, facts)
        state = {
            "student": network_of(trainer.distiller.student).state_dict(),
            "deployed": network_of(trainer.predictor()).state_dict(),
            "result": {name: result[name] for name in ("last", "best")},
            "scale": trainer.loss_scale.state_dict(),
            "history": [record["loss_ce"] for record in trainer.history],
        }
        torch.save(state, f"rank{os.environ['RANK']}.pt")
        return result

    runner.run = run_and_keep
    return main([*arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, forks):
    """Train in two processes; each leaves what it ended with."""
    folder = tmp_path_factory.mktemp("ddp")
    (folder / "config.py").write_text(CONFIG)
    arguments = "config.py", "--work-dir", "run"
    ranks = forks.start_ranks(train_and_keep, *arguments, folder=folder)
    for status, said in [rank.end() for rank in ranks]:
        assert status == 0, said
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("part", ["student", "deployed", "scale"])
def test_both_end_with_equal_weights_and_statistics(ranks, part):
    first, second = (state[part] for state in ranks)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_both_end_in_the_epoch_of_the_early_stop(ranks):
    assert [len(state["history"]) for state in ranks] == [2, 2]
    assert all(state["result"]["last"]["epoch"] == 2 for state in ranks)


def test_both_know_the_losses_and_metrics_of_all_data(ranks):
    assert ranks[0]["history"] == ranks[1]["history"]
    assert len(ranks[0]["history"]) == 2
    assert ranks[0]["result"] == ranks[1]["result"]
    # 7 test images in all: what is measured on 4 or 3 of them is another multiple
    assert round(ranks[0]["result"]["last"]["top1"] * 7 / 100, 4).is_integer()


def test_the_folder_is_written_once_and_holds_what_was_trained(folder, ranks):
    exported = torch.load(folder / "run" / "student.pth", weights_only=True)
    assert all(torch.equal(exported[name], value) for name, value in ranks[0]["deployed"].items())
    lines = (folder / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss_ce"] for line in lines] == ranks[0]["history"]
    assert Path(folder, "run", "result.json").is_file()


@pytest.mark.parametrize("check", ["check_config_of_all", "check_data_of_all"])
def test_processes_are_compared_before_they_train(tmp_path, monkeypatch, capsys, check):
    def refuses(_):
        raise UserError("rank 1 is another")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(identity, check, refuses)
    (tmp_path / "config.py").write_text(CONFIG)
    assert main(["config.py", "--work-dir", "run"]) == 2
    assert "error: rank 1 is another" in capsys.readouterr().err
    assert not (tmp_path / "run/last.pth").exists()


def test_data_that_moved_for_one_process_are_compared_by_all(tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr(runner, "recorded", lambda *run: {})
    monkeypatch.setattr(runner, "data_fingerprint", lambda data: data)
    monkeypatch.setattr(runner.Runner, "_data", lambda *run: "data")
    monkeypatch.setattr(identity, "check", lambda *of_this_rank: False)
    monkeypatch.setattr(identity, "finished", lambda *run: {"last": {}})
    monkeypatch.setattr(identity, "check_data", lambda *found: compared.append(found))
    for others in (False, True):
        monkeypatch.setattr(runner.distributed, "values_of_all", lambda own, o=others: [own, o])
        own = runner.Runner(None, torch.device("cpu"), tmp_path)
        assert own.finished(None, 0, tmp_path) == {"last": {}}
        assert compared == [(tmp_path, "data")] * others  # which waits for all
