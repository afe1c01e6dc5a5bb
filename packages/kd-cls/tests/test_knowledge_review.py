"""KnowledgeReview's setting: maps before the activation, its extra parameters, its recipe."""

from pathlib import Path

import pytest
import torch
from kd_cls.adapter import ADAPTER
from kd_cls.train import main
from kd_core.config.build import build
from kd_core.config.reading import load_config
from kd_core.experiment.builder import build_data, build_distiller
from kd_core.experiment.parsing import read_experiment
from kd_core.experiment.teachers import build_teachers

CONFIGS = Path(__file__).parents[3] / "configs/cls"
DATA = CONFIGS / "data/cifar100_224.py"
METHOD = CONFIGS / "methods/reviewkd_torchvision.py"
PAIRS = {
    "resnet50_mobilenet_v2": (7, 4e-5, 14_391_304),
    "resnet152_mobilenet_v2": (8, 4e-5, 14_391_304),
    "resnext101_32x8d_mobilenet_v2": (6, 4e-5, 14_391_304),
    "resnet50_resnet18": (10, 1e-4, 27_910_664),
    "resnet152_resnet50": (6, 1e-4, 30_171_656),
    "resnext101_32x8d_resnet50": (6, 1e-4, 30_171_656),
}
"""By pair: weight, weight decay and extra parameters, as KnowledgeReview has them."""


def pair(name):
    return CONFIGS / f"pairs/cifar100_224_{name}.py"


def distiller(name):
    """Return the distiller of a pair, checked with images of 32 pixels."""
    experiment = read_experiment(ADAPTER, [DATA, pair(name), METHOD])
    synthetic = {"type": "kd_cls.data.synthetic", "image_size": 32, "num_classes": 100}
    data = build_data(synthetic, 0, torch.device("cpu"))
    student = ADAPTER.build_model(data, "student", **experiment.student.changed(weights="random"))
    specs = experiment.teachers
    teachers = build_teachers(ADAPTER, specs, 0, data, Path(), lambda *_: None, untrained=True)
    sample = data.train.sample(2)
    return build_distiller(data, student, teachers, sample, terms=experiment.terms), sample


@pytest.fixture
def zeros(monkeypatch):
    """Let convolutions start with zeros: to draw 88 million numbers takes a second."""
    for name in ("kaiming_normal_", "kaiming_uniform_"):
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, **_: tensor.detach().zero_())


@pytest.mark.usefixtures("zeros")
@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_has_the_published_weight_and_extra_parameters(name):
    weight, decay, extra = PAIRS[name]
    assert load_config([DATA, pair(name), METHOD])["optimizer"]["weight_decay"] == decay
    built, _ = distiller(name)
    assert built.terms["reviewkd"].weight == weight
    assert sum(p.numel() for p in built.criteria.parameters()) == extra


def test_what_mobilenet_learns_from_is_not_cut_by_its_activation():
    built, sample = distiller("resnet50_mobilenet_v2")
    built.train()
    built.begin(1)
    _, seen = built._run_student(sample)
    for path in built.terms["reviewkd"].student:
        assert (seen[path] < 0).any(), path
    losses = built(sample)
    losses["reviewkd"].backward()
    gradient = built.student.network.get_submodule("features.3.conv.1.0").weight.grad
    assert gradient.abs().sum() > 0


def test_the_last_but_one_block_keeps_its_activation():
    built, sample = distiller("resnet50_resnet18")
    network = built.student.network
    prepared = built.student.prepare(sample["image"])
    with torch.no_grad():
        alone = network.eval()(prepared)
        with built._tap as seen:
            tapped = network(prepared)
        middle = seen["layer4.0.relu:in[*][-1]"]
        last = network.layer4[1](middle.relu())
    assert torch.equal(alone, tapped)
    torch.testing.assert_close(last, seen["layer4.1.relu:in[*][-1]"].relu())


@pytest.mark.usefixtures("zeros")
@pytest.mark.parametrize("name", ["resnet50_mobilenet_v2", "resnet50_resnet18"])
def test_ofd_takes_the_same_pairs(name, tmp_path, capsys):
    files = [str(file) for file in (DATA, pair(name), CONFIGS / "methods/ofd.py")]
    size = tmp_path / "size.py"
    size.write_text("data = dict(image_size=32, augment=[], batch_size=2)\n")
    assert main([*files, str(size), "--dry-run"]) == 0
    assert "one training step done" in capsys.readouterr().out


def test_rates_are_those_of_the_reference():
    config = load_config(DATA)
    epochs, rate = config["trainer"]["epochs"], config["optimizer"]["lr"]
    schedule = build(config["schedule"], epochs=epochs)
    rates = [rate * schedule((epoch - 0.5) / epochs) for epoch in range(1, 101)]
    expected = [0.05] * 30 + [0.005] * 30 + [5e-4] * 30 + [5e-5] * 5
    assert rates[5:] == pytest.approx(expected)  # from the sixth epoch on
    assert rates[:5] == sorted(rates[:5])
    assert sum(rates[:5]) == pytest.approx(0.01 + 0.02 + 0.03 + 0.04 + 0.05)


def test_images_are_scaled_in_the_batch_and_normalised_as_the_reference_does():
    config = load_config([DATA, pair("resnet50_resnet18"), METHOD])
    node = {key: config["data"][key] for key in ("augment", "batch_size")}
    synthetic = {"type": "kd_cls.data.synthetic", "image_size": 32, "num_train": 130, **node}
    data = build_data(synthetic, 0, torch.device("cpu"))
    data.train.batch_size = 4
    batch = next(data.train.epoch(0))
    assert batch["image"].shape == (4, 3, 224, 224)
    assert batch["image"].dtype == torch.uint8
    assert data.train.images.shape[-1] == 32
    assert (config["student"]["mean"], config["student"]["std"]) == ((0.45,) * 3, (0.225,) * 3)


def test_the_teacher_is_trained_by_the_same_recipe_with_smoothed_labels():
    config = load_config([DATA, pair("resnet152_mobilenet_v2"), METHOD])
    recipe = read_experiment(ADAPTER, config["teacher"]["config"])
    first = {"type": "torchvision.models.resnet152", "weights": "IMAGENET1K_V1"}
    assert recipe.student["network"] == first
    assert config["student"]["network"]["weights"] == "IMAGENET1K_V1"
    assert recipe.student["label_smoothing"] == 0.1
    assert recipe.optimizer["weight_decay"] == 1e-4
    assert recipe.student["mean"] == config["student"]["mean"]
    assert "label_smoothing" not in config["student"]
