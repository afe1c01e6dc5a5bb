"""Files of weights get into networks with and without a neck, old ones too, or are refused."""

import copy

import pytest
import torch
from kd_core.errors import UserError

pytest.importorskip("torchreid")
from kd_reid.neck import attach, neck_of, without_neck
from kd_reid.weights import identities_in, load_backbone, load_checkpoint
from torch import nn


class Small(nn.Module):
    def __init__(self, identities=5):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.bn = nn.BatchNorm2d(4)
        self.classifier = nn.Linear(4, identities)


def small(identities=5, *, neck=False, seed=0):
    torch.manual_seed(seed)
    network = Small(identities)
    if neck:
        attach(network)
    return network


def without_counters(state):
    return {k: value for k, value in state.items() if not k.endswith("num_batches_tracked")}


def same(one, other, names):
    state, others = one.state_dict(), other.state_dict()
    return all(torch.equal(state[name], others[name]) for name in names)


BODY = ["conv.weight", "conv.bias", "bn.weight", "bn.running_var"]


@pytest.mark.parametrize("shorten", [dict, without_counters])
def test_a_backbone_is_everything_but_the_classifier(shorten, tmp_path):
    source, network = small(1000, seed=1), small(5)
    before = network.classifier.weight.clone()
    torch.save(shorten(source.state_dict()), tmp_path / "w.pth")
    load_backbone(network, str(tmp_path / "w.pth"))
    assert same(network, source, BODY)
    assert torch.equal(network.classifier.weight, before)


def test_a_backbone_that_lacks_a_layer_is_refused_and_nothing_is_loaded(tmp_path):
    state = small(seed=1).state_dict()
    del state["conv.bias"]
    torch.save(state, tmp_path / "w.pth")
    network = small()
    with pytest.raises(UserError, match=r"w\.pth.* 1 missing \(conv\.bias\).*backbone_weights"):
        load_backbone(network, str(tmp_path / "w.pth"))
    assert same(network, small(), BODY)


@pytest.mark.parametrize("shorten", [dict, without_counters])
def test_a_plain_file_and_its_neck_make_one_network(shorten, tmp_path):
    source, network = small(neck=True, seed=1), small(neck=True)
    torch.save(without_neck(source), tmp_path / "student.pth")
    torch.save(shorten(neck_of(source).state_dict()), tmp_path / "neck.pth")
    load_checkpoint(network, tmp_path / "student.pth")
    assert same(network, source, [*BODY, "classifier.linear.weight", "classifier.bn.running_mean"])


def test_the_neck_of_other_people_is_refused_by_name_and_nothing_is_loaded(tmp_path):
    torch.save(without_neck(small(neck=True, seed=1)), tmp_path / "student.pth")
    torch.save(neck_of(small(9, neck=True)).state_dict(), tmp_path / "neck.pth")
    network = small(neck=True)
    before = copy.deepcopy(network)
    with pytest.raises(UserError, match=r"neck\.pth.*linear\.weight is \[9, 4\] in the file"):
        load_checkpoint(network, tmp_path / "student.pth")
    assert same(network, before, before.state_dict())


@pytest.mark.parametrize("neck", [False, True])
def test_the_identities_of_a_file_are_those_of_its_classifier(neck, tmp_path):
    torch.save(small(7, neck=neck).state_dict(), tmp_path / "w.pth")
    assert identities_in(str(tmp_path / "w.pth")) == 7
