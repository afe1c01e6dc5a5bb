"""A config node becomes a classifier, with classes and statistics filled in; no download here."""

import pytest
import torch
import torchvision
from kd_cls.classifier import Classifier
from kd_cls.data import synthetic
from kd_cls.libraries.pretrained import pretrained_facts
from kd_cls.networks import (
    build_classifier,
    check_logits,
    class_count,
    parse_classifier,
)
from kd_core.errors import UserError
from kd_core.experiment.models import without_pretrained
from torch import nn

ZOO = {"type": "kd_cls.models.build_model", "name": "resnet8"}
SHUFFLENET = {"type": "torchvision.models.shufflenet_v2_x0_5"}
IMAGENET = torch.tensor([0.485, 0.456, 0.406])


@pytest.fixture
def data():
    return synthetic(image_size=32, num_classes=7, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


@pytest.fixture
def batch():
    return {"image": torch.zeros(2, 3, 32, 32, dtype=torch.uint8)}


@pytest.fixture
def download(monkeypatch):
    """Let torchvision "download" what the constructor initialises; return what was given out."""
    given = []

    def from_url(url, *args, **kwargs):
        torch.manual_seed(1)
        given.append(torchvision.models.shufflenet_v2_x0_5().state_dict())
        return given[-1]

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", from_url)
    return given


def mean_of(classifier):
    return classifier.mean.flatten()


class TestBuild:
    @pytest.mark.parametrize("network", [ZOO, SHUFFLENET], ids=["zoo", "torchvision"])
    def test_the_number_of_classes_is_filled_in(self, data, batch, network):
        assert class_count(build_classifier(data, "student", network=network), batch) == 7

    def test_a_given_number_of_classes_wins(self, data, batch):
        classifier = build_classifier(data, "teacher", network={**ZOO, "num_classes": 9})
        assert class_count(classifier, batch) == 9

    def test_statistics_are_the_data_s_or_those_of_the_node(self, data):
        assert mean_of(build_classifier(data, "student", network=ZOO)).tolist() == pytest.approx(
            [0.1, 0.2, 0.3]
        )
        own = {"mean": (0.5, 0.5, 0.5), "std": (1, 1, 1)}
        classifier = build_classifier(data, "student", network=ZOO, **own)
        assert mean_of(classifier).tolist() == [0.5] * 3
        assert classifier.std.flatten().tolist() == [1.0] * 3

    def test_weights_are_loaded_from_a_file(self, data, tmp_path):
        trained = build_classifier(data, "student", network=ZOO).network
        torch.save(trained.state_dict(), tmp_path / "weights.pth")
        file = str(tmp_path / "weights.pth")
        loaded = build_classifier(data, "student", network=ZOO, weights=file).network
        assert torch.equal(loaded.conv1.weight, trained.conv1.weight)

    def test_missing_weights_are_named_with_their_place_and_neighbour(self, data, tmp_path):
        (tmp_path / "weights.pth").touch()
        with pytest.raises(UserError, match=r"student: no weights file .*'weights\.pth'\?"):
            build_classifier(data, "student", network=ZOO, weights=str(tmp_path / "weihgts.pth"))

    def test_what_is_no_network_is_refused(self, data):
        node = {"type": "builtins.dict"}
        with pytest.raises(UserError, match=r"network\.type: builtins\.dict is Python's own"):
            build_classifier(data, "student", network=node)


class TestPretrained:
    def test_a_pretrained_network_keeps_classes_weights_and_statistics(self, data, batch, download):
        node = {**SHUFFLENET, "weights": "IMAGENET1K_V1"}
        classifier = build_classifier(data, "teacher", network=node)
        assert class_count(classifier, batch) == 1000
        assert torch.equal(classifier.network.fc.weight, download[0]["fc.weight"])
        torch.testing.assert_close(mean_of(classifier), IMAGENET)

    def test_a_new_head_has_the_data_s_classes_on_pretrained_features(self, data, batch, download):
        node = {**SHUFFLENET, "weights": "DEFAULT"}
        classifier = build_classifier(data, "student", network=node, new_head=True)
        assert class_count(classifier, batch) == 7
        weights = classifier.network.conv5[0].weight
        assert torch.equal(weights, download[0]["conv5.0.weight"])

    def test_random_weights_are_asked_for_without_a_download(self, data, batch, download):
        node = {**SHUFFLENET, "weights": "DEFAULT"}
        classifier = build_classifier(data, "teacher", network=node, weights="random")
        assert download == []
        assert class_count(classifier, batch) == 1000  # as the pretrained one, for the checks
        torch.testing.assert_close(mean_of(classifier), IMAGENET)

    @pytest.mark.parametrize(
        "node",
        [
            {**SHUFFLENET, "weights": "DEFAULT"},
            {**SHUFFLENET, "weights": "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"},
            {**SHUFFLENET, "pretrained": True},
            {"type": "torchvision.models.get_model", "name": "vgg11", "weights": "DEFAULT"},
        ],
    )
    def test_torchvision_s_statistics_are_known_however_it_is_called(self, node):
        found = pretrained_facts(nn.Identity(), node)
        assert (found.mean, found.std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

    @pytest.mark.parametrize("node", [SHUFFLENET, {**SHUFFLENET, "weights": None}, ZOO])
    def test_an_untrained_network_has_none(self, node):
        assert pretrained_facts(nn.Identity(), node) is None

    def test_timm_s_statistics_are_known(self):
        timm = pytest.importorskip("timm")
        network = timm.create_model("test_vit", pretrained=False)
        node = {"type": "timm.create_model", "model_name": "test_vit"}
        assert pretrained_facts(network, node) is None
        found = pretrained_facts(network, {**node, "pretrained": True})
        assert tuple(found.mean) == tuple(network.pretrained_cfg["mean"])
        assert tuple(found.std) == tuple(network.pretrained_cfg["std"])
        assert tuple(found.size) == tuple(network.pretrained_cfg["input_size"][1:])

    def test_only_what_a_node_says_is_switched_off(self):
        assert without_pretrained(ZOO) == ZOO
        assert without_pretrained({**ZOO, "pretrained": True}) == {**ZOO, "pretrained": False}
        assert without_pretrained({**SHUFFLENET, "weights": "x"})["weights"] is None


class TestCheck:
    def test_good_nodes_pass(self):
        parse_classifier({"network": ZOO, "weights": "a.pth", "size": 64}, "student")
        parse_classifier({"network": {**SHUFFLENET, "weights": "IMAGENET1K_V1"}}, "teacher")

    @pytest.mark.parametrize(
        ("node", "message"),
        [
            ({"netwrk": ZOO}, r"student: .* has no parameter 'netwrk'; did you mean 'network'"),
            ({}, r"student: .* needs 'network'; set student.network"),
            ({"network": "resnet8"}, r"student\.network: wanted a dict with `type`.*'resnet8'"),
            ({"network": {"name": "resnet8"}}, r"student\.network: wanted a dict with `type`"),
            (
                {"network": {"type": "torch.nn.Linear", "in_featurs": 1}},
                r"student\.network: .* no parameter 'in_featurs'; did you mean 'in_features'",
            ),
            ({"network": ZOO, "data": 1}, "has no parameter 'data'"),
            (
                {"network": {"type": "torchvision.models.resnet81"}},
                r"student\.network\.type: torchvision\.models has no 'resnet81'.*'resnet18'",
            ),
            (
                {"network": {**SHUFFLENET, "weights": "IMAGENET1K_V2"}},
                r"student\.network: shufflenet_v2_x0_5 has no weights .*'IMAGENET1K_V1'",
            ),
        ],
    )
    def test_mistakes_are_found_without_building(self, node, message):
        with pytest.raises(UserError, match=message):
            parse_classifier(node, "student")

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [({"name": "resnet8x3"}, "resnet8x3.*'resnet8x4'"), ({"nme": 1}, "argument 'nme'")],
    )
    def test_mistakes_in_the_zoo_s_arguments_are_found_in_building(self, data, wrong, message):
        with pytest.raises(UserError, match=rf"student\.network: .*{message}"):
            build_classifier(data, "student", network={**ZOO, **wrong})


class TestLogits:
    def test_another_number_than_the_data_s_classes_is_refused(self, data, batch):
        student = build_classifier(data, "student", network={**ZOO, "num_classes": 9})
        with pytest.raises(UserError, match=r"student: .* 9 logits, the data has 7 .*new_head"):
            check_logits(student, batch, data, "student")

    def test_looking_leaves_no_trace(self, data, batch):
        student = build_classifier(data, "student", network=ZOO).train()
        before = {name: value.clone() for name, value in student.state_dict().items()}
        check_logits(student, batch, data, "student")
        assert student.training
        assert all(torch.equal(student.state_dict()[name], v) for name, v in before.items())

    def test_what_is_no_logits_is_named_with_its_place(self, data, batch):
        with pytest.raises(UserError, match="teacher: Identity returned"):
            check_logits(Classifier(nn.Identity()), batch, data, "teacher")


def test_without_pretrained_reaches_the_network_inside_another():
    inner = {"type": "torchvision.models.resnet18", "weights": "DEFAULT"}
    node = without_pretrained({"type": "x.Deployed", "network": inner, "tap": "layer4"})
    assert node["network"] == {"type": "torchvision.models.resnet18", "weights": None}
    assert node["tap"] == "layer4"
    assert inner["weights"] == "DEFAULT"
