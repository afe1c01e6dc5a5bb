"""Blocks that run again in the backward pass give the same, and keep less."""

import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.fitnet import FitNet
from kd_core.criteria.kd import KD
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.networks.activation_checkpointing import checkpoint_activations, has_checkpointed
from kd_core.networks.taps import FeatureTap
from kd_core.networks.task import Task
from kd_core.training.cuda_graph import why_not_capturable
from kd_core.training.dot import DOTStep
from kd_core.training.step import TrainStep
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


class Block(nn.Module):
    """All that must be set back: statistics, a power iteration, draws of three libraries."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.mix = spectral_norm(nn.Conv2d(4, 4, 1))
        self.drop = nn.Dropout(0.3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls = self.calls + 1  # another tensor, not the same one changed
        inside = F.relu(self.norm(self.conv(x)), inplace=True)
        scale = random.random() + np.random.rand() + self.calls
        return x + self.drop(self.mix(inside)) * scale


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Toy(Task):
    def forward(self, batch):
        logits = self.network(batch["image"])
        return {"ce": F.cross_entropy(logits, batch["label"])} if self.training else logits


BATCH = {
    "image": torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
    "label": torch.arange(6) % 3,
    "index": torch.arange(6),
}


torch.manual_seed(0)
STEM = Network().stem.weight.detach()


def seed():
    for function in (random.seed, np.random.seed, torch.manual_seed):
        function(5)


def taught(wanted, taps):
    """A distiller whose student has checkpointed blocks, and a teacher that has none."""
    torch.manual_seed(0)
    student, teacher = Network(), Network()
    hint = FitNet(student_shapes=((4, 8, 8),), teacher_shapes=((4, 8, 8),))
    terms = {"kd": Term(KD()), "hint": Term(hint, student=[taps], teacher=["blocks.1"])}
    distiller = Distiller(Toy(student), Toy(teacher), terms)
    if wanted is not False:
        checkpoint_activations([student], wanted)
    return distiller.train()


def outcome(wanted, *, step=TrainStep, taps="blocks.0.conv", precision="fp32"):
    """Losses, gradients and state of some steps, and what is drawn next."""
    distiller = taught(wanted, taps)
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1, momentum=0.9)
    take = step(distiller, optimizer, precision=precision)
    seed()
    losses = [take([BATCH, BATCH] if step is TrainStep else [BATCH]) for _ in range(3)]
    drawn = [random.random(), float(np.random.rand()), torch.rand(())]
    gradients = [p.grad for p in distiller.parameters()]
    return losses, gradients, distiller.state_dict(), drawn


def assert_equal(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("wanted", "options"),
    [
        (True, {}),
        (["blocks.*"], {"taps": "blocks.1:in"}),
        (["blocks"], {"taps": "blocks.0", "precision": "bf16"}),
        (["stem", "blocks.1.conv"], {"taps": "stem"}),
        (True, {"step": DOTStep}),  # two backward passes
    ],
)
def test_losses_gradients_statistics_and_draws_are_the_same_bit_for_bit(wanted, options):
    plain, again = outcome(False, **options), outcome(wanted, **options)
    for one, other in zip(plain, again, strict=True):
        assert_equal(one, other)
    assert again[2]["student.network.blocks.0.norm.num_batches_tracked"] >= 3
    assert not torch.equal(again[2]["student.network.stem.weight"], STEM)


def kept_bytes(network, image):
    """Bytes that a pass keeps for the backward."""
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def note_input(block, inputs):
        note(inputs[0])

    for block in network.blocks:  # what runs again keeps its input
        block.register_forward_pre_hook(note_input)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = network(image)
    return sum(kept.values()), output


class Branches(nn.Module):
    """A network of several resolutions: its blocks change the list that they are given."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(2))

        def forward(self, maps, size, *, seen):
            assert size.numel() == maps[0][0, 0].numel()  # a `torch.Size`, when it runs again too
            for number, conv in enumerate(self.convs):
                maps[number] = conv(maps[number]).sigmoid()
            seen["sum"] = maps[0] + maps[1]
            return maps

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(self.Block(), self.Block())

    def forward(self, x):
        maps, seen = [x, 2 * x], {}
        for block in self.blocks:
            maps = block(maps, x.shape[2:], seen=seen)
        return maps[0].square().sum() + seen["sum"].sum()


def test_a_block_that_changes_the_list_it_is_given_has_the_gradients_of_the_plain_one():
    torch.manual_seed(0)
    plain = Branches()
    network = copy.deepcopy(plain)
    assert checkpoint_activations([network], True) == 2
    for each in (plain, network):
        loss = each(BATCH["image"])
        loss.backward(retain_graph=True)
        loss.backward()  # runs the blocks a third time
    assert_equal([p.grad for p in network.parameters()], [p.grad for p in plain.parameters()])


def test_a_pass_keeps_less_for_the_backward():
    torch.manual_seed(0)
    network = Network()
    plain, _ = kept_bytes(copy.deepcopy(network), BATCH["image"])
    checkpoint_activations([network], True)
    assert kept_bytes(network, BATCH["image"])[0] < plain / 3


def test_a_tap_inside_that_is_open_in_the_backward_does_not_record_again():
    torch.manual_seed(0)
    network = Network()
    checkpoint_activations([network], True)
    with FeatureTap(network, "blocks.0.conv") as seen:
        loss = network(BATCH["image"]).sum() + seen["blocks.0.conv"].sum()
        loss.backward()  # without hiding: the module ran twice in one forward pass
    assert seen["blocks.0.conv"].grad_fn is not None


def test_a_copy_runs_its_own_blocks_and_names_stay():
    network = Network()
    names, kinds = list(network.state_dict()), [type(m).__name__ for m in network.modules()]
    checkpoint_activations([network], True)
    assert list(network.state_dict()) == names
    assert [type(m).__name__ for m in network.modules()] == kinds
    copied = copy.deepcopy(network)
    copied(BATCH["image"]).sum().backward()
    assert network.blocks[0].calls == 0
    assert network.blocks[0].conv.weight.grad is None


def test_the_blocks_are_the_outermost_that_patterns_name_and_those_of_lists():
    network = Network()
    network.blocks = nn.ModuleList(network.blocks)
    assert checkpoint_activations([network], ["blocks"]) == 2
    assert [has_checkpointed([m]) for m in (network.blocks, *network.blocks)] == [False, True, True]
    assert checkpoint_activations([Network()], ["blocks*", "*.conv"]) == 1


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.conv(x.mul_(2))


@pytest.mark.parametrize("later", [False, True])
def test_an_input_that_is_changed_in_place_is_refused(later):
    block = InPlace()
    network = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.Sequential(nn.Conv2d(3, 3, 1)) if later else block
    )
    checkpoint_activations([network], ["1"])

    def run():
        inside = network[0](BATCH["image"])
        output = network[1](inside)
        if later:
            inside.mul_(2)
        output.sum().backward()

    with pytest.raises(UserError, match="the input of '1' is changed in place"):
        run()


@pytest.mark.parametrize(
    ("network", "wanted", "message"),
    [
        (Network(), ["block.*"], "no module is called 'block.*'; did you mean 'blocks"),
        (nn.Linear(2, 2), True, "Linear has no blocks"),
        (nn.Sequential(torch.jit.script(nn.Linear(2, 2))), ["0"], "the forward of '0' is scripted"),
    ],
)
def test_what_cannot_run_again_is_refused(network, wanted, message):
    with pytest.raises(UserError, match=message):
        checkpoint_activations([network], wanted)


def test_a_step_with_checkpointed_blocks_is_not_captured():
    distiller = taught(True, "stem")
    optimizer = torch.optim.SGD(distiller.parameters(), lr=torch.tensor(0.1))
    assert "activation checkpointing" in why_not_capturable(distiller, optimizer)
