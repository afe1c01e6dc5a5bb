"""The linear probe: only a new head is trained, whatever its name; the rest stays bit for bit."""

import json
from pathlib import Path

import pytest
import torch
import torchvision
from kd_cls import train
from kd_cls.classifier import LinearProbe
from kd_cls.data import synthetic
from kd_cls.networks import build_classifier
from kd_cls.student import load_student
from kd_core.errors import UserError
from kd_core.files.weights import read_state_dict
from kd_core.training.optimizer import build_optimizer

RECIPE = Path(__file__).parents[3] / "configs/cls/recipes/linear_probe.py"
PRETRAINING = """
data = dict(type="kd_cls.data.synthetic", num_train=24, num_test=8, num_classes=7, batch_size=8,
            image_size=16)
optimizer = dict(type="torch.optim.SGD", lr=0.01)
schedule = dict(type="kd_core.training.schedule.constant")
trainer = dict(epochs=1, loggers=[])
"""
DIGITS = """
data = dict(type="kd_cls.data.digits", train_per_class=4, batch_size=20)
schedule = dict(type="kd_core.training.schedule.cosine", warmup_epochs=1)
trainer = dict(epochs=1, loggers=[], eval_every=2)
"""
ZOO = "kd_cls.models.build_model"
HEADS = {"resnet8": "fc", "vgg8": "classifier", "MobileNetV2": "classifier.0", "ResNet18": "linear"}
"""Networks and what they call their heads."""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in an empty folder that has the data's configs."""
    monkeypatch.chdir(tmp_path)
    Path("pretraining.py").write_text(PRETRAINING)
    Path("digits.py").write_text(DIGITS)


def run(name, data, network, *recipes, options=()):
    Path("network.py").write_text(f"student = dict(network={network!r})\n")
    files = [data, "network.py", *map(str, recipes), "--work-dir", name]
    return train.main([*files, "--cfg-options", "seed=3", *options])


def probe(network, weights):
    short = ("trainer.epochs=2", "schedule.milestones=[1]")
    options = (f"student.weights={weights}", *short)
    return run("probe", "digits.py", network, RECIPE, options=options)


def weights_of(network, num_classes, path="weights.pth"):
    """Write a network with other statistics than a fresh one."""
    built = build_classifier(synthetic(num_classes=num_classes), "student", network=network)
    for layer in built.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    torch.save(built.network.state_dict(), path)
    return str(path)


def test_the_backbone_is_that_of_the_pretraining_bit_for_bit():
    network = {"type": ZOO, "name": "resnet8"}
    assert run("pretraining", "pretraining.py", network) == 0
    assert probe(network, "pretraining/student.safetensors") == 0
    before = read_state_dict("pretraining/student.pth")
    after = read_state_dict("probe/student.pth")
    assert after["fc.weight"].shape == (10, 64)
    assert before["fc.weight"].shape == (7, 64)
    names = [name for name in after if not name.startswith("fc.")]
    assert any("running_var" in name for name in names)
    assert [name for name in names if not torch.equal(before[name], after[name])] == []


def test_the_exported_probe_is_rebuilt_and_its_head_was_trained():
    network = {"type": ZOO, "name": "resnet8"}
    assert probe(network, weights_of(network, 7)) == 0
    student = load_student("probe")
    assert student({"image": torch.zeros(2, 3, 32, 32, dtype=torch.uint8)}).shape == (2, 10)
    log = [json.loads(line) for line in Path("probe/log.jsonl").read_text().splitlines()]
    assert log[-1]["loss_ce"] < log[0]["loss_ce"]


@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_found_whatever_its_name(name):
    network = {"type": ZOO, "name": name}
    file = weights_of(network, 7)
    data = synthetic(num_classes=5)
    built = build_classifier(data, "student", network=network, weights=file, linear_probe=True)
    trained = {path for path, p in built.network.named_parameters() if p.requires_grad}
    assert trained == {f"{HEADS[name]}.weight", f"{HEADS[name]}.bias"}
    assert built.network.get_submodule(HEADS[name]).out_features == 5
    state, own = read_state_dict(file), built.network.state_dict()
    assert all(torch.equal(state[path], own[path]) for path in own if path not in trained)


def test_only_the_head_is_in_the_optimizer_and_gets_a_gradient():
    network = {"type": "torchvision.models.mobilenet_v2"}
    file = weights_of(network, 7)
    data = synthetic(num_classes=5)
    built = build_classifier(data, "student", network=network, weights=file, linear_probe=True)
    optimizer = build_optimizer({"type": "torch.optim.SGD", "lr": 0.1}, built)
    parameters = optimizer.param_groups[0]["params"]
    assert [p.shape for p in parameters] == [(5, 1280), (5,)]
    features = []
    hook = built.network.features.register_forward_hook(lambda *seen: features.append(seen[2]))
    built.train()(data.train.sample(4))["ce"].backward()
    hook.remove()
    assert not features[0].requires_grad  # nothing runs backward through the backbone
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
    assert [path for path, p in built.named_parameters() if p.grad is not None] == [
        "network.classifier.1.weight",
        "network.classifier.1.bias",
    ]


def test_training_the_probe_leaves_the_network_in_evaluation():
    network = {"type": "torchvision.models.mobilenet_v2"}
    data = synthetic(num_classes=5)
    built = build_classifier(
        data, "student", network=network, weights="random", linear_probe=True
    ).train()
    assert isinstance(built, LinearProbe)
    assert built.training
    assert not any(module.training for module in built.network.modules())
    batch = data.train.sample(4)
    assert torch.equal(built(batch)["ce"], built(batch)["ce"])  # dropout is off


def test_a_pretrained_network_needs_no_file(monkeypatch):
    given = torchvision.models.shufflenet_v2_x0_5().state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: given)
    network = {"type": "torchvision.models.shufflenet_v2_x0_5", "weights": "DEFAULT"}
    built = build_classifier(
        synthetic(num_classes=5), "student", network=network, linear_probe=True
    )
    assert torch.equal(built.network.conv1[0].weight, given["conv1.0.weight"])
    assert built.network.fc.out_features == 5


def test_a_network_that_nobody_trained_is_refused(capsys):
    assert run("probe", "digits.py", {"type": ZOO, "name": "resnet8"}, RECIPE) == 2
    assert "student: linear_probe: the network was not trained" in capsys.readouterr().err


def test_a_file_of_another_network_is_refused():
    file = weights_of({"type": ZOO, "name": "resnet14"}, 7)
    with pytest.raises(UserError, match=r"student: .*weights\.pth: does not fit"):
        build_classifier(
            synthetic(num_classes=5),
            "student",
            network={"type": ZOO, "name": "resnet8"},
            weights=file,
            linear_probe=True,
        )
