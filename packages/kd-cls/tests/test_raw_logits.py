"""A softmax or sigmoid at a network's end is noticed, for student and teacher."""

import pytest
import torch
from kd_cls.classifier import Classifier
from kd_core import Distiller
from kd_core.errors import UserError
from torch import nn


class Applied(nn.Module):
    """Applies a function, which is not a module, to the logits of a network."""

    def __init__(self, function, classes):
        super().__init__()
        self.network, self.function = plain(classes), function

    def forward(self, image):
        return self.function(self.network(image))


def plain(classes=10):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, classes))


BATCH = {"image": torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))}


def softmax(logits):
    return logits.softmax(1)


@pytest.mark.parametrize(
    ("network", "name"),
    [
        (nn.Sequential(plain(), nn.Softmax(1)), "softmax"),
        (nn.Sequential(plain(2), nn.Softmax(1)), "softmax"),
        (Applied(softmax, 10), "softmax"),
        (Applied(lambda logits: softmax(logits.half()), 10), "softmax"),
        (nn.Sequential(plain(), nn.Sigmoid()), "sigmoid"),
        (nn.Sequential(plain(1), nn.Sigmoid()), "sigmoid"),
    ],
)
def test_probabilities_in_the_place_of_logits_are_refused(network, name):
    with pytest.raises(UserError, match=f"ends in a {name}: it gives probabilities"):
        Classifier(network).check_sample(BATCH)


@pytest.mark.parametrize("who", ["student", "teacher 'teacher'"])
def test_that_is_said_of_student_and_teacher_before_training(who):
    models = [Classifier(Applied(softmax, 10)), Classifier(plain())]
    pair = models if who == "student" else models[::-1]
    with pytest.raises(UserError, match=f"{who}: Applied ends in a softmax"):
        Distiller(*pair, {}, sample=BATCH)


@pytest.mark.parametrize(
    ("network", "text"),
    [
        (Applied(lambda logits: logits.log_softmax(1), 10), "ends in a log_softmax"),
        (nn.Sequential(plain(), nn.LogSoftmax(1)), "ends in a log_softmax"),
        (Applied(torch.sigmoid, 10), "does it end in a sigmoid?"),
    ],
)
def test_what_may_be_meant_is_told_in_one_line(network, text, capsys):
    Classifier(network).check_sample(BATCH)
    assert text in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "network",
    [
        plain(),
        plain(1),
        nn.Sequential(nn.Softmax(1), plain()),
        Applied(lambda logits: 0 * logits, 10),
        Applied(lambda logits: logits.relu(), 10),
        Applied(torch.sigmoid, 2),  # too few to be sure
    ],
)
def test_logits_are_left_alone(network, capsys):
    classifier = Classifier(network).train()
    classifier.check_sample(BATCH)
    classifier.check_sample({"image": BATCH["image"][:0]})
    assert capsys.readouterr().err == ""
    assert classifier.training
    assert not any(module._forward_hooks for module in network.modules())
