import pytest
import torch
from kd_core.criteria.criterion import Borrowed
from kd_core.criteria.heads import borrow_heads, find_head, parameters_of, region_logits
from kd_core.errors import UserError
from torch import nn


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(6, 6)
        self.auxiliary = nn.Linear(6, 10)
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Linear(6, 10), nn.Linear(6, 4))


def test_the_head_is_the_last_linear_layer_from_the_maps_channels_to_the_classes():
    network = Network()
    assert find_head(network, 6, 10) is network.layers[1]
    assert find_head(network, 6, 4) is network.layers[2]


def test_another_head_can_be_named():
    network = Network()
    assert find_head(network, 6, 10, "auxiliary") is network.auxiliary


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (7, 10),
            r"no linear layer from the map's 7 channels to 10 classes, only: gate \(6 to 6\)",
        ),
        ((6, 10, "gate"), r"no linear layer 'gate' from the map's 6 channels to 10 classes"),
        ((6, 10, "layers.0"), "no linear layer 'layers.0'"),
        ((6, 10, "layer"), r"no linear layer 'layer' .* auxiliary \(6 to 10\)"),
    ],
)
def test_without_such_a_layer_those_that_there_are_are_listed(arguments, message):
    with pytest.raises(UserError, match=message):
        find_head(Network(), *arguments)


def test_a_convolution_as_classifier_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 10, 1))
    with pytest.raises(UserError, match=r"only: none; .* \(a convolution as classifier is not"):
        find_head(network, 6, 10)


def test_the_side_that_lacks_a_head_is_named():
    maps = ((6, 8, 8),)
    with pytest.raises(UserError, match=r"^teacher: Linear has no linear layer"):
        borrow_heads((maps, maps), 10, (None, None), Network(), nn.Linear(5, 10))


def test_weights_come_in_the_precision_of_the_maps():
    head, maps = nn.Linear(6, 10), torch.zeros(1, dtype=torch.float64)
    weight, bias = parameters_of(Borrowed(head), maps)
    assert weight.dtype == bias.dtype == torch.float64
    assert parameters_of(Borrowed(head), maps.float())[0] is head.weight
    assert parameters_of(Borrowed(nn.Linear(6, 10, bias=False)), maps)[1] is None


def test_regions_are_the_means_of_the_maps_parts_row_by_row():
    maps = torch.randn(3, 6, 8, 8, dtype=torch.float64)
    head = nn.Linear(6, 10).double()
    regions = region_logits(maps, head.weight, head.bias)
    expected = []
    for scale in (1, 2, 4):
        side = 8 // scale
        for row in range(scale):
            for column in range(scale):
                part = maps[
                    :, :, row * side : (row + 1) * side, column * side : (column + 1) * side
                ]
                expected.append(head(part.mean((2, 3))))
    torch.testing.assert_close(regions, torch.stack(expected, 2))


def test_without_scale_4_there_are_five_regions():
    maps, weight = torch.randn(2, 6, 8, 8), torch.randn(10, 6)
    regions = region_logits(maps, weight, None, scales=(1, 2))
    torch.testing.assert_close(regions, region_logits(maps, weight, None)[:, :, :5])


def test_cells_of_a_small_map_are_repeated():
    maps, weight = torch.randn(2, 6, 2, 2), torch.randn(10, 6)
    regions = region_logits(maps, weight, None)
    torch.testing.assert_close(regions[:, :, 0], maps.mean((2, 3)) @ weight.mT)
    quarters = regions[:, :, 1:5].unflatten(2, (2, 2))
    sixteenths = regions[:, :, 5:].unflatten(2, (4, 4))
    repeated = quarters.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(sixteenths, repeated)


def test_a_map_of_7_pixels_is_pooled_to_cells_that_overlap():
    maps, weight = torch.zeros(1, 1, 7, 7), torch.ones(1, 1)
    maps[0, 0, 1, 0] = 1.0  # in the first cell, rows 0 and 1, and in the second, rows 1 to 3
    regions = region_logits(maps, weight, None)[0, 0]
    cells = [regions[5].item(), regions[9].item()]
    assert cells == [pytest.approx(1 / 4), pytest.approx(1 / 6)]
    assert regions[0].item() == pytest.approx((1 / 4 + 1 / 6) / 16)
