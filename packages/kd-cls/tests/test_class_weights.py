"""Weights of classes are those of PyTorch's cross-entropy, and balanced ones of scikit-learn's."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_cls.classifier import Classifier
from kd_cls.data import synthetic
from kd_cls.networks import build_classifier, parse_classifier
from kd_core.errors import UserError
from torch import nn

NETWORK = {"type": "kd_cls.models.build_model", "name": "resnet8"}
WEIGHTS = [1.0, 4.0, 0.5]


class Logits(nn.Module):
    def __init__(self):
        super().__init__()
        self.values = nn.Parameter(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)))

    def forward(self, images):
        return self.values[: len(images)]


def loss(batch, **options):
    images = {"image": torch.zeros(6, 3, 2, 2, dtype=torch.uint8)}
    return Classifier(Logits(), **options).train()({**images, **batch})["ce"]


LABEL = torch.tensor([0, 1, 2, 1, 0, 0])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_that_of_pytorch(smoothing):
    found = loss({"label": LABEL}, class_weights=WEIGHTS, label_smoothing=smoothing)
    weights = torch.tensor(WEIGHTS)
    expected = F.cross_entropy(Logits().values, LABEL, weights, label_smoothing=smoothing)
    assert torch.equal(found, expected)


def test_mixed_images_of_one_class_have_the_loss_of_whole_ones():
    whole = loss({"label": LABEL}, class_weights=WEIGHTS)
    mixed = {"mixed_labels": LABEL[:, None].repeat(1, 2), "mixed_weights": torch.full((6, 2), 0.5)}
    assert torch.allclose(loss({"label": LABEL, **mixed}, class_weights=WEIGHTS), whole)
    other = torch.stack([LABEL, LABEL.flip(0)], 1)
    shares = torch.tensor([[0.25, 0.75]]).repeat(6, 1)
    found = loss(
        {"label": LABEL, "mixed_labels": other, "mixed_weights": shares}, class_weights=WEIGHTS
    )
    weights = torch.tensor(WEIGHTS)[other] * shares
    each = -Logits().values.log_softmax(1).gather(1, other)
    assert torch.allclose(found, (each * weights).sum() / weights.sum())


def test_balanced_weights_make_all_classes_count_alike():
    data = synthetic(num_classes=3, num_train=9, image_size=8)
    data.train.labels = torch.tensor([0] * 6 + [1] * 2 + [2])
    classifier = build_classifier(data, "student", network=NETWORK, class_weights="balanced")
    assert classifier.class_weights.tolist() == [0.5, 1.5, 3.0]
    assert "class_weights" not in classifier.state_dict()
    data.train.labels = torch.tensor([0] * 6 + [2] * 3)
    classifier = build_classifier(data, "student", network=NETWORK, class_weights="balanced")
    assert classifier.class_weights.tolist() == [0.75, 1.0, 1.5]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0, 2.0], "class_weights has 2 numbers, the data 3 classes"),
        ("balance", r"class_weights: wanted .*'balanced'"),
        ([1.0, 0.0, 1.0], r"class_weights: wanted a number greater than 0"),
    ],
)
def test_other_weights_are_refused(given, message):
    data = synthetic(num_classes=3, image_size=8)
    with pytest.raises(UserError, match=message):
        build_classifier(
            data,
            "student",
            **parse_classifier({"network": NETWORK, "class_weights": given}, "student"),
        )
