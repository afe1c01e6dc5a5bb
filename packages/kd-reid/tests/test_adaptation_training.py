"""Adaptation by the training tool: what it trains, what it must not touch, and how it resumes."""

import copy
import json
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.errors import UserError
from kd_core.files import checkpoint
from kd_core.training.ema import ModelAverage
from kd_core.training.hooks import Hook
from kd_core.training.trainer import Trainer
from kd_reid import train
from kd_reid.adaptation import unlabelled
from kd_reid.adaptation.clustering import OUTLIER, centroids
from kd_reid.adaptation.embedder import AdaptiveEmbedder
from kd_reid.data import market1501
from kd_reid.evaluation import Evaluation
from kd_reid.student import load_student
from kd_reid.synthetic.people import synthetic_people

SOURCE = """
data = dict(type="kd_reid.data.market1501", root="set", image_size=(32, 16), batch_size=8)
student = dict(network=dict(type="kd_reid.models.build_model", name="osnet_tiny"), bnneck=True)
optimizer = dict(type="torch.optim.Adam", lr=0.001)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=2, loggers=[])
evaluation = dict(distance="cosine")
"""
ADAPT = """
_base_ = "source.py"
_hidden = dict(
    _delete_=True,
    type="kd_reid.adaptation.unlabelled",
    of="kd_reid.data.market1501",
    arguments=dict(root="night"),
    image_size=(32, 16),
    batch_size=8,
    iterations=4,
    augment=[
        dict(
            type="kd_core.data.augment.Views",
            views=2 * [[dict(type="kd_core.data.augment.CropFlip", padding=2)]],
        )
    ],
)
phases = dict(
    source=dict(),
    adapt=dict(
        data=_hidden,
        student=dict(
            weights="phase:source/student.pth",
            adaptation=dict(k1=6, k2=3, pair_share=0.1, min_samples=2),
        ),
        trainer=dict(epochs=2, ema=0.9, ema_warmup=True, log_every=1),
    ),
)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder with two domains and the configs, and the run of adapt.py in it."""
    folder = tmp_path_factory.mktemp("adaptation")
    few = {"num_test_ids": 4, "num_cameras": 2, "images_per_camera": 4, "image_height": 32}
    synthetic_people(folder / "set", num_train_ids=4, **few)
    synthetic_people(folder / "night", num_train_ids=6, seed=1, domain="night", **few)
    (folder / "source.py").write_text(SOURCE)
    (folder / "adapt.py").write_text(ADAPT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train.main(["adapt.py", "--work-dir", "whole"]) == 0
    return folder


@pytest.fixture(autouse=True)
def folder(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


def read(path):
    return json.loads(Path(path).read_text())


def same(one, other):
    """Return whether nested values are equal bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def state(path):
    """Return the part of a checkpoint that does not tell the time."""
    whole = checkpoint.load(Path(path))
    return {key: whole[key] for key in ("distiller", "optimizer", "average", "rng", "epoch")}


def test_a_run_gives_ranks_before_and_after_and_a_student_to_search_with():
    result = read("whole/result.json")
    source = next(Path("whole").glob("source-*"))
    assert {"rank1", "mAP", "source_rank1", "source_mAP"} <= result["last"].keys()
    assert result["last"]["mAP"] != result["last"]["source_mAP"]
    record = json.loads(Path("whole/log.jsonl").read_text().splitlines()[-1])
    wanted = {"loss_id", "loss_soft", "loss_multi_similarity", "loss_nuclear_norm", "clusters"}
    assert wanted <= record.keys()
    images = {"image": torch.zeros(2, 3, 32, 16, dtype=torch.uint8)}
    before, after = (load_student(run)(images).embedding for run in (source, "whole"))
    assert before.shape == after.shape
    assert not torch.allclose(before, after)


def test_the_ranks_before_are_those_of_the_source_network_on_the_target():
    (source,) = Path("whole").glob("source-*")
    target = market1501(root="night", image_size=(32, 16), batch_size=8)
    expected = Evaluation(target, distance="cosine")(load_student(source))
    found = read("whole/result.json")["last"]
    for name in ("rank1", "mAP"):
        assert found[f"source_{name}"] == pytest.approx(expected[name])


def test_the_files_of_a_run_can_be_evaluated(capsys):
    assert train.main(["adapt.py", "--eval-only", "whole/student.pth"]) == 0
    shown = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.strip())
    assert float(shown["mAP"]) == pytest.approx(read("whole/result.json")["last"]["mAP"], abs=1e-3)
    assert "source_mAP" not in shown


class Stop(Hook):
    """Leaves an adaptation after so many steps, as a signal would."""

    def __init__(self, steps):
        self.steps = steps

    def after_step(self, trainer):
        if isinstance(trainer.distiller.student, AdaptiveEmbedder):
            trainer.stop.signum = signal.SIGTERM * (trainer.steps_done == self.steps)


@pytest.mark.parametrize("steps", [4, 6])  # between epochs, and inside the second
def test_a_resumed_run_equals_an_uninterrupted_one(steps, monkeypatch, tmp_path):
    run = ["adapt.py", "--work-dir", str(tmp_path / "run"), "--resume"]
    (source,) = Path("whole").glob("source-*")
    shutil.copytree(source, tmp_path / "run" / source.name)
    begin = Trainer.train

    def cut(trainer):
        trainer.hooks.append(Stop(steps))
        begin(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train", cut)
        with pytest.raises(SystemExit):
            train.main(run)
    assert not (tmp_path / "run/result.json").exists()
    assert train.main(run) == 0
    assert same(state(tmp_path / "run/last.pth"), state("whole/last.pth"))
    assert read(tmp_path / "run/result.json")["last"] == read("whole/result.json")["last"]


def test_another_source_or_adaptation_is_refused_on_resume(capsys):
    before = Path("whole/result.json").read_bytes()
    run = ["adapt.py", "--work-dir", "whole", "--resume"]
    assert train.main(run) == 0
    phases = read("whole/config.json")["config"]["phases"]
    assert list(phases) == ["source"]
    assert train.main([*run, "--cfg-options", "trainer.epochs=3"]) == 2
    assert "phases.source.trainer.epochs is" in capsys.readouterr().err
    assert train.main([*run, "--cfg-options", "optimizer.lr=0.7"]) == 2
    assert "optimizer.lr is" in capsys.readouterr().err
    assert Path("whole/result.json").read_bytes() == before


def hidden(**arguments):
    settings = {"image_size": (32, 16), "batch_size": 8, "iterations": 4}
    given = {"of": "kd_reid.data.market1501", "arguments": {"root": "night"}}
    return unlabelled(**{**settings, **given, **arguments})


def student(data=None, **adaptation):
    """Return a student whose average is itself as it is now, before its first epoch."""
    torch.manual_seed(0)
    settings = {"k1": 6, "k2": 3, "pair_share": 0.1, "min_samples": 2, **adaptation}
    (source,) = Path("whole").glob("source-*")
    made = AdaptiveEmbedder(load_student(source), data or hidden(), **settings)
    average = ModelAverage(made.network, 0.9)
    made.set_ema(average.network)
    return made.train(), average


def test_no_identity_of_the_target_is_seen():
    data = hidden()
    assert data.labels.unique().tolist() == [OUTLIER]
    assert len(data.in_order().epoch(0).__next__()["label"]) == 8
    seen = [batch["label"].unique().tolist() for batch in data.train.epoch(0)]
    assert seen == [[OUTLIER]] * 4


def test_the_classifiers_rows_become_the_centres_of_the_clusters():
    made, average = student()
    made.begin_epoch(0)
    with torch.no_grad():
        teacher = made._teacher[0]
        rows = [teacher(batch).embedding for batch in made.data.in_order().epoch(0)]
    expected = centroids(F.normalize(torch.cat(rows)), made.label)
    for network in (made.network, average.network):
        weight = network.classifier.linear.weight
        torch.testing.assert_close(weight[: len(expected)], expected)
        assert not weight[len(expected) :].any()
    assert made.training_metrics()["clusters"] == len(expected) >= 2


def test_the_teacher_is_moved_by_the_average_alone():
    made, average = student()
    made.begin_epoch(0)
    before = copy.deepcopy(average.network.state_dict())
    losses = made(next(made.data.train.epoch(0)))
    sum(losses.values()).backward()
    assert same(before, average.network.state_dict())
    assert all(parameter.grad is None for parameter in average.network.parameters())
    assert sum(p.grad.abs().sum() > 0 for p in made.network.parameters() if p.grad is not None) > 9
    assert not average.network.training
    assert not any("teacher" in name or "average" in name for name in made.state_dict())


def test_of_two_views_the_student_sees_one_and_the_average_the_other():
    made, average = student()
    made.begin_epoch(0)
    batch, seen = next(made.data.train.epoch(0)), []
    other = 255 - batch["image"]
    for network in (made.network, average.network):
        network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    made({**batch, "index": batch["index"].repeat(2), "num_views": 2,
          "image": torch.cat([batch["image"], other])})  # fmt: skip
    assert torch.equal(seen[0], made.prepare(batch["image"]))
    assert torch.equal(seen[1], made.prepare(other))


def test_the_losses_are_those_of_the_paper():
    made, _ = student()
    made.begin_epoch(0)
    batch = next(made.data.train.epoch(0))
    with torch.no_grad():
        plain = student(made.data, soft_weight=0.25, similarity_weight=1.0, nuclear_weight=1.0)[0]
        plain.begin_epoch(0)
        given, other = made(batch), plain(batch)
    factors = {"id": 0.5 / 0.75, "soft": 2, "multi_similarity": 3, "nuclear_norm": 1.5}
    assert given.keys() == factors.keys()
    for name, factor in factors.items():
        torch.testing.assert_close(given[name], factor * other[name])
    assert given["id"] > 0 > given["nuclear_norm"]


def test_the_radius_of_the_first_epoch_stays_and_clusters_do_not():
    made, average = student()
    made.begin_epoch(0)
    radius, label = made.radius.clone(), made.label.clone()
    with torch.no_grad():
        for weight in average.network.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    made.begin_epoch(0)  # as after a resume inside the epoch
    assert torch.equal(made.label, label)
    made.begin_epoch(1)
    assert not torch.equal(made.label, label)
    assert torch.equal(made.radius, radius)


def test_without_a_moving_average_the_error_names_the_setting():
    made, _ = student()
    made._teacher = []
    with pytest.raises(UserError, match=r"set trainer\.ema"):
        made.begin_epoch(0)


def test_the_average_of_a_warm_up_is_that_of_all_weights_so_far():
    network = torch.nn.Linear(1, 1, bias=False)
    average = ModelAverage(network, 0.75, warmup=True)
    seen = []
    for step, weight in enumerate([4.0, 2.0, 9.0, 1.0, 5.0]):
        with torch.no_grad():
            network.weight.fill_(weight)
        average.update(network, step)
        seen.append(average.network.weight.item())
    assert seen == pytest.approx([4, 3, 5, 4, 0.75 * 4 + 0.25 * 5])


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr("kd_core.runtime.distributed.is_distributed", lambda: True)
    with pytest.raises(UserError, match="one process"):
        hidden()


def test_a_set_that_takes_no_such_argument_is_named():
    with pytest.raises(UserError, match=r"'rooot'.*root"):
        hidden(arguments={"rooot": "night"})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["phases.adapt.student.adaptation.k3=1"], "adaptation.*no parameter 'k3'"),
        (["phases.adapt.student.adaptation.soft_weight=2"], "soft_weight: wanted .* got 2"),
        (["phases.adapt.student.adaptation=None"], r"no labels; give it adaptation=dict\(\)"),
        (["student.adaptation={}"], r"set data\.type to kd_reid\.adaptation"),
        (["phases.adapt.student.adaptation=True"], "adaptation: wanted a dict, got True"),
        (["student.bnneck=False", "student.network.name=pcb_p6"], "wanted a linear layer"),
        (
            ["student.metric_losses={'t': {'type': 'kd_reid.losses.BatchHardTriplet'}}"],
            "leave t out",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(options, text, tmp_path, capsys):
    run = ["adapt.py", "--work-dir", str(tmp_path / "run"), "--dry-run", "--cfg-options", *options]
    assert train.main(run) == 2
    assert re.search(text, " ".join(capsys.readouterr().err.split()))
