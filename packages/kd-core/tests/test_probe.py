"""A probe leaves no trace in the model, and finds the taps that must be copied."""

from typing import ClassVar

import pytest
import torch
from kd_core.errors import UserError
from kd_core.networks.probe import (
    calibrate_batchnorm,
    explained,
    shapes,
    tap_values,
    training_pass,
    untouched,
)
from kd_core.networks.taps import FeatureTap, OverwrittenTapError
from kd_core.networks.task import Task
from torch import nn


class Net(nn.Module):
    """BatchNorm, dropout, and two layers that work in place."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.5, inplace=True)
        self.fc = nn.Linear(4, 5)

    def forward(self, batch):
        x = self.relu(self.bn(self.conv(batch["image"])))
        return self.fc(self.drop(self.pool(x).flatten(1)))


def batch():
    return {"image": torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))}


def trace(model):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    return [module.training for module in model.modules()], state, torch.get_rng_state()


def test_a_probe_leaves_modes_statistics_and_generators_as_they_were():
    model = Net().train()
    model.bn.eval()  # a frozen BatchNorm inside a network in training
    model.relu.eval()
    before = trace(model)
    tap_values(model, FeatureTap(model, ["bn", "pool", "output"]), batch())
    torch.testing.assert_close(trace(model), before, rtol=0, atol=0)


def test_a_probe_runs_in_eval_mode_without_gradient():
    model = Net().train()
    with untouched(model):
        assert not any(module.training for module in model.modules())
        assert not model(batch()).requires_grad
    assert torch.is_grad_enabled()


def test_a_probe_that_fails_leaves_no_trace_either():
    model = Net().train()
    before = trace(model)
    with pytest.raises(UserError, match="fed a batch of audio: KeyError: 'image'"):
        tap_values(model, FeatureTap(model, ["bn"]), {"audio": torch.zeros(2)})
    torch.testing.assert_close(trace(model), before, rtol=0, atol=0)
    assert torch.is_grad_enabled()


def test_an_overwritten_tap_is_found_and_from_then_on_copied():
    model = Net().train()
    tap, seen = tap_values(model, FeatureTap(model, ["conv", "bn"]), batch())
    assert tap.copy == ("bn",)
    assert seen["bn"].min() < 0
    with tap as seen:
        model(batch())
    assert seen["bn"].min() < 0


def test_a_tap_before_in_place_dropout_is_found_although_dropout_sleeps_in_eval_mode():
    model = Net().train()
    tap, _ = tap_values(model, FeatureTap(model, ["pool", "fc"]), batch())
    assert tap.copy == ("pool",)
    with tap as seen:
        model(batch())
    assert seen["pool"].shape == (2, 4, 1, 1)


def test_dropout_of_a_model_in_eval_mode_stays_off():
    model = Net().eval()
    tap, seen = tap_values(model, FeatureTap(model, ["drop", "pool"]), batch())
    assert tap.copy == ()
    torch.testing.assert_close(seen["drop"], seen["pool"].flatten(1))


def test_copies_that_were_asked_for_are_kept_when_others_are_found():
    model = Net().train()
    tap = FeatureTap(model, ["bn", "pool"], copy=["bn"])
    tap, _ = tap_values(model, tap, batch())
    assert tap.copy == ("bn", "pool")


def test_other_errors_of_a_tap_are_not_hidden():
    model = Net()
    model.unused = nn.Linear(1, 1)
    with pytest.raises(UserError, match="tap 'unused': the module did not run") as caught:
        tap_values(model, FeatureTap(model, ["unused", "bn"]), batch())
    assert not isinstance(caught.value, OverwrittenTapError)


def test_shapes_leave_out_the_batch_and_keep_the_structure():
    image = torch.zeros(2, 3, 6, 5)
    value = {"a": (image, [image[:, 0]]), "b": {"c": torch.zeros(2)}, "d": "text"}
    assert shapes(value) == {"a": ((3, 6, 5), ((6, 5),)), "b": {"c": ()}, "d": None}


def test_settled_network_has_maps_of_unit_size():
    layers = [layer for _ in range(8) for layer in (nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))]
    network = nn.Sequential(*layers).eval()
    for layer in network[::2]:
        nn.init.normal_(layer.weight, std=10.0)
    image = torch.randn(2, 4, 8, 8)
    assert network(image).std() > 1e3
    calibrate_batchnorm(network, image)
    assert network(image).std().item() == pytest.approx(1, abs=0.05)
    assert not network[1]._forward_pre_hooks
    assert not network.training


class Failing(nn.Module):
    """Fails in training only, if so wanted."""

    def __init__(self, training_only: bool = False) -> None:
        super().__init__()
        self.training_only = training_only
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images):
        if self.training or not self.training_only:
            self.norm(images)
            raise RuntimeError("expected 1 channel, got 3\nand more")
        return images


class Plain(Task):
    def forward(self, batch):
        return self.network(batch["image"])


class TestFirstPass:
    batch: ClassVar = {"image": torch.rand(2, 3, 4, 4)}

    def test_a_failure_says_which_network_was_fed_what_and_said_what(self):
        with pytest.raises(UserError) as caught, explained(Plain(Failing()), self.batch):
            Plain(Failing())(self.batch)
        for part in ("Failing failed", "[2, 3, 4, 4]", "float32", "expected 1 channel, got 3"):
            assert part in str(caught.value)
        assert "more" not in str(caught.value)

    def test_weights_of_another_type_are_said(self):
        network = nn.Conv2d(3, 1, 1).double()
        with pytest.raises(UserError, match=r"weights are torch\.float64, wanted torch\.float32"):
            tap_values(Plain(network), FeatureTap(network, "output"), self.batch)

    def test_a_lack_of_memory_is_not_the_network_s(self):
        with pytest.raises(MemoryError), explained(Plain(Failing()), self.batch):
            raise MemoryError

    def test_what_fails_in_training_only_is_found_and_leaves_no_trace(self):
        model = Plain(Failing(training_only=True)).eval()
        before, random = model.network.norm.running_mean.clone(), torch.get_rng_state()
        with pytest.raises(UserError, match="Failing failed"):
            training_pass(model, self.batch)
        assert torch.equal(model.network.norm.running_mean, before)
        assert torch.equal(torch.get_rng_state(), random)
        assert not model.training
