"""LossMeter and check_weights: means, and the first value that is not finite."""

import math

import pytest
import torch
from kd_core.errors import UserError
from kd_core.training.meter import LossMeter, NonFiniteLossError, check_weights
from torch import nn


def meter_of(**values):
    """Return a meter that saw these losses, one of each name a step."""
    meter = LossMeter()
    for step in zip(*values.values(), strict=True):
        meter.update(dict(zip(values, map(torch.tensor, step), strict=True)))
    return meter


def test_means_are_those_of_the_steps():
    meter = meter_of(ce=[1.0, 2.0, 6.0], kd=[0.5, 0.0, 0.25])
    assert meter.means() == {"ce": 3.0, "kd": 0.25}
    assert meter.means(local=True) == meter.means()


def test_means_do_not_lose_small_values_in_a_long_epoch():
    meter = meter_of(ce=[2.0**24, *[1.0] * 4])  # float32 sums would drop every 1
    assert meter.means() == {"ce": (2.0**24 + 4) / 5}


def test_a_reset_forgets_and_keeps_the_memory():
    meter = meter_of(ce=[1.0, math.nan])
    address = meter._sums.data_ptr(), meter._first_bad.data_ptr()
    meter.reset()
    meter.check(first_step=1)
    meter.update({"ce": torch.tensor(5.0)})
    assert meter.means() == {"ce": 5.0}
    assert (meter._sums.data_ptr(), meter._first_bad.data_ptr()) == address


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_step_that_is_not_finite_is_named(value):
    meter = meter_of(ce=[1.0, 1.0, value, 1.0, math.nan], kd=[1.0] * 5)
    with pytest.raises(NonFiniteLossError, match=r"^loss 'ce' is not finite since step 103;"):
        meter.check(first_step=101)


def test_the_loss_that_went_first_is_blamed_not_the_one_listed_first():
    nan = math.nan
    with pytest.raises(NonFiniteLossError, match=r"loss 'kd' is not finite since step 2;"):
        meter_of(ce=[1.0, 1.0, nan], kd=[1.0, nan, nan]).check(first_step=1)
    with pytest.raises(NonFiniteLossError, match=r"loss 'ce', 'kd' is not finite since step 3;"):
        meter_of(ce=[1.0, 1.0, nan], kd=[1.0, 1.0, nan]).check(first_step=1)


def test_finite_losses_and_an_empty_meter_pass():
    meter_of(ce=[1.0, 3e38]).check(first_step=1)
    LossMeter().check(first_step=1)
    assert LossMeter().means() == {}


def test_a_meter_resumes_from_its_saved_state():
    meter = meter_of(ce=[1.0, math.inf], kd=[2.0, 4.0])
    saved = meter.state_dict()
    resumed = LossMeter()
    resumed.load_state_dict(saved, torch.device("cpu"))
    for each in (meter, resumed):
        each.update({"ce": torch.tensor(1.0), "kd": torch.tensor(9.0)})
    assert resumed.means()["kd"] == meter.means()["kd"] == 5.0
    with pytest.raises(NonFiniteLossError, match=r"'ce' is not finite since step 2;"):
        resumed.check(first_step=1)


def test_losses_cannot_change_their_names():
    meter = meter_of(ce=[1.0])
    with pytest.raises(UserError, match=r"\['ce'\] to \['kd'\]"):
        meter.update({"kd": torch.tensor(1.0)})


def test_a_weight_that_is_not_finite_is_named():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    check_weights(network, step=7)
    network[1].bias.data[0] = math.nan
    with pytest.raises(NonFiniteLossError, match=r"parameter '1.bias' is not finite after step 7"):
        check_weights(network, step=7)
    network[0].bias.data[0] = math.inf
    with pytest.raises(NonFiniteLossError, match=r"'0.bias' \(and 1 more\) is not finite"):
        check_weights(network, step=7)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_statistics_that_are_not_finite_are_named(name, value):
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    check_weights(network, step=7)
    getattr(network[1], name)[1] = value
    with pytest.raises(NonFiniteLossError, match=f"buffer '1.{name}' is not finite after step 7"):
        check_weights(network, step=7)
    check_weights(network, step=7, unbounded={f"1.{name}"})


def test_a_mask_that_is_no_part_of_the_state_does_not_count():
    network = nn.Linear(2, 2)
    network.register_buffer("mask", torch.tensor([0.0, -math.inf]), persistent=False)
    check_weights(network, step=7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e5m2])
def test_weights_of_every_precision_are_looked_through_and_empty_ones_are_finite(dtype):
    network = nn.Module()
    network.empty = nn.Parameter(torch.empty(0, 3, dtype=dtype), requires_grad=False)
    network.weight = nn.Parameter(torch.ones(4).to(dtype), requires_grad=False)
    check_weights(network, step=7)
    network.weight[2] = math.nan
    with pytest.raises(NonFiniteLossError, match="parameter 'weight' is not finite"):
        check_weights(network, step=7)
