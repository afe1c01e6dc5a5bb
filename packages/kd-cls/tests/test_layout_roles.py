"""Roles of timm's and torchvision's families: maps, tokens and vectors as criteria take them."""

import copy
import re
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from kd_cls.classifier import Classifier
from kd_cls.families.recording import distinct, record
from kd_cls.families.search import tap_of
from kd_cls.models import build_model
from kd_cls.roles import network_roles
from kd_cls.train import main
from kd_core.criteria import AT, RKD
from kd_core.distill.distiller import Distiller
from kd_core.distill.tap_kinds import paths_for
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.networks.taps import FeatureTap
from torch import nn

ROOT = Path(__file__).parents[3]
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 5, "num_heads": 2}
SMALL = {"dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1)}
SWIN = {"img_size": 64, "window_size": 2, "embed_dim": 8, "depths": (1, 1, 1, 1)}

TIMM = {
    "vit_tiny_patch16_224": VIT,
    "deit_tiny_distilled_patch16_224": VIT,
    "vit_small_patch14_reg4_dinov2": VIT,
    "swin_tiny_patch4_window7_224": SWIN | {"num_heads": (1, 1, 1, 1)},
    "convnext_atto": SMALL,
    "levit_128s": {"embed_dim": (16, 24, 32), "num_heads": (1, 1, 1), "depth": (1, 1, 1)},
    "test_mambaout": {},
    "test_efficientnet": {},
    "test_byobnet": {},
    "dla46x_c": {},
    "lcnet_035": {},
}
OTHERS = {
    "mixer": lambda: timm.models.mlp_mixer.MlpMixer(
        3, 32, patch_size=8, num_blocks=4, embed_dim=16
    ),
    "swin_t": lambda: torchvision.models.SwinTransformer(
        [4, 4], 8, [1, 1, 1, 1], [1, 1, 1, 1], [2, 2], stochastic_depth_prob=0, num_classes=3
    ),
    "vit": lambda: torchvision.models.VisionTransformer(32, 8, 5, 2, 16, 32, num_classes=3),
    "shufflenet_v2_x0_5": lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=3),
    "mobilenet_v3_small": lambda: torchvision.models.mobilenet_v3_small(num_classes=3),
    "squeezenet1_1": lambda: torchvision.models.squeezenet1_1(num_classes=3),
}


@pytest.fixture(scope="module")
def built():
    """Networks with their roles, made when they are first asked for."""
    kept = {}

    def get(name):
        if name not in kept:
            torch.manual_seed(0)
            of_timm = name in TIMM
            network = (
                timm.create_model(name, num_classes=3, **TIMM[name]) if of_timm else OTHERS[name]()
            )
            kept[name] = network.eval(), network_roles(network)
        return kept[name]

    return get


def image_of(network):
    config = getattr(network, "pretrained_cfg", None) or {}
    patches = getattr(network, "patch_embed", getattr(network, "stem", None))
    size = getattr(patches, "img_size", None) or getattr(network, "image_size", None)
    if size is None:
        size = config["input_size"][-1] if config.get("fixed_input_size") else 96
    side = size if isinstance(size, int) else size[0]
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def values(network, roles, *names):
    taps = [
        tap.replace(":tokens", ":map") if n == "map" else tap for n in names for tap in roles[n]
    ]
    with torch.no_grad(), FeatureTap(network, taps, copy=taps) as seen:
        network(image_of(network))
    return [seen[tap] for tap in taps]


def loss(network, roles, criterion, tap):
    """Return the loss of a network as student of a ResNet, after a backward pass."""
    teacher = build_model("resnet8", num_classes=3)
    term = Term(criterion, student=tap, teacher=tap)
    images = image_of(network)
    batch = {"image": images, "label": torch.tensor([0, 1])}
    student = Classifier(copy.deepcopy(network), roles=roles)
    teacher = Classifier(teacher, roles=network_roles(teacher))
    distiller = Distiller(student, teacher, {"t": term}, sample=batch).train()
    value = distiller(batch)["t"]
    value.backward()
    return value


NO_POOLED = ["squeezenet1_1"]  # its classifier is a convolution before the pooling


@pytest.mark.parametrize("name", [*TIMM, *OTHERS])
def test_the_last_stage_and_the_pooled_vector_teach_and_learn(built, name):
    network, roles = built(name)
    assert torch.isfinite(loss(network, roles, AT(), "@stages[-1]"))
    if name in NO_POOLED:
        with pytest.raises(UserError, match=r"no such role; .*\(--list-taps\), or give .* `roles`"):
            loss(network, roles, RKD(), "@pooled")
    else:
        assert torch.isfinite(loss(network, roles, RKD(), "@pooled"))


@pytest.mark.parametrize("name", TIMM)
def test_stages_are_what_timm_says(built, name):
    network, roles = built(name)
    image = image_of(network)
    taps = paths_for(AT, "@stages", Classifier(network, roles=roles))
    with torch.no_grad(), FeatureTap(network, taps, copy=taps) as seen:
        network(image)
    maps = network.forward_intermediates(image, output_fmt="NCHW", intermediates_only=True)
    for tap in taps:
        same = (m for m in maps if m.shape == seen[tap].shape)
        assert any(torch.allclose(seen[tap], m, rtol=1e-3, atol=1e-4) for m in same), tap
    assert 3 <= len(taps) <= 4


MEAN_IS_POOLED = {
    "mixer": None,
    "swin_tiny_patch4_window7_224": None,
    "convnext_atto": "head.norm",
    "test_efficientnet": None,
    "levit_128s": None,
    "dla46x_c": None,
    "swin_t": None,
    "shufflenet_v2_x0_5": None,
}


@pytest.mark.parametrize("name", MEAN_IS_POOLED)
def test_the_mean_of_the_map_is_what_the_classifier_gets(built, name):
    network, roles = built(name)
    map, pooled = values(network, roles, "map", "pooled")
    mean = map.mean((2, 3), keepdim=True)
    if MEAN_IS_POOLED[name]:
        mean = network.get_submodule(MEAN_IS_POOLED[name])(mean)
    torch.testing.assert_close(mean.flatten(1), pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit"])
def test_the_class_token_is_what_the_classifier_of_a_vit_gets(built, name):
    network, roles = built(name)
    cls, pooled, tokens, map = values(network, roles, "cls", "pooled", "tokens", "map")
    torch.testing.assert_close(cls, pooled)
    assert tokens.shape[1:] == (16, 16)
    assert torch.equal(tokens.mT.unflatten(2, (4, 4)), map)


def test_at_of_a_swin_and_of_its_map_turned_is_zero_or_refused(built):
    network, roles = built("swin_t")

    class Turned(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.map = inner, nn.Identity()

        def forward(self, x):
            with FeatureTap(self.inner, "features.7") as seen:
                logits = self.inner(x)
            self.map(seen["features.7"].permute(0, 3, 1, 2).contiguous())
            return logits

    batch = {"image": image_of(network), "label": torch.tensor([0, 1])}
    teacher = Classifier(Turned(copy.deepcopy(network)))

    def distilled(tap):
        student = Classifier(network, roles=roles)
        terms = {"at": Term(AT(), student=tap, teacher="map")}
        return Distiller(student, teacher, terms, sample=batch).train()(batch)["at"]

    for tap in ("@stages[-1]", "features.7:nhwc"):
        assert distilled(tap) < 1e-12
    with pytest.raises(UserError, match=r"tap 'features.7': .* write 'features.7:nhwc'"):
        distilled("features.7")


def test_a_head_that_pools_a_map_itself_has_a_pooled_vector():
    sizes = {"img_size": 32, "layers": (1, 1), "patch_sizes": (8, 1), "embed_dims": (8, 8)}
    more = {"hidden_sizes": (4, 4), "mlp_ratios": (1, 1)}
    network = timm.models.sequencer.Sequencer2d(3, **sizes, **more)
    assert network_roles(network)["pooled"] == ("head.fc:in",)


class Scaled(nn.Module):
    """A block whose scale is 0 in a new network, so that it returns what it gets."""

    def __init__(self):
        super().__init__()
        self.conv, self.gamma = nn.Conv2d(3, 3, 1), nn.Parameter(torch.zeros(3, 1, 1))

    def forward(self, x):
        return x + self.gamma * self.conv(x)


def test_a_new_networks_blocks_are_told_apart_though_they_return_what_they_get():
    network = nn.Sequential(Scaled(), Scaled(), Scaled())
    with distinct(network):
        seen = record(network, network)
        assert tap_of(network, seen, seen.at("1"), "of another name") == "1"
    assert all(not block.gamma.any() for block in network)
    assert network.training


def test_a_network_of_one_size_says_the_layout_of_its_maps():
    network = timm.create_model("test_coatnet", num_classes=3).eval()
    roles = network_roles(network)
    assert all(tap.endswith(":nchw") for tap in roles["stages"])
    assert torch.isfinite(loss(network, roles, AT(), "@stages[-1]"))


def test_levels_whose_tokens_are_not_in_order_are_not_stages():
    options = {"embed_dim": 8, "stages": (1, 1, 1, 1), "num_heads": 1}
    network = timm.create_model("hiera_tiny_224", num_classes=3, **options)
    roles = network_roles(network)
    assert "stages" not in roles
    assert roles["pooled"] == ("head.fc:in",)


class Heads(nn.Module):
    """A network with a second head, whose layer comes last in its list of modules."""

    def __init__(self, end=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.classifier, self.other = nn.Linear(4, 3), nn.Linear(4, 7)
        self.end = nn.Identity() if end is None else end

    def forward(self, x):
        x = self.conv(x).mean((2, 3))
        self.other(x + 1)
        return self.end(self.classifier(x))


@pytest.mark.parametrize("end", [None, nn.Softmax(1)])
def test_an_unknown_networks_pooled_vector_is_that_of_the_layer_that_gives_its_logits(end):
    assert network_roles(Heads(end)) == {"pooled": ("classifier:in",)}


def test_an_unknown_network_without_such_a_layer_has_no_pooled_vector():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert network_roles(network) == {}


def test_the_pair_that_the_docs_show_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    page = Path("configs/cls/README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(# my_pair.py.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "my_pair.py").write_text(block, encoding="utf-8")
    files = ["configs/cls/data/cifar100.py", "configs/cls/methods/at.py", f"{tmp_path}/my_pair.py"]
    assert main([*files, "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert "stages.3:nhwc" in shown.out + shown.err
