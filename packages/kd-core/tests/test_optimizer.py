"""build_optimizer: fused with a rate on the device where that exists."""

import pytest
import torch
from kd_core.errors import UserError
from kd_core.training.optimizer import build_optimizer, parse_optimizer
from torch import nn


class SignDescent(torch.optim.Optimizer):
    """Someone's own optimizer: not fused, with a float as its rate."""

    def __init__(self, params, lr=0.5, power=1.0):
        super().__init__(params, {"lr": lr, "power": power})


class Rateless(torch.optim.Optimizer):
    """An optimizer that finds its rate itself."""

    def __init__(self, params, fused=False):
        super().__init__(params, {"fused": fused})


class Sharp(SignDescent):
    """Asks for a closure that its signature does not ask for."""

    def step(self, closure=None):
        assert closure is not None, "Sharp wants a closure"


class Lost(SignDescent):
    """Fails in its step by a bug of its own."""

    def step(self, closure=None):
        return self.state["gone"]["gone"]


def model():
    return nn.Linear(3, 2)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_the_fused_form_is_used_with_a_rate_on_the_device(name):
    built = build_optimizer({"type": f"torch.optim.{name}", "lr": 0.25}, model())
    (group,) = built.param_groups
    assert type(built) is getattr(torch.optim, name)
    assert group["fused"] is True
    assert isinstance(group["lr"], torch.Tensor)
    assert group["lr"].device == group["params"][0].device
    assert group["lr"] == 0.25


def test_the_default_rate_is_that_of_the_optimizer():
    (group,) = build_optimizer({"type": "torch.optim.AdamW"}, model()).param_groups
    assert group["lr"] == torch.tensor(1e-3)


@pytest.mark.parametrize("choice", [{"fused": False}, {"foreach": True}])
def test_the_user_s_own_choice_is_left_alone(choice):
    node = {"type": "torch.optim.SGD", "lr": 0.25, **choice}
    (group,) = build_optimizer(node, model()).param_groups
    assert group["lr"] == 0.25
    assert isinstance(group["lr"], float)
    assert {key: group[key] for key in choice} == choice


def test_an_optimizer_that_is_not_fused_gets_a_float():
    built = build_optimizer({"type": SignDescent, "lr": 0.25, "power": 2.0}, model())
    assert built.param_groups[0]["lr"] == 0.25
    assert isinstance(built.param_groups[0]["lr"], float)
    assert built.param_groups[0]["power"] == 2.0


def test_an_optimizer_without_a_rate_is_built():
    assert isinstance(build_optimizer({"type": Rateless}, model()), Rateless)


def test_frozen_parameters_are_left_out_and_nothing_but_frozen_is_an_error():
    layer = nn.Linear(3, 2)
    layer.weight.requires_grad_(False)
    built = build_optimizer({"type": "torch.optim.SGD", "lr": 0.1}, layer)
    assert built.param_groups[0]["params"] == [layer.bias]
    layer.requires_grad_(False)
    with pytest.raises(UserError, match="optimizer: nothing to train"):
        build_optimizer({"type": "torch.optim.SGD", "lr": 0.1}, layer)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"type": "torch.optim.SDG"}, "did you mean 'SGD'"),
        ({"type": "torch.optim.SGD", "momentun": 0.9}, "did you mean 'momentum'"),
        ({"lr": 0.1}, "wanted a dict with `type`"),
    ],
)
def test_a_wrong_node_is_the_user_s_error(node, message):
    with pytest.raises(UserError, match=message):
        build_optimizer(node, model())


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (Sharp, "Sharp fails .*AssertionError Sharp wants a closure"),
        (Lost, "Lost fails .*KeyError 'gone'"),
        (SignDescent, "SignDescent fails .*NotImplementedError$"),
    ],
)
def test_one_that_cannot_take_a_step_is_refused_when_the_config_is_read(kind, told):
    with pytest.raises(UserError, match=rf"^optimizer: .*{told}"):
        parse_optimizer({"type": kind})
