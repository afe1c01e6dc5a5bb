"""What several test modules look at."""

import pytest
from kd_cls.models import MODELS, Taps
from kd_core.distill.teacher import Teacher
from kd_core.experiment.tables.products import Products
from torch import nn


class TinyNet(nn.Module):
    """Two convolutions: 14 tensors where `resnet8` has 56, so that files and steps cost little."""

    taps = Taps(("relu", "layer1"), None, "fc:in", (), (8, 16))

    def __init__(self, num_classes=100):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(8), nn.ReLU()
        self.layer1 = nn.Sequential(
            nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(16, num_classes)

    def forward(self, image):
        return self.fc(self.avgpool(self.layer1(self.relu(self.bn1(self.conv1(image))))).flatten(1))


@pytest.fixture(scope="module", autouse=True)
def tiny_network():
    """Give the zoo a network `tiny`, for tests that need any of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "tiny", TinyNet)
        yield


@pytest.fixture
def curves():
    """Let a comparison draw its curves, which takes a while and few tests need."""


@pytest.fixture(autouse=True)
def _without_curves(request, monkeypatch):
    if "curves" not in request.fixturenames:
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
