"""What several test modules look at."""

import pytest
from kd_cls.models import MODELS, Taps
from kd_core.distill.teacher import Teacher
from kd_core.experiment import curves, report  # noqa: F401 - a fixture of all tests finds them
from kd_core.experiment.tables.products import Products
from torch import nn


def layer(channels, wider, stride):
    convolution = nn.Conv2d(channels, wider, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(wider), nn.ReLU())


class TinyNet(nn.Module):
    """Three convolutions: 20 tensors where `resnet8` has 56: files and steps cost little."""

    taps = Taps(("relu", "layer1", "layer2"), None, "fc:in", (), (8, 16, 32))

    def __init__(self, num_classes=100):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(8), nn.ReLU()
        self.layer1, self.layer2 = layer(8, 16, stride=1), layer(16, 32, stride=2)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(32, num_classes)

    def forward(self, image):
        maps = self.layer2(self.layer1(self.relu(self.bn1(self.conv1(image)))))
        return self.fc(self.avgpool(maps).flatten(1))


@pytest.fixture(scope="module", autouse=True)
def tiny_network():
    """Give the zoo a network `tiny`, for tests that need any of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "tiny", TinyNet)
        yield


@pytest.fixture
def table_curves():
    """Let a comparison draw its curves, which takes a while and few tests need."""


@pytest.fixture(autouse=True)
def _without_curves(request, monkeypatch):
    if "table_curves" not in request.fixturenames:
        monkeypatch.setattr(Products, "draw", lambda self, rows: None)


@pytest.fixture
def passes(monkeypatch):
    """Note how many images go through a teacher in each pass."""
    noted, call = [], Teacher.__call__

    def note(self, batch):
        noted.append(len(batch["image"]))
        return call(self, batch)

    monkeypatch.setattr(Teacher, "__call__", note)
    return noted
