"""A finished student's network takes memory only if its file is of it."""

import pytest
import torch
from kd_core.errors import UserError
from kd_core.files.artifacts import largest_tensor, rebuild
from safetensors.torch import save_file
from torch import nn


def test_a_network_that_the_file_is_not_of_is_never_given_memory():
    made = []

    def make():
        made.append(nn.Linear(10**6, 10**6))  # 4 TB
        return made[-1]

    def load(network):
        raise UserError("does not fit")

    with pytest.raises(UserError, match="does not fit"):
        rebuild(make, load)
    assert [network.weight.device.type for network in made] == ["meta"]


def test_a_network_that_reads_its_own_tensors_is_made_at_once():
    def make():
        network = nn.Linear(2, 2)
        network.bias[0].item()  # fails without memory
        return network

    loaded = []
    assert rebuild(make, loaded.append) is loaded[0]
    assert len(loaded) == 1


def test_what_is_returned_has_memory_and_was_loaded_last():
    loaded = []
    network = rebuild(lambda: nn.BatchNorm1d(2), loaded.append)
    assert [one.weight.device.type for one in loaded] == ["meta", "cpu"]
    assert network is loaded[1]


@pytest.mark.parametrize(("tensors", "largest"), [({"a": (2, 3), "b": (4,)}, 6), ({"a": ()}, 1)])
def test_the_largest_tensor_is_counted_without_reading_it(tmp_path, tensors, largest):
    file = tmp_path / "x.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, file)
    assert largest_tensor(file) == largest
