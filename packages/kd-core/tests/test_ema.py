"""ModelAverage: the moving average of a network's weights."""

import pytest
import torch
from kd_core.errors import UserError
from kd_core.training.ema import ModelAverage
from torch import nn


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))


def test_the_average_follows_its_formula():
    net = network()
    average = ModelAverage(net, 0.75)
    expected = net[0].weight.detach().clone()
    for step in range(3):
        with torch.no_grad():
            net[0].weight.add_(step + 1.0)
        average.update(net)
        expected = 0.75 * expected + 0.25 * net[0].weight.detach()
    torch.testing.assert_close(average.network[0].weight, expected)


def test_statistics_are_copied():
    net = network()
    average = ModelAverage(net, 0.9)
    net(torch.randn(8, 3))
    assert not torch.equal(average.network[1].running_mean, net[1].running_mean)
    average.update(net)
    for kept, buffer in zip(average.network.buffers(), net.buffers(), strict=True):
        assert torch.equal(kept, buffer)


def test_the_average_is_a_copy_for_evaluation():
    net = network()
    average = ModelAverage(net, 0.9)
    assert net.training
    assert not any(module.training for module in average.network.modules())
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    average.update(net.train())
    assert not average.network.training
    assert all(p.data_ptr() != q.data_ptr() for p, q in zip(
        average.network.parameters(), net.parameters(), strict=True))  # fmt: skip


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, 1.5])
def test_a_decay_that_averages_nothing_is_refused(decay):
    with pytest.raises(UserError, match=r"decay: wanted a number (greater|less) than [01]"):
        ModelAverage(network(), decay)
