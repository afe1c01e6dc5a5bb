"""Transformers as students: two tokens with heads of their own, and plain ones by logits."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_cls import train
from kd_cls.adapter import ADAPTER
from kd_cls.student import load_student
from kd_core.config.reading import load_config
from kd_core.experiment.builder import build_data, build_experiment
from kd_core.experiment.parsing import read_experiment
from kd_core.experiment.teachers import build_teachers

CONFIGS = Path(__file__).parents[3] / "configs/cls"
SIZES = "img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2"
PAIR = f"""
data = dict(type="kd_cls.data.synthetic", num_train=24, num_test=8, num_classes=7, batch_size=8)
student = dict(network=dict(type="timm.models.deit.VisionTransformerDistilled", {SIZES}))
teacher = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"), weights="random")
optimizer = dict(type="torch.optim.AdamW", lr=1e-3)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=2, loggers=[])
"""
PLAIN = f"""
student = dict(
    network=dict(_delete_=True, type="timm.models.vision_transformer.VisionTransformer", {SIZES})
)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in an empty folder that has a tiny pair."""
    monkeypatch.chdir(tmp_path)
    Path("pair.py").write_text(PAIR)
    Path("plain.py").write_text(PLAIN)


def method(name):
    return str(CONFIGS / f"methods/{name}.py")


def built(name):
    """Return the distiller of a method with the tiny pair, in training, and a batch."""
    experiment = read_experiment(ADAPTER, ["pair.py", method(name)])
    cpu = torch.device("cpu")
    data = build_data(experiment.data, 0, cpu)
    teachers = build_teachers(ADAPTER, experiment.teachers, 0, data, Path(), lambda *_: None)
    distiller = build_experiment(ADAPTER, experiment, 0, cpu, data, teachers).distiller
    distiller.train()
    distiller.begin(1)
    return distiller, data.train.sample(4)


def run(*files, options=()):
    names = ["pair.py", *files, "--work-dir", "run"]
    return train.main([*names, "--cfg-options", "seed=0", *options])


def expected(name, student, teacher, label):
    """Return the loss as its parts by hand, from the logits of both heads."""
    head, head_dist = student
    if name == "deit_hard":
        return 0.5 * F.cross_entropy(head, label) + 0.5 * F.cross_entropy(
            head_dist, teacher.argmax(1)
        )
    log_student, log_teacher = ((x / 3).log_softmax(1) for x in (head_dist, teacher))
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(1).mean()
    return 0.9 * F.cross_entropy(head, label) + 0.1 * 9 * divergence


@pytest.mark.parametrize("name", ["deit_hard", "deit_soft"])
def test_each_token_learns_its_own(name):
    distiller, batch = built(name)
    losses = distiller(batch)
    assert set(losses) == {"class_token", "distillation_token"}
    network = distiller.student.network
    teacher = distiller.teachers["teacher"].model(batch)
    tokens = network.forward_features(distiller.student.prepare(batch["image"]))
    heads = network.head(tokens[:, 0]), network.head_dist(tokens[:, 1])
    total = expected(name, heads, teacher, batch["label"])
    torch.testing.assert_close(sum(losses.values()), total)

    losses["class_token"].backward(retain_graph=True)
    assert network.head.weight.grad.abs().sum() > 0
    assert network.head_dist.weight.grad is None
    own = network.head.weight.grad.clone()
    losses["distillation_token"].backward()
    assert torch.equal(network.head.weight.grad, own)
    assert network.head_dist.weight.grad.abs().sum() > 0
    assert not torch.allclose(network.head_dist.weight.grad, own)
    assert all(p.grad is not None for p in network.parameters())  # DDP waits for all of them


def test_predictions_are_the_mean_of_both_heads():
    distiller, batch = built("deit_hard")
    network = distiller.student.network.eval()
    with torch.no_grad():
        tokens = network.forward_features(distiller.student.prepare(batch["image"]))
        mean = (network.head(tokens[:, 0]) + network.head_dist(tokens[:, 1])) / 2
        torch.testing.assert_close(distiller.eval()(batch), mean)


@pytest.mark.parametrize("name", ["deit_hard", "deit_soft", "skd", "hard_label"])
def test_a_distilled_student_trains_and_is_rebuilt_from_its_file(name):
    assert run(method(name)) == 0
    student = load_student("run")
    assert type(student.network).__name__ == "VisionTransformerDistilled"
    assert student({"image": torch.zeros(2, 3, 32, 32, dtype=torch.uint8)}).shape == (2, 7)


@pytest.mark.parametrize("name", ["kd", "skd", "hard_label"])
def test_a_plain_student_learns_from_logits(name):
    assert run("plain.py", method(name)) == 0
    assert type(load_student("run").network).__name__ == "VisionTransformer"


def test_a_plain_student_has_no_second_head(capsys):
    assert run("plain.py", method("deit_hard")) == 2
    assert "VisionTransformer has no module 'head_dist'" in capsys.readouterr().err


def test_the_recipe_of_transformers_replaces_that_of_imagenet():
    files = ["data/imagenet", "pairs/imagenet_regnety_160_deit_tiny", "recipes/deit"]
    config = load_config([CONFIGS / f"{name}.py" for name in files])
    assert config["optimizer"] == {"type": "torch.optim.AdamW", "lr": 5e-4, "weight_decay": 0.05}
    assert config["schedule"] == {"type": "kd_core.training.schedule.cosine", "warmup_epochs": 10}
    assert (config["trainer"]["epochs"], config["data"]["batch_size"]) == (300, 1024)


def test_a_plain_network_takes_the_place_of_the_pair_s_student():
    files = ["pairs/imagenet_regnety_160_deit_tiny", "networks/timm_vit_tiny"]
    network = load_config([CONFIGS / f"{name}.py" for name in files])["student"]["network"]
    assert network == {"type": "timm.create_model", "model_name": "vit_tiny_patch16_224"}
