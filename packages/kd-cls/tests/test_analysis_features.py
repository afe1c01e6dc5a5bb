"""What models give for a set of images, however it is batched and overwritten."""

import pytest
import torch
from kd_cls.analysis.features import choose, collect
from kd_cls.classifier import Classifier
from kd_cls.data import synthetic
from kd_cls.models import build_model
from kd_cls.roles import network_roles
from kd_core.errors import UserError
from torch import nn


class Overwriting(nn.Module):
    """Its ReLU works on the memory of the map before it."""

    def __init__(self):
        super().__init__()
        self.stage, self.relu = nn.Conv2d(3, 2, 1), nn.ReLU(inplace=True)
        nn.init.constant_(self.stage.weight, -1.0)
        nn.init.zeros_(self.stage.bias)

    def forward(self, image):
        return self.relu(self.stage(image)).mean((2, 3))


@pytest.fixture
def data():
    return synthetic(image_size=32, num_classes=4, num_test=10, batch_size=4)


def indices(loader):
    return [index for batch in loader.epoch(0) for index in batch["index"].tolist()]


def test_a_part_of_a_set_is_spread_over_it(data):
    assert indices(choose(data.test, 3)) == [0, 3, 6]
    assert indices(choose(data.test, 99)) == indices(choose(data.test)) == list(range(10))
    assert indices(data.test) == list(range(10))  # the set itself stays whole
    with pytest.raises(UserError, match="--limit 0"):
        choose(data.test, 0)


def test_a_mixed_part_has_the_same_images_in_another_fixed_order(data):
    mixed = indices(choose(data.test, mixed=True))
    assert mixed != list(range(10))
    assert sorted(mixed) == list(range(10))
    assert indices(choose(data.test, mixed=True)) == mixed


def test_features_are_what_the_classifier_multiplies(data):
    network = build_model("resnet8", num_classes=4)
    model = Classifier(network, mean=data.mean, std=data.std, roles=network_roles(network)).eval()
    found = collect(model, choose(data.test), "@pooled")
    assert found.label.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    with torch.no_grad():
        torch.testing.assert_close(found.logits, model(data.test.sample(10)))
        torch.testing.assert_close(network.fc(found.features), found.logits)


def test_what_a_later_layer_overwrites_is_copied(data):
    model = Classifier(Overwriting()).eval()
    found = collect(model, choose(data.test), "stage")
    assert found.features.shape == (10, 2 * 32 * 32)
    assert found.features.max() <= 0
    assert found.features.min() < 0
    assert found.logits.max() == 0


def test_nothing_is_recorded_unless_asked_for(data):
    assert collect(Classifier(Overwriting()).eval(), choose(data.test)).features.shape == (10, 0)


def test_what_is_no_tensor_is_refused(data):
    class Pair(nn.Module):
        def forward(self, image):
            return image, image

    class Paired(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = Pair()

        def forward(self, image):
            return self.pair(image)[0].mean((2, 3))

    with pytest.raises(UserError, match="tap 'pair' gives a tuple, not a tensor"):
        collect(Classifier(Paired()).eval(), data.test, "pair")
