"""The BatchNorm that made what a tap gives."""

import pytest
import torch
from kd_core.criteria.batchnorms import find_batchnorm
from torch import nn


class Block(nn.Module):
    """A residual block of one ReLU, registered where torchvision has it: between its BatchNorms."""

    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(2)
        self.relu = nn.ReLU()
        self.layer = nn.Sequential(Block(2), Block(2))
        self.features = nn.Sequential(
            *(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.ReLU()),
            *(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.ReLU()),
            *(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)),
        )
        self.plain = nn.BatchNorm2d(2, affine=False)
        for number, module in enumerate(self.modules()):
            if getattr(module, "weight", None) is not None:
                nn.init.constant_(module.weight, number)


@pytest.mark.parametrize(
    ("tap", "path"),
    [
        ("layer.1.bn2", "layer.1.bn2"),
        ("layer.1.relu:in", "layer.1.bn2"),
        ("layer.1.relu:in[*][-1]", "layer.1.bn2"),
        ("layer.1.downsample", "layer.1.downsample.1"),
        ("relu:in", "bn1"),
        ("features", "features.7"),
        ("features.5:in", "features.4"),
    ],
)
def test_it_is_found_from_the_tap(tap, path):
    network = Network()
    weight, bias = find_batchnorm(network, tap)
    assert torch.equal(weight, network.get_submodule(path).weight)
    assert torch.equal(bias, network.get_submodule(path).bias)
    assert not weight.requires_grad


@pytest.mark.parametrize(
    "tap", ["output", "layer", "layer.1", "features.0", "features.3:in", "features.4:in", "plain"]
)
def test_without_one_nothing_is_returned(tap):
    network = Network()
    assert [len(values) for values in find_batchnorm(network, tap)] == [0, 0]
