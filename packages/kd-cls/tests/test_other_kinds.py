"""Student and teacher of different kinds: convolutions, transformers, other patches and sizes."""

import copy
import re
import shlex
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from kd_cls.classifier import Classifier
from kd_cls.models import build_model
from kd_cls.roles import network_roles
from kd_cls.train import main
from kd_core.criteria.aligners import resize_tokens
from kd_core.criteria.criterion import Criterion
from kd_core.criteria.dense_mse import DenseMSE
from kd_core.criteria.queue_kl import SEED, QueueKL, QueueTokenKL
from kd_core.criteria.theia import Theia
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import build_terms
from kd_core.errors import UserError
from kd_core.functional import mse
from torch import nn

ROOT = Path(__file__).parents[3]
VIT = {"embed_dim": 16, "depth": 4, "num_heads": 2, "num_classes": 3, "dynamic_img_size": True}


def vit(patch, **arguments):
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=patch, **VIT | arguments
    )


NETWORKS = {
    "convolutions": lambda: build_model("resnet8", num_classes=3),
    "vit of 8": lambda: vit(8),
    "vit of 4": lambda: vit(4),
    "dinov2": lambda: vit(8, reg_tokens=2, num_classes=0),
    "swin": lambda: torchvision.models.SwinTransformer(
        [4, 4], 8, [1, 1], [1, 1], [2, 2], stochastic_depth_prob=0, num_classes=3
    ),
}
PAIRS = [
    ("convolutions", "vit of 8"),
    ("convolutions", "dinov2"),
    ("vit of 8", "convolutions"),
    ("vit of 8", "vit of 4"),
    ("vit of 4", "vit of 8"),
    ("swin", "vit of 8"),
    ("vit of 8", "swin"),
]


class Tokens(Criterion):
    """Compares vectors and tokens, projected, on the teacher's grid."""

    takes = ("vectors", "tokens")

    def __init__(self, student_shapes, teacher_shapes):
        super().__init__()
        pairs = zip(student_shapes, teacher_shapes, strict=True)
        self.heads = nn.ModuleList(nn.Linear(s[-1], t[-1]) for s, t in pairs)

    def forward(self, student, teacher, batch):
        vector, tokens = (head(s) for head, s in zip(self.heads, student, strict=True))
        tokens = resize_tokens(tokens, teacher[1].shape[1])
        return mse(vector, teacher[0].detach()) + mse(tokens, teacher[1].detach())


CRITERIA = {
    QueueKL: "@pooled",
    SEED: "@pooled",
    DenseMSE: "@map",
    Theia: "@map",
    QueueTokenKL: ["@pooled", "@map"],
    Tokens: ["@pooled", "@tokens"],
}


@pytest.fixture(scope="module")
def built():
    """Networks with their roles, made when they are first asked for."""
    kept = {}

    def get(name):
        if name not in kept:
            torch.manual_seed(0)
            network = NETWORKS[name]()
            kept[name] = network, network_roles(network, [(32, 32)])
        return kept[name]

    return get


def distilled(built, pair, cls, taps, image=(32, 32), size=None):
    """Return the loss after a backward pass, and the distiller."""
    student, teacher = (
        Classifier(copy.deepcopy(network), roles=roles, size=side)
        for (network, roles), side in zip(map(built, pair), (None, size), strict=True)
    )
    batch = {"image": torch.rand(2, 3, *image, generator=torch.Generator().manual_seed(1))}
    node = {"criterion": {"type": cls}, "student": taps[0], "teacher": taps[1]}
    terms = build_terms({"t": node}, student, {"teacher": teacher}, batch)
    distiller = Distiller(student, teacher, terms, task_weight=0, sample=batch).train()
    loss = distiller(batch)["t"]
    loss.backward()
    return loss, distiller


@pytest.mark.parametrize("cls", CRITERIA, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("pair", PAIRS, ids=" from ".join)
def test_each_learns_from_the_other(built, pair, cls):
    loss, distiller = distilled(built, pair, cls, (CRITERIA[cls],) * 2)
    assert loss.isfinite()
    assert any(p.grad is not None and p.grad.any() for p in distiller.student.parameters())


@pytest.mark.parametrize("cls", [DenseMSE, QueueTokenKL, Theia], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("pair", PAIRS[:4], ids=" from ".join)
def test_maps_of_images_that_are_not_square_are_compared_by_their_height_and_width(
    built, pair, cls
):
    loss, distiller = distilled(built, pair, cls, (CRITERIA[cls],) * 2, image=(32, 64))
    assert loss.isfinite()
    for found in distiller.tap_shapes.values():
        ((_, height, width),) = (shape for shape in found.values() if len(shape) == 3)
        assert width == 2 * height


def test_tokens_of_images_that_are_not_square_are_compared_if_the_grids_are_equal(built):
    taps = (CRITERIA[Tokens],) * 2
    loss, _ = distilled(built, ("vit of 8", "dinov2"), Tokens, taps, image=(32, 64))
    assert loss.isfinite()
    message = "tokens are of 4 x 8 positions, the teacher's of 8 x 16"
    with pytest.raises(UserError, match=message):
        distilled(built, ("vit of 8", "vit of 4"), Tokens, taps, image=(32, 64))


def test_a_teacher_of_another_size_than_the_images_has_a_grid_of_its_own(built):
    pair, taps = ("convolutions", "vit of 8"), ("@map", "@map")
    loss, distiller = distilled(built, pair, DenseMSE, taps, size=48)
    assert loss.isfinite()
    assert [*distiller.tap_shapes["teacher"].values()] == [(16, 6, 6)]
    assert [*distiller.tap_shapes["student"].values()] == [(64, 8, 8)]


@pytest.mark.parametrize("taps", [("@pooled", "@cls"), ("@cls", "@pooled")])
def test_a_class_token_is_compared_with_a_pooled_map(built, taps):
    pair = ("convolutions", "vit of 8") if taps[1] == "@cls" else ("vit of 8", "convolutions")
    assert distilled(built, pair, QueueKL, taps)[0].isfinite()


@pytest.mark.parametrize(
    ("pair", "cls", "taps", "message"),
    [
        (("convolutions", "vit of 8"), QueueKL, ("@cls", "@cls"), "no such role"),
        (("convolutions", "vit of 8"), QueueKL, ("@map", "@cls"), "takes vectors .N, D., but"),
        (("convolutions", "vit of 8"), QueueKL, ("@pooled", "norm"), "PATH:cls is the class token"),
        (("convolutions", "vit of 8"), DenseMSE, ("@map", "norm"), "write PATH:tokens for their"),
        (("convolutions", "swin"), DenseMSE, ("@map", "features.3"), "write 'features.3:nhwc'"),
    ],
)
def test_what_cannot_be_brought_together_is_refused_in_one_line(built, pair, cls, taps, message):
    with pytest.raises(UserError, match=message) as caught:
        distilled(built, pair, cls, taps)
    assert "\n" not in str(caught.value)


SECTION = (
    (ROOT / "docs/foundation.md")
    .read_text(encoding="utf-8")
    .partition("## Teacher and student of different kinds")[2]
    .partition("\n## ")[0]
)
COMMANDS = re.findall(r"^uv run tools/cls_train\.py (.*)$", SECTION, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS, ids=["other kinds", "kept head"])
def test_the_commands_of_the_page_run(command, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)
    (block,) = re.findall(
        r"^```python\n(# my_teacher.py.*?)^```$", SECTION, re.MULTILINE | re.DOTALL
    )
    (tmp_path / "my_teacher.py").write_text(block, encoding="utf-8")
    given = shlex.split(command.replace("my_teacher.py", str(tmp_path / "my_teacher.py")))
    given += [] if "--cfg-options" in given else ["--cfg-options"]
    assert main([*given, "data.batch_size=2", "--dry-run"]) == 0, capsys.readouterr().err
    assert "one training step done" in capsys.readouterr().out
