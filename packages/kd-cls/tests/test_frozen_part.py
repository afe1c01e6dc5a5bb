"""A frozen part of a student: its BatchNorms are told of, or held."""

import torch
from kd_cls.classifier import Classifier
from kd_cls.models import build_model
from kd_cls.train import main

CONFIG = """
data = dict(type="kd_cls.data.synthetic", num_train=8, num_test=4, batch_size=4, image_size=8)
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"))
optimizer = dict(type="torch.optim.SGD", lr=0.01)
schedule = dict(type="kd_core.training.schedule.constant")
trainer = dict(epochs=1, loggers=[])
"""
FREEZE = 'optimizer.groups=[{"names": ["student.conv1.*", "student.bn1.*"], "frozen": True}]'


def train(folder, *options):
    (folder / "config.py").write_text(CONFIG)
    arguments = ["--work-dir", str(folder / "run"), "--cfg-options", FREEZE, *options]
    assert main([str(folder / "config.py"), *arguments]) == 0
    return torch.load(folder / "run/student.pth", weights_only=True)


def test_statistics_that_move_in_a_frozen_part_are_told_or_held(tmp_path, capsys):
    for name in ("moves", "held"):
        (tmp_path / name).mkdir()
    moved = train(tmp_path / "moves")
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("student: BatchNorm bn1 in a frozen part") == 1
    assert moved["bn1.running_mean"].any()
    held = train(tmp_path / "held", "student.hold_frozen_norms=True")
    assert "in a frozen part" not in capsys.readouterr().err
    assert not held["bn1.running_mean"].any()
    assert held["layer1.0.bn1.running_mean"].any()


def test_only_frozen_norms_are_held_and_only_while_they_are_frozen():
    network = build_model("resnet8", num_classes=3)
    classifier = Classifier(network, hold_frozen_norms=True).train()
    assert network.bn1.training
    network.bn1.requires_grad_(False)
    classifier.train()
    assert not network.bn1.training
    assert network.layer1[0].bn1.training
    network.bn1.requires_grad_(True)
    classifier.train()
    assert network.bn1.training
