"""Files with other names than the network's, taken in their order where that is asked for."""

from collections import OrderedDict

import pytest
import torch
from kd_core.errors import UserError
from kd_core.files.weights import load_weights, read_state_dict
from safetensors.torch import save_file
from torch import nn


def network(classes=3, **names):
    layers = OrderedDict(conv=nn.Conv2d(3, 4, 1), bn=nn.BatchNorm2d(4), fc=nn.Linear(4, classes))
    return nn.Sequential(OrderedDict((names.get(k, k), layer) for k, layer in layers.items()))


def other_names(change=lambda state: state):
    """The state of a network whose modules have other names, with values of its own."""
    state = network(conv="_stem", bn="_bn0", fc="_head").state_dict()
    return change({name: value + n for n, (name, value) in enumerate(state.items(), start=1)})


STATE = other_names()
CONTENTS = {
    "bare": STATE,
    "inside a checkpoint": {"epoch": 3, "state_dict": STATE},
    "an average that is equal": {"state_dict": STATE, "ema": dict(STATE)},
    "without counters": {k: v for k, v in STATE.items() if "num_b" not in k},
}


@pytest.mark.parametrize("contents", CONTENTS.values(), ids=CONTENTS)
def test_tensors_are_taken_in_order_where_that_is_asked_for(contents, tmp_path, capsys):
    torch.save(contents, tmp_path / "w.pth")
    loaded = network()
    load_weights(loaded, f"{tmp_path / 'w.pth'}#in-order")
    pairs = zip(loaded.state_dict().values(), STATE.values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs if a.dim())  # counters may be missing
    told = "tensors in their order: _stem.weight as conv.weight, ..., _head.bias as fc.bias"
    assert told in capsys.readouterr().err


def test_it_is_not_done_without_being_asked_for_but_offered(tmp_path):
    torch.save(STATE, tmp_path / "w.pth")
    loaded = network()
    before = {name: value.clone() for name, value in loaded.state_dict().items()}
    with pytest.raises(UserError, match=r"w\.pth: does not fit.*FILE#in-order'$"):
        load_weights(loaded, tmp_path / "w.pth")
    assert all(torch.equal(value, before[name]) for name, value in loaded.state_dict().items())
    # Some tasks take a teacher of any number of classes, so it is offered too.
    with pytest.raises(UserError, match=r"shapes except for another number of classes.*in-order'$"):
        load_weights(network(classes=5), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"made for$"):  # another network: nothing to offer
        load_weights(nn.Sequential(nn.Conv2d(3, 5, 1)), tmp_path / "w.pth")


def swapped(state):
    names = list(state)
    names[0], names[1] = names[1], names[0]
    return {name: state[name] for name in names}


def renamed(old, new):
    return lambda state: {(new if name == old else name): value for name, value in state.items()}


REFUSED = {
    "a head of other classes": (
        {**STATE, "_head.weight": torch.ones(5, 4), "_head.bias": torch.ones(5)},
        r"fc\.weight is \[5, 4\] in the file, \[3, 4\] in the network.*other number of classes",
    ),
    "a head of another width": (
        {**STATE, "_head.weight": torch.ones(3, 5)},
        r"does not fit in order: _head\.weight is \[3, 5\], in its place is fc\.weight \[3, 4\]",
    ),
    "a body of another width": (
        {**STATE, "_stem.weight": torch.ones(5, 3, 1, 1)},
        r"_stem\.weight is \[5, 3, 1, 1\], in its place is conv\.weight \[4, 3, 1, 1\]",
    ),
    "another order": (swapped(STATE), r"_stem\.bias is \[4\], in its place is conv\.weight"),
    "weights and means of one shape in another order": (
        other_names(renamed("_bn0.bias", "_bn0.running_x")),
        r"in the place of _bn0\.running_x is bn\.bias",
    ),
    "a module in two": (
        other_names(renamed("_bn0.bias", "_bn9.bias")),
        "of several modules are those of one",
    ),
    "two modules in one": (
        other_names(renamed("_head.weight", "_bn0.fc")),
        r"in the place of _bn0\.fc is fc\.weight",
    ),
    "the network's modules in another order": (
        {k.replace("_bn0", "conv").replace("_stem", "bn"): v for k, v in STATE.items()},
        r"the network has bn\.weight too, but in its place is conv\.weight",
    ),
    "too few": ({k: v for k, v in STATE.items() if "head" not in k}, "7 tensors in the file, 9"),
    "too many": ({**STATE, "_aux.weight": torch.ones(2)}, "10 tensors in the file, 9 in the net"),
    "two that differ": (
        {"model": STATE, "ema": {k: v + 1 for k, v in STATE.items()}},
        "several weights that fit this network in order, and they differ: model, ema",
    ),
    "the network's own names": (network().state_dict(), "leave #in-order out"),
    "no state dict": ({"epoch": 3}, "found none"),
    "values that are not finite": (
        {**STATE, "_head.bias": torch.full((3,), torch.nan)},
        r"fc\.bias",
    ),
}


@pytest.mark.parametrize(("contents", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_in_order_is_refused_with_the_place(contents, message, tmp_path):
    torch.save(contents, tmp_path / "w.pth")
    with pytest.raises(UserError, match=message) as refused:
        load_weights(network(), f"{tmp_path / 'w.pth'}#in-order")
    assert "w.pth" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_that_do_not_keep_the_order_are_refused(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="do not keep the order"):
        load_weights(network(), f"{tmp_path / 'w.safetensors'}#in-order")


def test_a_misspelt_choice_and_a_reader_without_a_network_say_what_to_do(tmp_path):
    torch.save({"a": network().state_dict()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="did you mean 'in-order'"):
        load_weights(network(), f"{tmp_path / 'w.pth'}#in-ordr")
    with pytest.raises(UserError, match="weights of a whole network; leave it out"):
        read_state_dict(f"{tmp_path / 'w.pth'}#in-order")
