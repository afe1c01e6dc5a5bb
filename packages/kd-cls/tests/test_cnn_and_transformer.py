"""Methods between networks of different kinds: convolutional, plain and windowed transformers."""

import re
from pathlib import Path

import pytest
import torch
from kd_cls.adapter import ADAPTER
from kd_cls.models import build_model
from kd_cls.roles import network_roles
from kd_cls.train import main
from kd_core.distill.distiller import Distiller
from kd_core.errors import UserError
from kd_core.experiment.builder import build_data, build_experiment
from kd_core.experiment.parsing import read_experiment
from kd_core.experiment.teachers import build_teachers
from kd_core.networks.taps import FeatureTap
from timm.models.vision_transformer import VisionTransformer

CONFIGS = Path(__file__).parents[3] / "configs/cls"
VIT = "timm.models.vision_transformer.VisionTransformer"
DEIT = "timm.models.deit.VisionTransformerDistilled"
SWIN = "timm.models.swin_transformer.SwinTransformer"
SIZES = "img_size=32, patch_size=8, num_heads=2"
NETWORKS = {
    "cnn": "dict(type='kd_cls.models.build_model', name='resnet8')",
    "vit": f"dict(type='{VIT}', {SIZES}, embed_dim=32, depth=6)",
    "wide vit": f"dict(type='{VIT}', {SIZES}, embed_dim=48, depth=12)",
    "deit": f"dict(type='{DEIT}', {SIZES}, embed_dim=32, depth=4)",
    "swin": f"dict(type='{SWIN}', img_size=32, patch_size=4, window_size=2, embed_dim=16, "
    "depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2))",
}
PAIR = """
data = dict(type="kd_cls.data.synthetic", num_train=24, num_test=8, num_classes=7, batch_size=8)
student = dict(network={student})
teacher = dict(network={teacher}, weights="random")
distiller = dict(task_weight=0.0)
optimizer = dict(type="torch.optim.SGD", lr=0.002, momentum=0.9, weight_decay=5e-4)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=2, loggers=[])
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


def files(student, teacher, *methods):
    """Return a pair of networks and methods, as config files."""
    text = PAIR.format(student=NETWORKS[student], teacher=NETWORKS[teacher])
    Path("pair.py").write_text(text)
    return ["pair.py", *(str(CONFIGS / f"methods/{method}.py") for method in methods)]


def built(*names):
    """Return the distiller of a pair and methods, in training, and a batch."""
    experiment, cpu = read_experiment(ADAPTER, files(*names)), torch.device("cpu")
    data = build_data(experiment.data, 0, cpu)
    teachers = build_teachers(ADAPTER, experiment.teachers, 0, data, Path(), lambda *_: None)
    distiller = build_experiment(ADAPTER, experiment, 0, cpu, data, teachers).distiller
    distiller.train()
    distiller.begin(1)
    return distiller, data.train.sample(8)


def taps(distiller, side):
    return {name: getattr(term, side) for name, term in distiller.terms.items()}


@pytest.mark.parametrize(
    ("student", "teacher", "method"),
    [
        ("cnn", "vit", "ofa"),
        ("vit", "cnn", "ofa"),
        ("swin", "vit", "ofa"),
        ("cnn", "wide vit", "vkd"),
        ("vit", "swin", "vkd"),
        ("deit", "cnn", "vkd_deit"),
        ("deit", "wide vit", "vitkd"),
    ],
)
def test_a_student_of_another_kind_lowers_every_term_on_a_fixed_batch(student, teacher, method):
    torch.manual_seed(0)
    distiller, batch = built(student, teacher, method)
    batch["noise"] = torch.rand(8, 16)  # what ViTKD hides
    optimizer = torch.optim.AdamW(distiller.parameters(), 2e-3)
    seen = []
    for _ in range(8):
        losses = distiller(batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        seen.append({name: loss.item() for name, loss in losses.items()})
    for name in distiller.terms:
        assert seen[-1][name] < seen[0][name], name
    body = [(n, p) for n, p in distiller.student.network.named_parameters() if "head" not in n]
    assert not [name for name, p in body if p.grad is None and not name.startswith("fc")]


def test_a_vit_s_exits_are_after_blocks_2_4_10_and_12():
    distiller, _ = built("wide vit", "cnn", "ofa")
    exits = [f"blocks.{place}:tokens" for place in (1, 3, 9, 11)]
    assert taps(distiller, "student") == {"ofa": ["output"]} | {
        f"ofa_stage{stage}": [path] for stage, path in enumerate(exits, 1)
    }
    assert set(map(tuple, taps(distiller, "teacher").values())) == {("output",)}


@pytest.mark.parametrize(
    ("depth", "exits"), [(2, (0, 1)), (4, (0, 1, 2, 3)), (6, (0, 1, 4, 5)), (24, (3, 7, 19, 23))]
)
def test_exits_of_another_depth_are_in_proportion(depth, exits):
    network = VisionTransformer(img_size=16, patch_size=8, embed_dim=8, depth=depth, num_heads=2)
    roles = network_roles(network)
    assert roles["blocks"] == tuple(f"blocks.{place}:tokens" for place in range(depth))
    assert roles["exits"] == tuple(f"blocks.{place}:tokens" for place in exits)


def test_exits_of_a_convolutional_network_are_its_last_four_of_stem_and_stages():
    roles = network_roles(build_model("resnet8"))
    assert roles["exits"] == (*roles["stem"], *roles["stages"])
    roles = network_roles(build_model("vgg8"))
    assert roles["exits"] == (*roles["stem"], *roles["stages"])[-4:]


def test_vkd_compares_the_mean_of_the_patches_with_that_of_the_last_map():
    distiller, batch = built("deit", "cnn", "vkd")
    term, network = distiller.terms["vkd"], distiller.student.network
    assert (term.student, term.teacher) == (["norm:mean"], ["avgpool:in:nchw:mean"])
    tokens = network.forward_features(distiller.student.prepare(batch["image"]))
    teacher = distiller.teachers["teacher"].model
    with torch.no_grad(), FeatureTap(teacher.network, "layer3") as seen:
        teacher(batch)
    loss = term.criterion(tokens[:, 2:].mean(1), seen["layer3"].mean((2, 3)), batch)
    torch.testing.assert_close(distiller(batch)["vkd"], loss)


def test_a_cnn_takes_part_in_vitkd_with_maps_as_tokens(capsys):
    node = "distiller.terms.vitkd.student"
    command = [*files("cnn", "vit", "vitkd"), "--dry-run", "--cfg-options", "student.size=16"]
    blocks = ["@blocks[-1]:tokens", "layer3.0:nchw:tokens", "@map:tokens"]
    assert main([*command, f"{node}={str(blocks).replace(chr(39), chr(34))}"]) == 0
    capsys.readouterr()
    blocks[0] = "@stages[0]:tokens"
    assert main([*command, f"{node}={str(blocks).replace(chr(39), chr(34))}"]) == 2
    assert "student has 256 and the teacher 16; take networks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["distiller.terms.ofa_stage1.criterion.width=None"], "a map needs a width"),
        (["distiller.terms.ofa_stage1.criterion.stage=5"], "wanted 1, 2, 3 or 4, got 5"),
        (["distiller.terms.ofa_stage1.student=fc:in"], r"takes features \[N, C, H, W\] or"),
        (["distiller.terms.ofa_stage1.teacher=@map"], r"takes logits \[N, C\], but"),
    ],
)
def test_what_a_stage_cannot_take_is_refused_before_training(options, message, capsys):
    command = [*files("cnn", "cnn", "ofa"), "--dry-run", "--cfg-options", *options]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "distiller.terms.ofa_stage1" in error
    assert re.search(message, error), error


STAGE = "distiller.terms.ofa_stage1"


@pytest.mark.parametrize(
    ("student", "tap", "prefix", "shown"),
    [
        ("deit", "blocks.1", 2, r"blocks\.1 \[N, 18, 32\]"),
        ("deit", "blocks.1:tokens", 0, r"blocks\.1:tokens \[N, 16, 32\]"),
        ("swin", "@exits[-4]:tokens", 0, r"layers\.0:nhwc:tokens \[N, 64, 16\]"),
        ("deit", "blocks.1", 0, "has 2 tokens before .*write prefix=2, or blocks.1:tokens with"),
        ("deit", "blocks.1:tokens", 2, "has 0 tokens before those of the image; write prefix=0"),
    ],
)
def test_prefix_tokens_are_those_that_the_network_says(student, tap, prefix, shown, capsys):
    options = [f"{STAGE}.student={tap}", f"{STAGE}.criterion.prefix={prefix}"]
    command = [*files(student, "cnn", "ofa"), "--dry-run", "--cfg-options", *options]
    assert main(command) == (2 if "before" in shown else 0)
    assert re.search(shown, " ".join(capsys.readouterr().err.split()))


def test_data_without_labels_is_taken_with_eps_1_and_refused_with_another():
    distiller, batch = built("cnn", "vit", "ofa")
    del batch["label"]
    assert all(loss.isfinite() for loss in distiller(batch).values())
    distiller.terms["ofa_stage1"].criterion.eps = 1.5
    teacher = distiller.teachers["teacher"].model
    with pytest.raises(UserError, match=r"eps=1\.5 puts weight on the label"):
        Distiller(distiller.student, teacher, distiller.terms, sample=batch)
