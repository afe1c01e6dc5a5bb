"""How tasks build a student or teacher from its node: the network, its weights, its task."""

import pytest
import torch
from kd_core.errors import UserError
from kd_core.experiment.models import build_task, is_pretrained, require_logits, weights_file
from kd_core.networks.task import Task
from torch import nn


class Net(nn.Module):
    """Remembers its arguments, and what was done to it since."""

    def __init__(self, num_classes: int, pretrained: bool = False) -> None:
        super().__init__()
        self.did = [f"built for {num_classes}, pretrained {pretrained}"]


def note(network):
    network.did.append("prepared")
    return network


def build(pretrained, prepare=note):
    node = {"type": Net, "pretrained": True}

    def wrap(network):
        network.did.append("wrapped")
        return Task(network)

    return build_task(
        node, "student", pretrained=pretrained, prepare=prepare, wrap=wrap, num_classes=7
    )


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_network_is_built_then_prepared_then_wrapped(pretrained):
    task = build(pretrained)
    assert isinstance(task, Task)
    assert task.network.did == [f"built for 7, pretrained {pretrained}", "prepared", "wrapped"]


def test_what_fails_on_the_way_names_the_place_in_the_config():
    def fail(network):
        raise UserError("does not fit")

    with pytest.raises(UserError, match=r"^student: does not fit$"):
        build(False, fail)


@pytest.mark.parametrize(
    ("weights", "file"), [(None, None), ("", None), ("random", None), ("a.pth", "a.pth")]
)
def test_weights_name_a_file_unless_there_is_none_or_they_are_random(weights, file):
    assert weights_file(weights) == file


@pytest.mark.parametrize(
    ("more", "asks"),
    [({}, False), ({"weights": "DEFAULT"}, True), ({"pretrained": True}, True)],
)
def test_a_network_is_pretrained_if_its_node_asks_its_library(more, asks):
    assert is_pretrained({"type": "x.net", "pretrained": False, "weights": None, **more}) is asks


def test_logits_of_another_number_than_the_data_s_classes_are_refused_with_both():
    require_logits(torch.zeros(2, 5).shape[1], 5, "student", "classes")
    with pytest.raises(UserError, match=r"^student: .* 5 logits, the data has 7 classes; set x"):
        require_logits(5, 7, "student", "classes; set x")
