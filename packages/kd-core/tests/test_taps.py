"""FeatureTap: its grammar, and what goes wrong in networks that were not written to be tapped."""

import copy
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from kd_core.errors import UserError
from kd_core.networks.hidden_pass import hidden_from_taps
from kd_core.networks.taps import FeatureTap, OverwrittenTapError
from torch import nn
from torch.nn.parallel import DistributedDataParallel

Pair = namedtuple("Pair", ["first", "second"])


class Plain(nn.Module):
    """Convolution, BatchNorm, ReLU (in place or not), pooling, linear."""

    def __init__(self, *, inplace=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=inplace)
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        x = self.relu(self.bn(self.conv(x)))
        return self.fc(x.mean((2, 3)))


class Residual(nn.Module):
    """A block that adds its input to its output in place."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        out = self.conv(x)
        out += x
        return out


class Shared(nn.Module):
    """A module that runs twice, and under a second name."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.alias = self.layer
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(self.layer(x).relu())


class Give(nn.Module):
    """A network whose `part` returns any structure around its input."""

    def __init__(self, structure):
        super().__init__()
        self.part = Part(structure)

    def forward(self, x):
        return self.part(x)


class Part(nn.Module):
    def __init__(self, structure):
        super().__init__()
        self.structure = structure

    def forward(self, x):
        return self.structure(x)


def images(seed=0):
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def tapped(network, *paths, inputs=None, **options):
    inputs = images() if inputs is None else inputs
    with FeatureTap(network, paths, **options) as seen:
        network(inputs)
    return seen


def hooks(network):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


@pytest.fixture
def one_process():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


# Grammar


def test_a_path_gives_the_output_and_in_gives_the_input():
    network, x = Plain().eval(), images()
    seen = tapped(network, "conv", "relu", "relu:in", "fc:in", "output", "output:in")
    conv = network.conv(x)
    bn = network.bn(conv)
    expected = {
        "conv": conv,
        "relu": bn.relu(),
        "relu:in": bn,
        "fc:in": bn.relu().mean((2, 3)),
        "output": network(x),
        "output:in": x,
    }
    torch.testing.assert_close(seen, expected)


def test_the_input_may_be_given_by_keyword_or_be_none_at_all():
    network = Give(lambda x: x)
    network.forward = lambda x: network.part(x=x)
    torch.testing.assert_close(tapped(network, "part:in")["part:in"], images())
    network.part.forward = images
    network.forward = lambda x: network.part()
    assert tapped(network, "part:in") == {"part:in": None}


@pytest.mark.parametrize(
    ("tap", "structure"),
    [
        ("part[p3]", lambda x: {"p2": 0 * x, "p3": x}),
        ("part[3]", lambda x: {2: 0 * x, 3: x}),
        ("part[3]", lambda x: {3: 0 * x, "3": x}),
        ("part[1]", lambda x: (0 * x, x)),
        ("part[-1]", lambda x: [0 * x, x]),
        ("part[0]", lambda x: Pair(x, 0 * x)),
        ("output[a]", lambda x: {"a": x}),
    ],
)
def test_a_key_gives_one_entry_of_a_dict_or_sequence(tap, structure):
    torch.testing.assert_close(tapped(Give(structure), tap)[tap], images())


def test_a_key_gives_one_entry_of_an_input():
    network = Give(lambda pair: pair[0])
    seen = tapped(network, "part:in[1]", inputs=(torch.zeros(2), torch.ones(2)))
    assert seen["part:in[1]"].sum() == 2


def test_a_star_gives_all_calls_of_a_shared_module_as_a_tuple():
    network, x = Shared(), torch.randn(2, 3)
    seen = tapped(network, "layer[*]", "layer:in[*]", "output[*]", inputs=x)
    first, second = seen["layer[*]"]
    torch.testing.assert_close(first, network.layer(x))
    torch.testing.assert_close(seen["layer:in[*]"], (x, first.relu()))
    torch.testing.assert_close(seen["output[*]"], (second,))


class Block(nn.Module):
    """Calls one in-place ReLU twice, as torchvision's residual blocks do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.conv(self.relu(self.conv(x))) - x)


@pytest.mark.parametrize(("tap", "call"), [("relu:in[*][-1]", 1), ("relu:in[*][0]", 0)])
def test_one_of_all_calls_is_chosen_by_its_number(tap, call):
    block, x = Block(), torch.randn(1, 2, 3, 3)
    first = block.conv(x)
    expected = [first, block.conv(first.relu()) - x]
    with FeatureTap(block, tap, copy=tap) as seen:
        block(x)
    torch.testing.assert_close(seen[tap], expected[call])


def test_a_call_that_did_not_happen_is_refused():
    block = Block()
    with (
        pytest.raises(UserError, match="no such entry in a tuple of 2"),
        FeatureTap(block, "conv[*][2]", copy="conv[*][2]"),
    ):
        block(torch.randn(1, 2, 3, 3))


def test_a_module_with_two_names_can_be_tapped_by_either():
    seen = tapped(Shared(), "layer[*]", "alias[*]", inputs=torch.randn(2, 3))
    torch.testing.assert_close(seen["layer[*]"], seen["alias[*]"])


def test_one_tap_may_be_given_as_text_and_a_repeated_one_counts_once():
    assert FeatureTap(Plain(), "conv").paths == ("conv",)
    assert list(tapped(Plain(), "conv", "conv")) == ["conv"]


@pytest.mark.parametrize(
    "tap", ["", "conv[", "conv[]", "[0]", "conv:out", "conv[0][1]", "conv[0]:in"]
)
def test_a_tap_outside_the_grammar_is_refused_with_the_grammar(tap):
    with pytest.raises(UserError, match=r"write path, path:in, path\[key\], path\[\*\] or output"):
        FeatureTap(Plain(), [tap])


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        ("cnov", "tap 'cnov': Plain has no module 'cnov'; did you mean 'conv'"),
        ("ouput", "did you mean 'output'"),
        ("zzzzzz:in", "valid names: bn, conv, fc, output, relu"),
    ],
)
def test_a_misspelt_module_is_refused_at_construction_with_the_nearest_name(tap, message):
    with pytest.raises(UserError, match=message):
        FeatureTap(Plain(), [tap])


@pytest.mark.parametrize(
    ("tap", "structure", "message"),
    [
        ("part[level3]", lambda x: {"level_3": x}, "no such key; did you mean 'level_3'"),
        ("part[7]", lambda x: {1: x, 2: x}, "no such key; valid names: 1, 2"),
        ("part[2]", lambda x: (x, x), "no such entry in a tuple of 2"),
        ("part[-3]", lambda x: (x, x), "no such entry in a tuple of 2"),
        ("part[first]", lambda x: [x, x], "no such entry in a tuple of 2"),
        ("part[0]", lambda x: x, "a Tensor has no entries"),
    ],
)
def test_a_key_that_does_not_exist_is_refused(tap, structure, message):
    with pytest.raises(UserError, match=message):
        tapped(Give(structure), tap)


def test_a_copy_that_is_no_tap_is_refused():
    with pytest.raises(UserError, match="copy='cnov' is none of the taps; did you mean 'conv'"):
        FeatureTap(Plain(), ["conv"], copy=["cnov"])


# Modules that run twice, or never


@pytest.mark.parametrize(
    ("tap", "advice"), [("layer", r"'layer\[\*\]'"), ("layer:in", r"'layer:in\[\*\]'")]
)
def test_a_module_that_runs_twice_is_refused_by_name(tap, advice):
    with pytest.raises(UserError, match=f"tap '{tap}': the module ran twice.*{advice} gives"):
        tapped(Shared(), tap, inputs=torch.randn(2, 3))


def test_the_advice_for_a_keyed_tap_is_itself_a_tap():
    network = Give(lambda x: (x, x))
    network.forward = lambda x: network.part(network.part(x)[0])
    with pytest.raises(UserError, match=r"'part\[\*\]' gives"):
        tapped(network, "part[0]")


def test_taps_that_never_fire_are_refused_by_name():
    with pytest.raises(UserError, match="tap 'unused', 'unused:in': the module did not run"):
        tapped(Shared(), "layer[*]", "unused", "unused:in", inputs=torch.randn(2, 3))


# In-place layers


@pytest.mark.parametrize(
    ("network", "tap"),
    [
        (Plain(inplace=True), "bn"),
        (Plain(inplace=True), "relu:in"),
        (Plain(inplace=True), "bn[*]"),
        (Residual(), "conv"),
        (Give(lambda x: (x, x.flatten().relu_())), "output:in"),
    ],
    ids=["relu", "input", "every call", "residual", "view"],
)
def test_a_tensor_that_is_overwritten_later_is_refused_by_name(network, tap):
    with pytest.raises(OverwrittenTapError, match="overwrote the recorded tensor") as caught:
        tapped(network, tap)
    assert caught.value.paths == [tap]


def test_the_overwriting_layer_itself_can_be_tapped():
    seen = tapped(Plain(inplace=True), "conv", "relu")
    assert seen["relu"].min() == 0


def test_a_copy_keeps_values_before_the_in_place_layer_with_their_gradients():
    inplace, plain = Plain(inplace=True), Plain()
    plain.load_state_dict(inplace.state_dict())
    results = []
    for network, options in ((inplace, {"copy": ["bn"]}), (plain, {})):
        with FeatureTap(network, ["bn"], **options) as seen:
            logits = network(images())
        (logits.sum() + seen["bn"].pow(3).sum()).backward()
        results.append((seen["bn"], logits, [p.grad for p in network.parameters()]))
    torch.testing.assert_close(results[0], results[1])
    assert results[0][0].min() < 0


def test_a_copy_of_a_structure_keeps_every_tensor_in_it():
    def forward(x):
        first, second = 1 * x, 2 * x
        kept = {"pair": Pair(first, [second, "text"])}
        network.late = lambda: (first.zero_(), second.zero_())
        return kept

    network = Give(forward)
    network.forward = lambda x: (network.part(x), network.late())
    with pytest.raises(OverwrittenTapError):
        tapped(network, "part")
    first, (second, text) = tapped(network, "part", copy="part")["part"]["pair"]
    torch.testing.assert_close((first, second), (images(), 2 * images()))
    assert text == "text"


def test_a_list_that_a_later_layer_fills_with_others_is_recorded_as_it_was():
    network = Give(lambda x: [x, {"more": 2 * x}])

    def forward(x):
        maps = network.part(x)
        maps[0], maps[1]["more"] = -x, -x  # as the branches of HRNet's next module do
        return maps

    network.forward = forward
    first, rest = tapped(network, "part")["part"]
    torch.testing.assert_close((first, rest["more"]), (images(), 2 * images()))


class Odd(namedtuple("Odd", ["first", "second"])):
    """A tuple that is made of other arguments than its items."""

    def __new__(cls, x):
        return super().__new__(cls, x, 2 * x)


def test_a_tuple_of_tensors_is_recorded_as_the_network_made_it():
    network = Give(lambda x: [Odd(x), (x.shape[2:], x)])
    odd, (size, _) = tapped(network, "part")["part"]
    assert type(odd) is Odd
    assert type(size) is torch.Size


# Hooks and passes


def test_hooks_exist_only_inside_the_with():
    network = Plain()
    tap = FeatureTap(network, ["conv", "relu:in", "output"])
    assert hooks(network) == 0
    with tap:
        assert hooks(network) == 3
        network(images())
    assert hooks(network) == 0


@pytest.mark.parametrize(
    ("network", "taps", "inputs"),
    [
        (Plain(), ["conv", "fc"], torch.zeros(2, 7, 6, 6)),  # conv raises
        (Shared(), ["layer"], torch.zeros(2, 3)),  # the tap raises, inside
        (Shared(), ["unused"], torch.zeros(2, 3)),  # the tap raises, at the end
    ],
)
def test_hooks_are_gone_after_an_error_and_the_next_pass_is_sound(network, taps, inputs):
    tap = FeatureTap(network, [*taps, "output"])
    with pytest.raises((RuntimeError, UserError)), tap:
        network(inputs)
    assert hooks(network) == 0
    if isinstance(network, Plain):
        with tap as seen:
            network(images())
        assert list(seen) == ["conv", "fc", "output"]


def test_no_hook_stays_when_a_tapped_module_is_gone():
    network = Plain()
    tap = FeatureTap(network, ["conv", "fc"])
    fc = network.fc
    del network.fc
    with pytest.raises(AttributeError, match="fc"), tap:
        pass
    assert hooks(network) == 0
    network.fc = fc
    with tap as seen:
        network(images())
    assert list(seen) == ["conv", "fc"]


def test_a_tap_can_be_used_again_and_earlier_records_stay():
    network = Plain()
    tap = FeatureTap(network, ["conv"])
    with tap as first:
        network(images(0))
    kept = first["conv"].clone()
    with tap as second:
        network(images(1))
    torch.testing.assert_close(first["conv"], kept)
    torch.testing.assert_close(second["conv"], network.conv(images(1)))


def test_a_tap_cannot_be_entered_twice_at_once_and_the_outer_pass_survives():
    network = Plain()
    tap = FeatureTap(network, ["conv"])
    with tap as seen:
        with pytest.raises(RuntimeError, match="in use already"), tap:
            pass
        network(images())
    assert list(seen) == ["conv"]
    assert hooks(network) == 0


def test_recorded_values_carry_gradient():
    network = Plain()
    tapped(network, "conv")["conv"].sum().backward()
    assert network.conv.weight.grad is not None
    assert network.fc.weight.grad is None


# Networks that are copied, wrapped, converted, compiled or captured


def test_a_deepcopy_made_inside_the_with_runs_on_its_own():
    network = Plain()
    with FeatureTap(network, ["conv", "conv:in"]) as seen:
        twin = copy.deepcopy(network)
        twin(images(1))
        network(images(0))
        twin(images(1))
    torch.testing.assert_close(seen["conv:in"], images(0))
    before = seen["conv"].clone()
    twin(images(1))
    torch.testing.assert_close(seen["conv"], before)


def test_a_deepcopied_tap_follows_the_copied_network():
    network = Plain()
    pair = {"network": network, "tap": FeatureTap(network, ["conv"])}
    twin = copy.deepcopy(pair)
    assert twin["tap"].network is twin["network"]
    with twin["tap"] as seen:
        network(images(1))
        twin["network"](images(0))
    torch.testing.assert_close(seen["conv"], network.conv(images(0)))


@pytest.mark.usefixtures("one_process")
def test_a_network_inside_ddp_is_tapped_by_its_own_names():
    network = Plain()
    wrapped = DistributedDataParallel(network)
    for seed in (0, 1):
        with FeatureTap(network, ["conv"]) as seen:
            wrapped(images(seed)).sum().backward()
        torch.testing.assert_close(seen["conv"], network.conv(images(seed)))


def test_a_module_replaced_after_construction_is_still_tapped():
    network = Plain().eval()
    tap = FeatureTap(network, ["bn"])
    nn.SyncBatchNorm.convert_sync_batchnorm(network)
    with tap as seen:
        network(images())
    assert isinstance(network.bn, nn.SyncBatchNorm)
    torch.testing.assert_close(seen["bn"], network.bn(network.conv(images())))


class Twice(nn.Module):
    """Runs one layer twice and gives what it made in a dict."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.last = Part(lambda x: {"x": x, "both": (x, x + 1), "width": 3})

    def forward(self, x):
        return self.last(self.layer(self.layer(x).relu()))


def test_passes_over_parts_of_a_batch_are_joined_in_order():
    network, x = Twice(), torch.randn(6, 3)
    taps = ["last", "last:in", "last[x]", "layer[*]", "layer[*][-1]", "layer:in[*]"]
    whole, parts = FeatureTap(network, taps), FeatureTap(network, taps)
    parts.passes = 3
    with whole as expected:
        network(x)
    with parts as seen:
        for part in x.chunk(3):
            network(part)
    assert seen.keys() == expected.keys()
    torch.testing.assert_close(seen, expected)


@pytest.mark.parametrize(("tap", "calls"), [("layer", 3), ("layer", 4), ("layer[*]", 3)])
def test_a_module_that_does_not_run_once_a_pass_is_refused(tap, calls):
    taps, layer = FeatureTap(network := Twice(), [tap]), network.layer
    taps.passes = 2
    refused = pytest.raises(UserError, match=f"ran {calls} times in 2 passes.*run the batch as one")
    with refused, taps:
        for _ in range(calls):
            layer(torch.randn(2, 3))


# Stopping: what comes after the last tap is computed for nothing


def calls_of(network, *paths):
    """Run a network with taps that may stop it; return which layers ran, and what it returned."""
    ran, returned = [], []
    for name, module in network.named_children():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    with FeatureTap(network, paths, stop=True) as seen:
        returned.append(network(images()))
    return ran, seen, returned


def test_a_pass_that_may_stop_ends_once_every_tap_has_fired():
    ran, seen, returned = calls_of(Plain(), "conv", "bn")
    assert (ran, list(seen), returned) == (["conv", "bn"], ["conv", "bn"], [])


@pytest.mark.parametrize("paths", [["output"], ["output", "conv"], ["output[*]"], ["conv[*]"]])
def test_a_pass_runs_to_its_end_for_its_output_and_for_all_calls(paths):
    ran, seen, (returned,) = calls_of(Plain(), *paths)
    assert ran == ["conv", "bn", "relu", "fc"]
    if "output" in paths:
        assert seen["output"] is returned


@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_network_is_refused(in_place):
    network = Plain()
    if in_place:
        network.compile(backend="eager")
    else:
        network = torch.compile(network, backend="eager")
    with pytest.raises(UserError, match=r"compiled already.*compile the whole training step"):
        FeatureTap(network, ["conv"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_tapped_pass_is_captured_as_a_cuda_graph_and_replayed():
    network, x = Plain(inplace=True).cuda().eval(), images().cuda()
    tap = FeatureTap(network, ["bn"], copy=["bn"])
    with torch.no_grad():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), tap:
            network(x)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph), tap as seen:
            network(x)
        x.copy_(images(1))
        graph.replay()
        torch.testing.assert_close(seen["bn"], network.bn(network.conv(x)))


def test_two_threads_on_one_network_are_told_so():
    network = nn.Sequential(nn.Linear(2, 2))
    tap = FeatureTap(network, "0")

    def other(function):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(function).result()

    with tap:
        with pytest.raises(UserError, match="two threads run the network at once"):
            other(lambda: network(torch.zeros(1, 2)))
        with pytest.raises(UserError, match="two threads"):
            other(tap.__enter__)
        network(torch.zeros(1, 2))
    with tap as seen:  # one after the other is fine
        network(torch.zeros(1, 2))
    assert set(seen) == {"0"}


def test_a_scripted_network_is_refused():
    with pytest.raises(UserError, match="is scripted"):
        FeatureTap(torch.jit.script(nn.Sequential(nn.ReLU())), "0")


def test_a_hidden_pass_is_not_recorded():
    network = nn.Sequential(nn.Linear(2, 3))
    with FeatureTap(network, "0") as seen:
        network(torch.ones(1, 2))
        with hidden_from_taps():
            network(torch.zeros(1, 2))
    assert torch.equal(seen["0"], network(torch.ones(1, 2)))


def test_a_tap_that_ends_a_pass_leaves_another_one_inside_alone():
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    outer = FeatureTap(network, "0", stop=True)
    with outer as seen, FeatureTap(network, "1") as inner:
        network(torch.ones(1, 2))
    assert seen.keys() == {"0"}
    assert not inner
