"""What a file names is found only if it is known or trusted."""

import sys

import pytest
import torch
from kd_core.config.build import build
from kd_core.config.trust import build_from_file, check_types, find, known_modules, names_in
from kd_core.config.trusted import trust, trusting
from kd_core.criteria.simkd import SimKDNetwork
from kd_core.errors import UserError
from kd_core.networks.layouts import LAYOUTS
from torch import nn

LAYERS = known_modules("torch.nn")
LINEAR = {"type": "torch.nn.Linear", "in_features": 2, "out_features": 3}
DEPLOYED = {
    "type": "kd_core.criteria.simkd.SimKDNetwork",
    "network": LINEAR,
    "tap": "output",
    "projector": {"type": "kd_core.criteria.simkd.Projector", "inputs": 4, "outputs": 4},
    "head": {**LINEAR, "bias": False},
    "size": None,
}


class Net(nn.Linear):
    """A network of a user's."""

    def __init__(self, width: int = 2, style: str = "", weights: str | None = "x") -> None:
        super().__init__(width, width)
        self.style, self.weights = style, weights


@pytest.fixture(autouse=True)
def own_module(monkeypatch):
    monkeypatch.setitem(sys.modules, "nets_of_mine", sys.modules[__name__])


def own(**arguments):
    return build_from_file({"type": "nets_of_mine.Net", **arguments}, "f", [])


def test_a_deployed_network_of_ours_is_built_with_what_is_inside():
    network = build_from_file(DEPLOYED, "f", [])
    assert isinstance(network, SimKDNetwork)
    assert network.head.bias is None


def test_arguments_at_hand_reach_it():
    node = {"type": "torch.nn.Linear", "in_features": 2}
    assert build_from_file(node, "f", [], out_features=7).out_features == 7


def test_a_name_is_trusted_inside_its_block_alone():
    with pytest.raises(UserError, match=r"^f\.type: nets_of_mine\.Net is not known here.*--trust"):
        own()
    with trusting("nets_of_mine.Net"):
        assert isinstance(own(), Net)
        with trusting("nets_of_mine.Other"):
            assert isinstance(own(), Net)
        trust("nets_of_mine.More")
    with pytest.raises(UserError, match="--trust"):
        own()


@pytest.mark.parametrize("name", ["nets_of_mine", "Net", "nets_of_mine.*", "nets_of_mine.Ne"])
def test_a_name_is_trusted_as_it_is_written_and_no_other(name):
    with trusting(name), pytest.raises(UserError, match="--trust"):
        own()


@pytest.mark.parametrize(
    "path",
    [
        "torch.nn.functional.torch.save",
        "torch.nn.functional.relu",
        "torch.nn.Module.apply",
        "torch.nn.modules.module.functools.partial",
        "torch.nn.Linear.__init__",
        "torch.nn._reduction.warnings",
        "torch.hub.load",
        "torch.optim.SGD",
        "kd_core.criteria.simkd.F",
        "kd_core.criteria.kd.kd",
        "kd_core.files.checkpoint.save_text",
    ],
)
def test_a_known_beginning_is_not_enough(path):
    with pytest.raises(UserError, match=r"^f\.type: .*--trust"):
        build_from_file({"type": path}, "f", [LAYERS])


@pytest.mark.parametrize("path", ["", "x;y", "a b.c", "..", 3, None, ["torch.nn.Linear"]])
def test_what_is_not_an_import_path_is_not_offered_for_trust(path):
    with pytest.raises(UserError, match="is not an import path") as caught:
        find(path, "f", [LAYERS], {})
    assert "--trust" not in str(caught.value)


def test_nothing_unknown_is_imported(tmp_path, monkeypatch):
    (tmp_path / "boom_if_imported.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for path in ("boom_if_imported.Net", "boom_if_imported.torch.nn.Linear"):
        with pytest.raises(UserError, match="--trust"):
            build_from_file({"type": path}, "f", [LAYERS])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"style": "a/b"}, "f.style: 'a/b' may be a file"),
        ({"style": "~x"}, "may be a file"),
        ({"style": "https:x"}, "may be a file"),
        ({"style": "hf-hub:x"}, "may be a file"),
        ({"style": "local-dir:x"}, "may be a file"),
        ({"style": "a\\b"}, "may be a file"),
        ({"style": "lies_here"}, "may be a file"),
        ({"config_file": "x"}, "f.config_file: 'x' may be a file"),
        ({"checkpoint_path": "x"}, "may be a file"),
        ({"pretrained_cfg": {"a": 1}}, "may be a file"),
        ({"url": "x"}, "may be a file"),
        ({"width": 10**6}, "f.width: 1000000 is larger than all tensors"),
        ({"width": float("nan")}, "f.width: nan is larger"),
        ({"width": -1e12}, "is larger"),
        ({"width": [1, [10**9]]}, "is larger"),
        ({"style": {"type": "os.system"}}, "f.style.type: os.system is Python's own"),
        ({"style": [{"type": "no_such.Net"}]}, "--trust no_such.Net"),
        ({"width": "x"}, "f.width: wanted a whole number"),
        ({"width": -1}, "f: "),
    ],
)
def test_arguments_of_a_trusted_network_are_judged_too(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lies_here").touch()
    with trusting("nets_of_mine.Net"), pytest.raises(UserError, match=message):
        own(**arguments)


@pytest.mark.parametrize(
    "style",
    ["layer4:in", "norm:cls", "x:nhwc:tokens", "output", "a.b[0]", "vit_tiny.augreg-in21k", "x y"],
)
def test_names_of_layers_and_models_are_plain_text(style):
    with trusting("nets_of_mine.Net"):
        assert own(style=style).style == style


@pytest.mark.parametrize("layout", ["in", *LAYOUTS])
def test_a_tap_of_every_layout_is_no_address(layout):
    with trusting("nets_of_mine.Net"):
        assert own(style=f"norm:{layout}").style == f"norm:{layout}"


@pytest.mark.parametrize("arguments", [{}, {"weights": "evil.pth"}, {"weights": True}])
def test_pretrained_weights_are_left_out_whatever_the_default(arguments):
    with trusting("nets_of_mine.Net"):
        assert own(**arguments).weights is None


def test_any_failure_of_a_constructor_is_one_line():
    with pytest.raises(UserError, match=r"^f: \S*Linear: .*negative dimension") as caught:
        build_from_file({**LINEAR, "in_features": -4}, "f", [])
    assert "\n" not in str(caught.value)


def test_types_are_checked_at_any_depth_and_nothing_is_built():
    check_types({"a": [{"type": "torch.nn.Linear"}]}, "f", [LAYERS])
    with pytest.raises(UserError, match=r"^f\.a\.0: no_such\.Net is not known"):
        check_types({"a": [{"type": "no_such.Net"}]}, "f", [LAYERS])


def test_the_names_in_a_config_are_its_types():
    node = {"network": {"type": "a.B", "inner": [{"type": "c.D"}, 1]}, "type": 3}
    assert names_in(node) == {"a.B", "c.D"}
    assert names_in("x") == set()


def test_a_config_of_the_user_builds_what_a_file_may_not():
    assert isinstance(build({"type": "nets_of_mine.Net"}), Net)
    assert torch.is_tensor(build({"type": "torch.zeros", "size": [1]}))
