"""Every head of a network is replaced, wherever it is; one that cannot be found is asked for."""

import sys
import types

import pytest
import torch
import torchvision
from kd_cls.data import synthetic
from kd_cls.libraries.last_layers import last_layers
from kd_cls.networks import build_classifier, check_logits
from kd_core.errors import UserError
from torch import nn


@pytest.fixture(scope="module")
def data():
    return synthetic(image_size=64, num_classes=7, num_train=8, num_test=4, batch_size=4)


@pytest.fixture
def own(monkeypatch):
    """Let a function be named in a node, as `own_nets.net`; return the node."""

    def name(function):
        monkeypatch.setitem(sys.modules, "own_nets", types.SimpleNamespace(net=function))
        return {"type": "own_nets.net"}

    return name


def timm_node(name, **arguments):
    return {"type": "timm.create_model", "model_name": name, **arguments}


def fitted(data, network, **node):
    """Return the network with a new head, after a pass in both modes has shown 7 logits."""
    student = build_classifier(data, "student", network=network, **{"new_head": True, **node})
    check_logits(student, data.train.sample(2), data, "student")
    return student.network


def trained(network):
    return [name for name, parameter in network.named_parameters() if parameter.requires_grad]


class Backbone(nn.Module):
    """Features [N, 6], after a normalisation."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 4), nn.BatchNorm2d(6), nn.ReLU())

    def forward(self, image):
        return self.body(image).mean((2, 3))


class HeadFirst(Backbone):
    """Its head is registered before the rest, which ends in another linear layer."""

    def __init__(self):
        nn.Module.__init__(self)
        self.fc = nn.Linear(6, 5)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 4), nn.BatchNorm2d(6), nn.ReLU())
        self.gate = nn.Linear(6, 6)

    def forward(self, image):
        features = self.body(image).mean((2, 3))
        return self.fc(features * self.gate(features).sigmoid())


class TwoHeads(Backbone):
    """In evaluation the mean of both, in training the first alone."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleDict({"one": nn.Linear(6, 5), "two": nn.Linear(6, 5)})

    def forward(self, image):
        features = super().forward(image)
        one, two = (self.heads[name](features) for name in ("one", "two"))
        return one if self.training else (one + two) / 2


def convolution(*after):
    """Return a network whose head is a convolution, with something behind it."""
    head = nn.Conv2d(6, 5, 1)
    return nn.Sequential(nn.Conv2d(3, 6, 3, 4), nn.BatchNorm2d(6), head, *after)


POOLED = (nn.AdaptiveAvgPool2d(1), nn.Flatten())


class TestTimm:
    @pytest.mark.parametrize(
        ("name", "heads"),
        [
            ("levit_128s", ("head.linear", "head_dist.linear")),
            ("dla34", ("fc",)),
            ("test_resnet", ("fc",)),
            ("test_vit", ("head",)),
        ],
    )
    def test_every_head_is_replaced(self, data, name, heads):
        node = timm_node(name, **({"img_size": 64} if name == "levit_128s" else {}))
        network = build_classifier(data, "student", network=node, new_head=True).network
        assert [len(network.get_submodule(head).weight) for head in heads] == [7] * len(heads)
        assert network.num_classes == 7

    def test_a_network_without_classes_gets_the_head_of_its_library(self, data):
        network = fitted(data, timm_node("test_resnet", num_classes=0))
        assert network.fc.out_features == 7

    def test_only_the_heads_are_trained_in_a_probe(self, data):
        node = timm_node("levit_128s", img_size=64)
        network = fitted(data, node, new_head=False, linear_probe=True, weights="random")
        parts = ("weight", "bias")
        heads = [f"{head}.linear.{part}" for head in ("head", "head_dist") for part in parts]
        assert trained(network) == heads


class TestFollowedBack:
    def test_the_head_need_not_be_the_last_that_is_registered(self, data, own):
        network = fitted(data, own(HeadFirst))
        assert (network.fc.out_features, network.gate.out_features) == (7, 6)

    def test_both_heads_of_a_mean_are_replaced(self, data, own):
        network = fitted(data, own(TwoHeads))
        assert [head.out_features for head in network.heads.values()] == [7, 7]

    def test_a_head_inside_a_submodule_is_replaced(self, data, own):
        network = fitted(data, own(lambda: nn.Sequential(nn.Identity(), TwoHeads())))
        assert network[1].heads["one"].out_features == 7

    def test_a_layer_with_two_names_stays_one(self, data, own):
        def net():
            network = nn.Sequential(Backbone(), nn.Linear(6, 5))
            network.alias = nn.ModuleList([network[1]])
            network.forward = lambda image: network[1](network[0](image))
            return network

        network = fitted(data, own(net))
        assert network.alias[0] is network[1]

    def test_a_convolution_is_replaced(self, data, own):
        network = fitted(data, own(lambda: convolution(*POOLED)))
        assert network[2].out_channels == 7

    def test_a_frozen_network_is_followed_too(self, data, own):
        network = fitted(data, own(lambda: TwoHeads().requires_grad_(False)))
        assert network.heads["one"].out_features == 7

    def test_looking_leaves_no_trace(self):
        network = TwoHeads().train()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        found = last_layers(network, torch.zeros(2, 3, 8, 8), lambda returned: returned)
        assert sorted(found.paths) == ["heads.one", "heads.two"]
        assert all(module.training for module in network.modules())
        assert not any(module._forward_hooks for module in network.modules())
        assert all(torch.equal(network.state_dict()[name], v) for name, v in before.items())


class TestTorchvision:
    @pytest.mark.parametrize(
        ("name", "head"),
        [("squeezenet1_1", "classifier.1"), ("mobilenet_v3_small", "classifier.3")],
    )
    def test_the_classifier_is_replaced_and_no_other_layer(self, data, name, head):
        network = fitted(data, {"type": f"torchvision.models.{name}"})
        plain = getattr(torchvision.models, name)().state_dict()
        state = network.state_dict()
        changed = {name for name in plain if plain[name].shape != state[name].shape}
        assert changed == {f"{head}.weight", f"{head}.bias"}
        assert len(state[f"{head}.weight"]) == 7


class TestFeatures:
    def test_a_linear_layer_is_added_to_features(self, data, own):
        network = fitted(data, own(Backbone))
        assert (network.head.in_features, network.head.out_features) == (6, 7)

    def test_activated_features_are_not_taken_for_logits(self, data, own):
        def net():
            return nn.Sequential(Backbone(), nn.Linear(6, 4), nn.ReLU())

        network = fitted(data, own(net))
        assert network.head.in_features == 4
        assert network.backbone[1].out_features == 4

    def test_a_probe_trains_the_added_layer_alone(self, data, own):
        network = fitted(data, own(Backbone), new_head=False, linear_probe=True, weights="random")
        assert trained(network) == ["head.weight", "head.bias"]

    def test_a_file_may_be_of_the_backbone_or_of_the_whole(self, data, own, tmp_path):
        node, file = own(Backbone), str(tmp_path / "weights.pth")
        backbone = Backbone()
        torch.save(backbone.state_dict(), file)
        network = fitted(data, node, weights=file)
        assert torch.equal(network.backbone.body[0].weight, backbone.body[0].weight)
        torch.save(network.state_dict(), file)
        again = fitted(data, node, weights=file)
        assert torch.equal(again.head.weight, network.head.weight)

    def test_maps_are_refused(self, data, own):
        with pytest.raises(UserError, match=r"has no head and gives \(2, 6, 16, 16\); .* \[N, D\]"):
            fitted(data, own(lambda: Backbone().body))


class TestNamed:
    def test_the_layer_that_is_named_is_replaced(self, data, own):
        network = fitted(data, own(lambda: convolution(nn.ReLU(), *POOLED)), head="2")
        assert network[2].out_channels == 7

    def test_several_may_be_named(self, data, own):
        network = fitted(data, own(TwoHeads), head=["heads.one", "heads.two"])
        assert network.heads["two"].out_features == 7

    def test_a_layer_may_be_added_to_the_output_of_a_head(self, data, own):
        network = fitted(
            data, own(lambda: nn.Sequential(Backbone(), nn.Linear(6, 5))), head="output"
        )
        assert (network.head.in_features, network.head.out_features) == (5, 7)

    @pytest.mark.parametrize(
        ("head", "message"),
        [
            ("heads.on", "has no module 'heads.on'; did you mean 'heads.one'"),
            ("heads", "'heads' is a ModuleDict, wanted a linear layer .*'heads.one'"),
        ],
    )
    def test_what_cannot_be_replaced_is_refused(self, data, own, head, message):
        with pytest.raises(UserError, match=message):
            fitted(data, own(TwoHeads), head=head)

    def test_without_new_head_it_has_no_effect_and_is_refused(self, data, own):
        with pytest.raises(UserError, match=r"student: head='fc' names .* set new_head=True"):
            fitted(data, own(TwoHeads), head="fc", new_head=False)


class TestDoubt:
    def test_an_activated_convolution_may_be_either(self, data, own):
        with pytest.raises(UserError, match=r"in doubt; last are 2 \(Conv2d\)\. Name .*head='2'"):
            fitted(data, own(lambda: convolution(nn.ReLU(), *POOLED)))

    def test_a_parameter_behind_the_head_is_named(self, data, own):
        class Scaled(TwoHeads):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(torch.ones(()))

            def forward(self, image):
                return self.scale * super().forward(image)

        with pytest.raises(UserError, match=r"in doubt; .*, scale\. Name"):
            fitted(data, own(Scaled))

    def test_a_network_that_fails_is_told_with_the_way_on(self, data, own):
        def net():
            return nn.Sequential(nn.Flatten(), nn.Linear(99, 5))

        with pytest.raises(UserError, match=r"student: Sequential fails .* set `size`"):
            fitted(data, own(net))
