"""A network's logits are selected and reordered by the names of classes."""

import pytest
import torch
from kd_core.errors import UserError
from kd_core.networks.class_order import places_of, select_classes
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.prune import l1_unstructured


class TwoHeads(nn.Module):
    """Gives the mean of two heads, whose width is that of a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 5)
        self.head, self.other = nn.Linear(5, 5), nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x).relu()
        return (self.head(x) + self.other(x)) / 2


def flat(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), *layers)


def pruned() -> nn.Module:
    return flat(l1_unstructured(nn.Linear(4, 5), "weight", 0.3))


NETWORKS = {
    "linear": lambda: flat(nn.Linear(4, 5)),
    "without_bias": lambda: flat(nn.Linear(4, 5, bias=False)),
    "two_heads": TwoHeads,
    "convolution": lambda: flat(nn.Unflatten(1, (4, 1, 1)), nn.Conv2d(4, 5, 1), nn.Flatten()),
    "batchnorm_behind": lambda: flat(nn.Linear(4, 5), nn.BatchNorm1d(5)),
    "weight_norm": lambda: flat(weight_norm(nn.Linear(4, 5))),
    "pruned": pruned,
}


@pytest.mark.parametrize("chosen", [[4, 2, 0, 1, 3], [3, 1]])
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_logits_are_the_old_ones_in_the_chosen_order(make, chosen):
    torch.manual_seed(0)
    network, x = make().eval(), torch.randn(3, 6)
    before = network(x)
    select_classes(network, chosen, lambda network: network(x))
    torch.testing.assert_close(network(x), before[:, chosen])


def test_a_linear_head_says_how_many_classes_are_left():
    network = flat(nn.Linear(4, 5))
    select_classes(network, [3, 1], lambda network: network(torch.ones(1, 6)))
    assert network[2].out_features == 2


class Summed(nn.Module):
    """Adds halves of the outputs, so that no row is a logit."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[:, :5] + self.layer(x)[:, 5:]


@pytest.mark.parametrize(
    "network",
    [Summed(), flat(nn.Linear(4, 5), nn.Softmax(1)), TwoHeads()],
    ids=["summed", "softmax", "two_heads"],
)
def test_a_network_whose_rows_are_not_its_logits_is_refused_unchanged(network):
    x = torch.randn(3, 6)
    if isinstance(network, TwoHeads):
        network.head = nn.Sequential(network.head, nn.Softmax(1))
    before, state = network(x), {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(UserError, match=r"the order of the 5 logits .* cannot be changed"):
        select_classes(network, [2, 1], lambda network: network(x))
    assert torch.equal(network(x), before)
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


def test_classes_are_found_by_name():
    assert places_of(["2", "1", "10"], ["1", "10", "2", "3"]) == [2, 0, 1]


def test_a_class_that_the_network_lacks_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"1 of 2 classes .* 'cats'; did you mean 'cat'"):
        places_of(["dog", "cats"], ["cat", "dog"])


def test_a_name_that_two_logits_have_is_refused():
    with pytest.raises(UserError, match=r"two of the classes .* 'crane'"):
        places_of(["crane"], ["crane", "crane"])
