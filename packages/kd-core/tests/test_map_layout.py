"""Maps that criteria get have their channels first: seen in a pass, else asked for."""

import pytest
import torch
from kd_core.criteria.at import AT
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term, build_terms
from kd_core.errors import UserError
from kd_core.networks.map_layout import map_values
from kd_core.networks.taps import FeatureTap
from kd_core.networks.task import Task
from torch import nn

BATCH = {"image": torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))}


class Give(nn.Module):
    """A convolution, then what a function makes of its map, at `mark`; then a head."""

    def __init__(self, function, head=None, size=None):
        super().__init__()
        self.conv, self.mark = nn.Conv2d(3, 4, 4, stride=4), nn.Identity()
        self.function, self.size = function, size
        self.head = nn.Identity() if head is None else head

    def forward(self, x):
        assert self.size in (None, x.shape[2])
        return self.head(self.mark(self.function(self.conv(x)))).flatten(1).sum(1)


class Predict(Task):
    def forward(self, batch):
        out = self.network(batch["image"])
        return {"own": out.mean()} if self.training else out


def seen(network, *taps, batch=None):
    model = Predict(network)
    return map_values(model, FeatureTap(network, taps), batch or BATCH, taps)[1]


def turned(maps):
    return maps.permute(0, 2, 3, 1) + 0


def shifted(maps):
    return maps + 1


FIRST = {
    "read by a pooling": Give(shifted, nn.AvgPool2d(2)),
    "made by a convolution": Give(lambda maps: maps),
    "after a function": Give(shifted),
    "before a linear layer of one size": Give(
        shifted, nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    ),
    "read by a linear layer along its width": Give(shifted, nn.Linear(4, 2)),
    "of one position": Give(lambda maps: maps.mean((2, 3), keepdim=True), size=16),
}
LAST = {
    "read by a linear layer": Give(turned, nn.Linear(4, 2)),
    "read by a norm, of one size": Give(turned, nn.LayerNorm(4), size=16),
    "after a function": Give(turned),
    "before a linear layer of one size": Give(
        turned, nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    ),
}


@pytest.mark.parametrize("case", FIRST)
def test_a_map_with_channels_first_is_taken_and_not_turned(case):
    assert seen(FIRST[case], "mark")["mark"].shape[1] == 4
    with pytest.raises(UserError, match=r"it gives a map \[N, C, H, W\], .*; write 'mark'"):
        seen(FIRST["after a function"], "mark:nhwc")


@pytest.mark.parametrize("case", LAST)
def test_a_map_with_channels_last_is_refused_until_its_tap_says_so(case):
    message = r"it gives a map \[N, H, W, C\], \[4, 4, 4\] for an image; write 'mark:nhwc'"
    for tap in ("mark", "mark:nchw"):
        with pytest.raises(UserError, match=message):
            seen(LAST[case], tap)
    assert seen(LAST[case], "mark:nhwc")


@pytest.mark.parametrize("function", [shifted, turned])
def test_where_nothing_shows_the_layout_it_is_asked_for(function):
    network = Give(function, size=16)
    with pytest.raises(UserError, match="first or last; write 'mark:nchw' or 'mark:nhwc'"):
        seen(network, "mark")
    assert seen(network, "mark:nchw")
    assert seen(network, "mark:nhwc")


def test_what_timm_says_of_a_network_counts_where_nothing_else_shows_it():
    network = Give(turned, size=16)
    network.output_fmt = "NHWC"
    with pytest.raises(UserError, match="write 'mark:nhwc'"):
        seen(network, "mark")


def test_calls_inputs_and_entries_are_looked_at():
    network = Give(turned)
    for tap, right in (
        ("mark:in", "mark:in:nhwc"),
        ("mark[*][-1]", r"mark\[\*\]\[-1\]:nhwc"),
    ):
        with pytest.raises(UserError, match=f"write '{right}'"):
            seen(network, tap)
    network = nn.Sequential(Give(turned), nn.Identity())
    network[0].forward = lambda x: {"map": turned(network[0].conv(x))}
    with pytest.raises(UserError, match=r"write '0\[map\]:nhwc'"):
        map_values(Run(network), FeatureTap(network, "0[map]"), BATCH, ["0[map]"])


class Run(Predict):
    def forward(self, batch):
        self.network(batch["image"])


class Listed(Predict):
    """A detector's way: the network gets no tensor of images."""

    def forward(self, batch):
        return self.network([batch["image"]])


class Inner(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return self.inner(images[0])


def test_a_network_that_gets_no_images_is_asked_only_if_it_has_such_maps():
    taps = ["inner.mark"]
    for function, head in ((shifted, None), (turned, nn.Linear(4, 2))):
        network = Inner(Give(function, head))
        tap = FeatureTap(network, taps)
        if head is None:
            assert map_values(Listed(network), tap, BATCH, taps)
            continue
        with pytest.raises(UserError, match=r"write 'inner\.mark:nhwc'"):
            map_values(Listed(network), tap, BATCH, taps)


def test_nothing_of_the_network_is_changed():
    network = nn.Sequential(Give(turned), nn.Dropout())
    network.train()
    state = torch.get_rng_state()
    with pytest.raises(UserError):
        seen(network, "0.mark")
    assert network[1].training
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_a_distiller_refuses_it_on_either_side_and_at_is_zero_once_it_is_said():
    network, teacher = Give(turned), Give(lambda maps: maps)
    teacher.load_state_dict(network.state_dict())

    def make(student, teachers):
        term = Term(AT(), student=student, teacher=teachers)
        return Distiller(Predict(network), Predict(teacher), {"at": term}, sample=BATCH)

    with pytest.raises(UserError, match="student: tap 'mark': it gives a map"):
        make("mark", "mark")
    assert make("mark:nhwc", "mark")(BATCH)["at"] == 0
    with pytest.raises(UserError, match="teacher 'teacher': tap 'mark:nhwc'"):
        make("mark:nhwc", "mark:nhwc")


def test_terms_of_a_config_refuse_it_before_their_criterion_is_built():
    node = {"criterion": {"type": "kd_core.criteria.FitNet"}, "student": "mark", "teacher": "conv"}
    teachers = {"teacher": Predict(Give(shifted))}
    with pytest.raises(UserError, match=r"distiller.terms.t.student: tap 'mark': .*:nhwc"):
        build_terms({"t": node}, Predict(Give(turned)), teachers, BATCH)
    node["student"] = "mark:nhwc"
    assert build_terms({"t": node}, Predict(Give(turned)), teachers, BATCH)
