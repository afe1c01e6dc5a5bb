"""Roles of taps: what every method needs is there, in networks of the zoo and of elsewhere."""

import pytest
import timm
import torch
import torchvision
from kd_cls.models import MODELS, build_model
from kd_cls.roles import network_roles
from kd_core.networks.probe import tap_values
from kd_core.networks.taps import FeatureTap
from kd_core.networks.task import Task

NETWORKS = {
    "resnet8": lambda: build_model("resnet8"),
    "wrn_16_1": lambda: build_model("wrn_16_1"),
    "vgg8": lambda: build_model("vgg8"),
    "MobileNetV2": lambda: build_model("MobileNetV2"),
    "ShuffleV1": lambda: build_model("ShuffleV1"),
    "ShuffleV2": lambda: build_model("ShuffleV2"),
    "MobileNetV1": lambda: build_model("MobileNetV1"),
    "torchvision resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "torchvision resnet50": lambda: torchvision.models.resnet50(num_classes=10),
    "timm resnet18": lambda: timm.create_model("resnet18", num_classes=10),
    "timm resnet50": lambda: timm.create_model("resnet50", num_classes=10, zero_init_last=False),
}
ALL = ("stem", "stages", "preact", "blocks", "map", "avgpool", "pooled")


class Predict(Task):
    def forward(self, batch):
        return self.network(batch["image"])


def seen(network):
    """Return what the taps of every role give for two images."""
    roles = network_roles(network)
    tap = FeatureTap(network, [path for paths in roles.values() for path in paths])
    _, values = tap_values(Predict(network), tap, {"image": torch.randn(2, 3, 64, 64)})
    return {role: [values[path] for path in paths] for role, paths in roles.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_all_roles_are_known_and_fit_each_other(name):
    values = seen(NETWORKS[name]())
    assert set(values) - {"preact_blocks", "exits"} == set(ALL)
    assert len(values["stem"]) == (name != "MobileNetV1")
    stages, preact = values["stages"], values["preact"]
    assert [map.shape for map in stages] == [map.shape for map in preact]
    assert len(values["blocks"]) >= len(stages) >= 3
    sizes = [map.shape[2] for map in stages]
    assert sizes == sorted(sizes, reverse=True)
    (last,), (average,), (vector,) = values["map"], values["avgpool"], values["pooled"]
    torch.testing.assert_close(average, last.mean((2, 3), keepdim=True))
    torch.testing.assert_close(vector, average.flatten(1))


@pytest.mark.parametrize("name", ["resnet8", "torchvision resnet18", "timm resnet50", "vgg8"])
def test_preactivations_are_the_stages_before_their_relu(name):
    values = seen(NETWORKS[name]())
    for stage, before in zip(values["stages"], values["preact"], strict=True):
        torch.testing.assert_close(stage, before.relu())
        assert (before < 0).any()


@pytest.mark.parametrize("name", ["torchvision resnet18", "torchvision resnet50", "timm resnet50"])
def test_every_block_has_a_preactivation(name):
    values = seen(NETWORKS[name]())
    for block, before in zip(values["blocks"], values["preact_blocks"], strict=True):
        torch.testing.assert_close(block, before.relu())
        assert (before < 0).any()


def test_blocks_are_those_of_the_attention_papers():
    counts = {"resnet20": 9, "resnet56": 27, "wrn_40_2": 18, "wrn_16_2": 6, "vgg8": 4}
    for name, count in counts.items():
        assert len(network_roles(build_model(name))["blocks"]) == count


def test_blocks_of_a_wide_network_are_activated_by_what_follows_them():
    network, image = build_model("wrn_16_1").eval(), torch.randn(2, 3, 32, 32)
    sums = FeatureTap(network, [f"block{stage}.layer.{i}" for stage in (1, 2, 3) for i in (0, 1)])
    blocks = FeatureTap(network, network_roles(network)["blocks"])
    with sums as raw, blocks as active:
        network(image)
    norms = [network.get_submodule(path.replace("relu1", "bn1")) for path in blocks.paths[:-1]]
    pairs = zip(raw.values(), [*norms, network.bn1], active.values(), strict=True)
    for value, norm, shown in pairs:
        torch.testing.assert_close(shown, norm(value).relu())


@pytest.mark.parametrize("name", MODELS)
def test_every_network_of_the_zoo_has_roles(name):
    with torch.device("meta"):
        network = MODELS[name]()
    roles = network_roles(network)
    assert all(roles[role] for role in ALL if role != "stem")


def test_an_unknown_network_has_at_least_its_pooled_vector():
    pool = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), *pool, torch.nn.Linear(4, 3))
    assert network_roles(network) == {"pooled": ("3:in",)}


def test_torchvisions_mobilenet_has_stages_and_a_map():
    values = seen(torchvision.models.mobilenet_v2(num_classes=3))
    assert [map.shape[1] for map in values["stages"]] == [24, 32, 96, 320]
    assert values["map"][0].shape[1] == values["pooled"][0].shape[1] == 1280


def test_torchvisions_mobilenet_has_preactivations_where_it_has_activations():
    network = torchvision.models.mobilenet_v2(num_classes=3)
    roles = network_roles(network)
    values = seen(network)
    paths = ("features.3.conv.1.1", "features.6.conv.1.1", "features.13.conv.1.1", "features.18.1")
    assert roles["preact"] == paths
    assert roles["preact_blocks"][0] == "features.1.conv.0.1"  # the block that does not expand
    assert [map.shape[1] for map in values["preact"]] == [144, 192, 576, 1280]
    assert [map.shape[2] for map in values["preact"]] == [16, 8, 4, 2]
    assert len(values["preact_blocks"]) == 18
    assert all((map < 0).any() for map in values["preact_blocks"])  # its ReLU6 works in place
    for path in roles["preact_blocks"]:
        parent, _, name = path.rpartition(".")
        following = network.get_submodule(f"{parent}.{int(name) + 1}")
        assert isinstance(following, torch.nn.ReLU6)
