"""Logits among a network's outputs: named, known, or asked for; taps and files agree with them."""

import json
import sys
import types
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from pathlib import Path

import pytest
import timm
import torch
from kd_cls import train
from kd_cls.adapter import ADAPTER
from kd_cls.classifier import Classifier
from kd_cls.data import synthetic
from kd_cls.exporting import export
from kd_cls.networks import build_classifier, check_logits
from kd_cls.student import load_student
from kd_core.config.trusted import trusting
from kd_core.errors import UserError
from kd_core.networks.tap_paths import entry
from torch import nn

BATCH = {"image": torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "label": torch.zeros(2).long()}
Pair = namedtuple("Pair", "main aux")


@dataclass
class Output:
    main: torch.Tensor
    aux: torch.Tensor


KINDS = {
    "a tuple": (lambda main, aux: (aux, main), 1),
    "a dict": (lambda main, aux: {"aux": aux, "main": main}, "main"),
    "a named tuple": (lambda main, aux: Pair(main, aux), "main"),
    "a dataclass": (Output, "main"),
}


class Several(nn.Module):
    """Returns its logits and others, in the form that `wrap` gives them."""

    def __init__(self, num_classes=7, wrap=Output):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2)
        self.fc, self.aux = nn.Linear(4, num_classes), nn.Linear(4, num_classes)
        self.wrap = wrap

    def forward(self, image):
        features = self.conv(image).mean((2, 3))
        return self.wrap(self.fc(features), self.aux(features))


def main_net(num_classes=7):
    return Several(num_classes, KINDS["a dict"][0])


class ModelOutput(OrderedDict):
    """As transformers has it: a dict whose values are attributes too."""


class PreTrainedModel(nn.Module):
    """Stands for transformers' class of this name."""


class TinyForImageClassification(PreTrainedModel):
    def __init__(self, num_classes=5):
        super().__init__()
        self.config = types.SimpleNamespace(return_dict=True, num_labels=num_classes)
        self.num_labels = num_classes
        self.conv = nn.Conv2d(3, 4, 3, 2)
        self.classifier = nn.Linear(4, num_classes)

    def forward(self, pixel_values):
        return ModelOutput(logits=self.classifier(self.conv(pixel_values).mean((2, 3))))


class TinyModel(PreTrainedModel):
    """A backbone: maps and a pooled vector [N, D, 1, 1]."""

    def __init__(self):
        super().__init__()
        self.config = types.SimpleNamespace(return_dict=True)
        self.conv = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, pixel_values):
        maps = self.conv(pixel_values)
        return ModelOutput(last_hidden_state=maps, pooler_output=maps.mean((2, 3), keepdim=True))


@pytest.fixture(autouse=True)
def nets(monkeypatch, tmp_path):
    """Name the networks of this file by import path; work in an empty folder."""
    names = (main_net, TinyForImageClassification, TinyModel)
    module = types.SimpleNamespace(**{net.__name__: net for net in names})
    monkeypatch.setitem(sys.modules, "nets_of_outputs", module)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def data():
    return synthetic(image_size=32, num_classes=7, num_train=8, num_test=4, batch_size=4)


def node(name, **arguments):
    return {"type": f"nets_of_outputs.{name}", **arguments}


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_taken_by_name_or_number(kind):
    wrap, key = KINDS[kind]
    network = Several(7, wrap)
    classifier = Classifier(network, output=key).eval()
    features = network.conv(classifier.prepare(BATCH["image"])).mean((2, 3))
    torch.testing.assert_close(classifier(BATCH), network.fc(features))


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_name_the_question_lists_the_entries(kind):
    with pytest.raises(UserError, match=r"Several returned a .*\(2, 7\).*: say which .* output='"):
        Classifier(Several(7, KINDS[kind][0])).eval()(BATCH)


@pytest.mark.parametrize(
    ("key", "message"),
    [("mian", "output='mian': no such key; did you mean 'main'"), (5, "output=5: no such key")],
)
def test_a_wrong_name_gets_the_nearest(key, message):
    with pytest.raises(UserError, match=message):
        Classifier(Several(7), output=key).eval()(BATCH)


def test_an_entry_of_a_single_tensor_is_refused(data):
    network = {"type": "kd_cls.models.build_model", "name": "resnet8"}
    student = build_classifier(data, "student", network=network, output="logits")
    with pytest.raises(UserError, match="student: output='logits': a Tensor has no entries"):
        check_logits(student, data.train.sample(2), data, "student")


def test_negative_numbers_count_from_the_end():
    assert entry((1, 2, 3), "-1", "x") == 3
    assert entry(Pair(1, 2), "0", "x") == 1


CONFIG = """
data = dict(type="kd_cls.data.synthetic", num_train=8, num_test=4, num_classes=7, batch_size=4)
student = dict(network=dict(type="nets_of_outputs.main_net"), output="main")
teacher = dict(network=dict(type="nets_of_outputs.main_net"), output="main", weights="random")
distiller = dict(
    terms=dict(
        default=dict(criterion=dict(type="kd_core.criteria.KD")),
        named=dict(
            criterion=dict(type="kd_core.criteria.KD"),
            student="output[main]",
            teacher="output[main]",
        ),
    )
)
optimizer = dict(type="torch.optim.SGD", lr=0.1)
schedule = dict(type="kd_core.training.schedule.constant")
trainer = dict(epochs=1)
"""


def test_taps_by_default_by_name_and_the_exported_student_agree():
    Path("config.py").write_text(CONFIG)
    assert train.main(["config.py", "--work-dir", "run"]) == 0
    log = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
    assert log[0]["loss_default"] == log[0]["loss_named"] > 0
    with trusting("nets_of_outputs.main_net"):
        student = load_student("run")
        assert student.output == "main"
        network = student.network
        shown = network(student.prepare(BATCH["image"]))["main"]
        torch.testing.assert_close(student(BATCH), shown)
        done = export("run", Path("student.pt2"), with_normalization=False)
    assert done.difference < 1e-4


class TestHuggingFace:
    def test_the_logits_of_a_classifier_are_known(self, data):
        student = build_classifier(data, "student", network=node("TinyForImageClassification"))
        check_logits(student, data.train.sample(2), data, "student")
        assert student.roles["logits"] == "output[logits]"

    def test_its_head_is_replaced_and_its_number_of_labels_follows(self, data):
        network = node("TinyForImageClassification", num_classes=5)
        student = build_classifier(data, "student", network=network, new_head=True)
        check_logits(student, data.train.sample(2), data, "student")
        assert student.network.classifier.out_features == 7
        assert student.network.config.num_labels == student.network.num_labels == 7

    def test_a_backbone_gets_a_head_on_the_output_that_is_named(self, data):
        network = node("TinyModel")
        with pytest.raises(UserError, match=r"TinyModel returned .* output='pooler_output'"):
            build_classifier(data, "student", network=network, new_head=True)
        student = build_classifier(
            data, "student", network=network, new_head=True, output="pooler_output"
        )
        check_logits(student, data.train.sample(2), data, "student")
        exported = ADAPTER.exported_node(network, student)
        with trusting("nets_of_outputs.TinyModel"):
            again = build_classifier(data, "student", network=exported)
        again.network.load_state_dict(student.network.state_dict())
        assert torch.equal(again.eval()(BATCH), student.eval()(BATCH))


class TestAuxiliary:
    def test_torchvision_s_are_switched_off_and_it_is_said(self, data, capsys):
        network = {"type": "torchvision.models.googlenet", "init_weights": False}
        student = build_classifier(data, "student", network=network)
        assert "GoogLeNet: its auxiliary classifiers are switched off" in capsys.readouterr().err
        student.train()
        student(data.train.sample(2))["ce"].backward()
        assert all(parameter.grad is not None for parameter in student.network.parameters())


class TestDistilled:
    def test_in_training_the_class_token_s_logits_count_and_later_the_mean(self):
        network = timm.create_model(
            "deit_tiny_distilled_patch16_224", img_size=32, depth=1, embed_dim=12, num_classes=7
        )
        network.set_distilled_training()
        classifier = Classifier(network, mean=(0.5,) * 3, std=(0.5,) * 3)
        head, head_dist = network(classifier.prepare(BATCH["image"]))
        expected = nn.functional.cross_entropy(head, BATCH["label"])
        torch.testing.assert_close(classifier(BATCH)["ce"], expected)
        torch.testing.assert_close(classifier.eval()(BATCH), (head + head_dist) / 2)
