"""Weight files of many tools load; damaged, ill-fitting and malicious ones are refused."""

import argparse
import math
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from kd_core.errors import UserError
from kd_core.files.weights import load_weights, read_state_dict
from safetensors.torch import save_file
from torch import nn


class Payload:
    """Creates a file when it is unpickled by an unsafe reader."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


class Recipe:
    """A class that the reader does not know."""


def network(classes: int = 3) -> nn.Sequential:
    layers = OrderedDict(conv=nn.Conv2d(3, 4, 1), bn=nn.BatchNorm2d(4), fc=nn.Linear(4, classes))
    return nn.Sequential(layers)


def changed(state):
    return {name: value + 1 for name, value in state.items()}


def assert_loads(contents, path):
    torch.save(contents, path)
    module = network()
    load_weights(module, path)
    expected = contents
    for key in ("model", "state_dict", "net"):
        expected = expected.get(key, expected)
    for name, value in module.state_dict().items():
        assert torch.equal(value, expected[name])


@pytest.fixture
def state():
    return changed(network().state_dict())


@pytest.mark.parametrize("file", ["w.pth", "w.pt", "w.pth.tar", "ti_res18", "best"])
def test_bare_state_dict_loads_under_any_name(state, tmp_path, file):
    assert_loads(state, tmp_path / file)


@pytest.mark.parametrize("key", ["model", "state_dict", "net"])
def test_state_dict_inside_a_checkpoint_loads(state, tmp_path, key):
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    assert_loads({"epoch": 240, "optimizer": optimizer, key: state}, tmp_path / "c.pth")


@pytest.mark.parametrize(
    "extra", [argparse.Namespace(lr=0.1, path="x"), np.float64(72.3), np.float32(1), np.int64(3)]
)
def test_options_and_numpy_numbers_beside_the_weights_do_no_harm(state, tmp_path, extra):
    assert_loads({"model": state, "extra": extra}, tmp_path / "c.pth")


def test_files_written_with_numpy_1_are_read(state, tmp_path):
    path = tmp_path / "c.pth"
    contents = {"model": state, "best": np.float64(1.5)}
    torch.save(contents, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"numpy._core", b"numpy.core"))
    assert read_state_dict(path).keys() == state.keys()


def test_safetensors_load(state, tmp_path):
    save_file(state, tmp_path / "w.safetensors")
    module = network()
    load_weights(module, tmp_path / "w.safetensors")
    assert torch.equal(module.conv.weight, state["conv.weight"])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_cut(state, tmp_path, prefix):
    torch.save({prefix + name: value for name, value in state.items()}, tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth").keys() == state.keys()


def test_a_prefix_that_only_some_names_have_stays(tmp_path):
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth").keys() == {"module.a", "b"}


def test_statistics_without_a_batch_counter_load(state, tmp_path):
    del state["bn.num_batches_tracked"]
    torch.save(state, tmp_path / "old.pth")
    module = network()
    load_weights(module, tmp_path / "old.pth")
    assert torch.equal(module.bn.running_var, state["bn.running_var"])


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_refused_and_does_not_run(state, tmp_path, zipped):
    ran, path = tmp_path / "ran", tmp_path / "evil.pth"
    contents = {"model": state, "args": argparse.Namespace(inner=Payload(ran))}
    torch.save(contents, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"evil\.pth: holds a .* cannot be read safely"):
        read_state_dict(path)
    assert not ran.exists()
    torch.load(path, weights_only=False)
    assert ran.exists()  # so the payload was live


def test_unknown_class_is_named_with_what_to_do(state, tmp_path):
    torch.save({"model": state, "config": Recipe()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth: holds a .*Recipe.*weights_only=False"):
        read_state_dict(tmp_path / "w.pth")


def test_what_is_allowed_here_is_not_allowed_afterwards(state, tmp_path):
    torch.save(state, tmp_path / "w.pth")
    read_state_dict(tmp_path / "w.pth")
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


def test_missing_file_names_the_nearest_in_its_folder(state, tmp_path):
    torch.save(state, tmp_path / "ckpt_epoch_240.pth")
    with pytest.raises(UserError, match=r"ckpt_epoch_24\.pth.*did you mean 'ckpt_epoch_240\.pth'"):
        read_state_dict(tmp_path / "ckpt_epoch_24.pth")


def test_missing_folder_and_folder_instead_of_file_are_told_apart(tmp_path):
    with pytest.raises(UserError, match=r"folder .*nowhere.* does not exist"):
        read_state_dict(tmp_path / "nowhere" / "w.pth")
    with pytest.raises(UserError, match="it is a folder"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize("file", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("contents", [b"", b"hello world", b"PK\x03\x04 cut off"])
def test_damaged_file_is_refused(tmp_path, file, contents):
    (tmp_path / file).write_bytes(contents)
    with pytest.raises(UserError, match=f"{file}: damaged"):
        read_state_dict(tmp_path / file)


def test_git_lfs_pointer_is_recognised(tmp_path):
    (tmp_path / "w.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(UserError, match="git lfs pull"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("contents", [[1, 2], {}, {"epoch": 3, "optimizer": {}}, torch.ones(2)])
def test_file_without_state_dict_is_refused(tmp_path, contents):
    torch.save(contents, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth: wanted a state dict"):
        read_state_dict(tmp_path / "w.pth")


def test_names_that_do_not_fit_are_counted_and_shown_once(state, tmp_path):
    state["linear.weight"] = state.pop("fc.weight")
    torch.save(state, tmp_path / "w.pth")
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    wanted = r"1 missing \(fc\.weight\), 1 unexpected \(linear\.weight\)"
    with pytest.raises(UserError, match=wanted):
        load_weights(module, tmp_path / "w.pth")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_many_names_are_cut_short(state, tmp_path):
    torch.save({f"{name}.x": value for name, value in state.items()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"8 missing \(conv\.weight, conv\.bias, bn\.weight, \.+\)"):
        load_weights(network(), tmp_path / "w.pth")


def test_other_number_of_classes_is_guessed(state, tmp_path):
    torch.save(state, tmp_path / "w.pth")
    wanted = (
        r"fc\.weight is \[3, 4\] in the file, \[10, 4\] in the network.*other number of classes"
    )
    for strict in (True, False):
        with pytest.raises(UserError, match=wanted):
            load_weights(network(classes=10), tmp_path / "w.pth", strict=strict)


def test_not_strict_loads_what_fits(state, tmp_path):
    torch.save({"fc.bias": state["fc.bias"], "other": torch.ones(1)}, tmp_path / "w.pth")
    module = network()
    load_weights(module, tmp_path / "w.pth", strict=False)
    assert torch.equal(module.fc.bias, state["fc.bias"])


def test_not_strict_refuses_a_file_that_fits_nowhere(tmp_path):
    torch.save({"other": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="1 unexpected"):
        load_weights(network(), tmp_path / "w.pth", strict=False)


def test_a_file_may_hold_whole_submodules_only(tmp_path):
    whole = nn.ModuleDict({"head": nn.Linear(2, 2), "tail": nn.Linear(2, 2)})
    head = {
        f"head.{name}": torch.ones_like(value) for name, value in whole["head"].named_parameters()
    }
    tail = whole["tail"].weight.clone()
    torch.save(head, tmp_path / "head.pth")
    load_weights(whole, tmp_path / "head.pth", parts=True)
    assert (whole["head"].weight == 1).all()
    assert torch.equal(whole["tail"].weight, tail)
    torch.save({"head.weight": torch.ones(2, 2)}, tmp_path / "half.pth")
    with pytest.raises(UserError, match=r"1 missing \(head.bias\)"):
        load_weights(whole, tmp_path / "half.pth", parts=True)
    with pytest.raises(UserError, match="2 missing"):
        load_weights(whole, tmp_path / "head.pth")


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PyTorch will drop them; files keep them
        return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


def spoilt(name, value):
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    return network, {**network.state_dict(), name: value}


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("0.bias", torch.tensor([1, math.nan]), "is not finite: 1 of its 2 values are NaN or inf"),
        ("0.bias", torch.tensor([1, math.inf]), "is not finite"),
        ("0.bias", torch.tensor([1, 1e300], dtype=torch.float64), "is not finite"),
        ("0.bias", torch.ones(2, dtype=torch.int64), "is int64 in the file, float32 in the"),
        ("0.bias", torch.ones(2, dtype=torch.bool), "is bool in the file"),
        ("0.bias", torch.ones(2, dtype=torch.complex64), "is complex64 in the file"),
        ("0.bias", torch.ones(2).to_sparse(), "is not dense but sparse_coo; save it dense"),
        ("0.bias", quantised(), "is quantised"),
        ("0.bias", torch.ones(2, device="meta"), "has a shape but no values"),
        ("1.running_mean", torch.tensor([1, math.nan]), "is not finite"),
        ("1.running_var", torch.tensor([1, math.inf]), "is not finite"),
        ("1.running_var", torch.tensor([1, -0.1]), "is a variance, and has negative values"),
        ("1.num_batches_tracked", torch.tensor(3.0), "is float32 in the file, int64 in the"),
        ("1.num_batches_tracked", torch.tensor(-3), "is a counter, and negative"),
    ],
)
def test_values_that_cannot_be_weights_are_refused_by_name(tmp_path, name, value, problem):
    network, state = spoilt(name, value)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=rf"w\.pth: {name} {problem}"):
        load_weights(network, tmp_path / "w.pth")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_another_precision_are_taken(tmp_path, kind):
    network, state = spoilt("0.bias", torch.tensor([1, 0.5], dtype=kind))
    torch.save(state, tmp_path / "w.pth")
    load_weights(network, tmp_path / "w.pth")
    assert network[0].bias.tolist() == [1, 0.5]


def test_a_mask_of_infinities_is_taken_where_the_network_has_one(tmp_path):
    network = nn.Linear(2, 2)
    network.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    torch.save(network.state_dict(), tmp_path / "w.pth")
    load_weights(network, tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_a_nested_tensor_is_refused_by_name(tmp_path):
    torch.save({"weight": torch.nested.nested_tensor([torch.ones(2)])}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth: weight is a nested tensor"):
        load_weights(torch.nn.Linear(2, 1, bias=False), tmp_path / "w.pth")
