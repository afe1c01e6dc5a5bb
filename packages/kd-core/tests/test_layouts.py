"""Layouts of taps: NHWC maps and tokens in the form that criteria take, told or refused."""

import pytest
import torch
from kd_core.criteria.criterion import Criterion
from kd_core.distill.distiller import Distiller
from kd_core.distill.teacher import Teacher
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.networks.layouts import for_kind
from kd_core.networks.taps import FeatureTap, OverwrittenTapError
from kd_core.networks.task import Task
from torch import nn

IMAGES = torch.randn(2, 3, 16, 36, generator=torch.Generator().manual_seed(0))  # 4 x 9 patches


class Tokens(nn.Module):
    """A vision transformer as torchvision names its parts, without attention."""

    def __init__(self, registers=0):
        super().__init__()
        self.conv_proj = nn.Conv2d(3, 5, 4, stride=4)
        self.class_token = nn.Parameter(torch.randn(1, 1, 5))
        self.registers = nn.Parameter(torch.randn(1, registers, 5))
        self.early, self.late, self.head = nn.Identity(), nn.Identity(), nn.Linear(5, 3)

    def forward(self, x):
        tokens = self.early(self.conv_proj(x).flatten(2).mT)
        first = torch.cat([self.class_token, self.registers], 1).expand(len(x), -1, -1)
        tokens = self.late(torch.cat([first, tokens], 1))
        return self.head(tokens[:, 0])


class Last(nn.Module):
    """A network whose part `turn` returns maps with their channels last, in any structure."""

    def __init__(self, structure=lambda maps: maps, *, inplace=False):
        super().__init__()
        self.conv, self.turn = nn.Conv2d(3, 5, 4, stride=4), nn.Identity()
        self.pool, self.structure, self.inplace = nn.AdaptiveAvgPool2d(1), structure, inplace

    def forward(self, x):
        maps = self.conv(x)
        given = self.turn(self.structure(maps.permute(0, 2, 3, 1)))
        if self.inplace:
            given.relu_()
        return self.pool(maps)


def tapped(network, *taps, **options):
    with FeatureTap(network, taps, **options) as seen:
        network(IMAGES)
    return [seen[tap] for tap in taps]


def test_a_map_with_channels_last_is_turned_and_one_with_channels_first_is_kept():
    network = Last()
    first, turned, kept, rows = tapped(
        network, "conv", "turn:nhwc", "conv:nchw", "turn:nhwc:tokens"
    )
    assert first.shape == (2, 5, 4, 9)
    assert torch.equal(turned, first)
    assert torch.equal(kept, first)
    assert torch.equal(rows, first.flatten(2).mT)


def test_layouts_combine_with_inputs_entries_and_calls():
    network = Last(lambda maps: {"map": maps, "other": 1})
    entry, vector = tapped(network, "turn[map]:nhwc", "output:vector")
    (first,) = tapped(network, "conv")
    (again,) = tapped(network, "pool:in[*][-1]:nchw")
    assert torch.equal(entry, first)
    assert torch.equal(again, first)
    assert vector.shape == (2, 5)
    assert tapped(Last(), "turn:in[*]:nhwc")[0][0].shape == first.shape


def test_tokens_of_a_known_transformer_lose_their_prefix_and_become_its_grid():
    network = Tokens()
    patches, tokens, maps, cls = tapped(network, "conv_proj", "late:tokens", "late:map", "late:cls")
    assert torch.equal(tokens, patches.flatten(2).mT)
    assert torch.equal(maps, patches)  # 4 x 9 of 36 tokens, not 6 x 6
    assert torch.equal(cls, network.class_token[0].expand(2, -1))


def test_a_mean_is_that_of_the_positions_of_the_image():
    network = Tokens()
    patches, *means = tapped(
        network,
        "conv_proj",
        "conv_proj:nchw:mean",
        "late:mean",
        "early:mean",
        "late:mean(prefix=1)",
    )
    for mean in means:
        torch.testing.assert_close(mean, patches.mean((2, 3)))
    first, turned = tapped(Last(), "conv", "turn:nhwc:mean")
    torch.testing.assert_close(turned, first.mean((2, 3)))


def test_tokens_before_the_class_token_is_added_have_no_prefix():
    patches, maps = tapped(Tokens(), "conv_proj", "early:map")
    assert torch.equal(maps, patches)


def test_a_transformer_inside_a_network_is_known():
    patches, maps = tapped(nn.Sequential(Tokens()), "0.conv_proj", "0.late:map")
    assert torch.equal(maps, patches)


@pytest.mark.parametrize("options", ["prefix=3,grid=4x9", "prefix=3, stride=4", "prefix=3"])
def test_what_the_network_does_not_say_can_be_told(options):
    patches, maps = tapped(Tokens(registers=2), "conv_proj", f"late:map({options})")
    assert torch.equal(maps, patches)


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        ("late:map", "39 tokens are not 1 and 4x9 of the image"),
        ("late:map(prefix=2)", "39 tokens are not 2 and 4x9"),
        ("early:map(prefix=3)", "36 tokens are not 3 and 4x9"),
        ("late:map(prefix=3,grid=6x7)", "39 tokens are not 3 and 6x7"),
        ("late:cls(prefix=0,grid=3x13)", "without a class token"),
        ("conv_proj:tokens", r"is for tokens \[N, L, D\]; .* \[N, 5, 4, 9\]; write :nhwc or :nchw"),
        ("conv_proj:mean", r"is for tokens .*write :nhwc or :nchw"),
        ("late:nhwc", "is for maps of four dimensions"),
        ("conv_proj:vector", "is for one position"),
    ],
)
def test_a_value_that_is_not_laid_out_so_is_refused(tap, message):
    with pytest.raises(UserError, match=message):
        tapped(Tokens(registers=2), tap)


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        ("turn:tokens", "how many tokens come before those of the image .*does not say it; write"),
        ("turn:map(prefix=0)", "which height and width do the tokens have"),
        ("turn:tokens(prefix=1,prefix=2)", "'prefix=2' is not an option of tokens"),
        ("turn:tokens(prefix=1,grid=0x3)", "a grid or a stride above 0"),
        ("turn:tokens(grid=2x3,stride=2)", "a grid or a stride above 0"),
        ("turn:tokens(prefix)", "'prefix' is not an option"),
        ("turn:nhwc(grid=2x3)", "is not a layout; write"),
        ("turn:nhwc:mean(grid=2x3)", "is not a layout; write"),
        ("turn:nhwc:cls", "is not a layout"),
        ("turn:tokens:nhwc", "is not a layout"),
        ("turn:nwhc", "write path, path:in"),
    ],
)
def test_a_layout_that_is_not_one_or_not_known_is_refused_at_construction(tap, message):
    with pytest.raises(UserError, match=message):
        FeatureTap(Last(), tap)


def test_a_grid_is_asked_for_where_no_image_came_before():
    network = nn.Sequential(nn.Identity())
    with (
        pytest.raises(UserError, match=r"no images .* as in :map\(prefix=0,grid=7x7\)"),
        FeatureTap(network, "0:map(prefix=0,stride=4)"),
    ):
        network(torch.zeros(2, 6, 5))


def test_a_grid_is_measured_in_every_pass():
    network = Tokens()
    tap = FeatureTap(network, ["late:map", "late:map(prefix=1,stride=4)"])
    for size in ((8, 8), (12, 4)):
        with tap as seen:
            network(torch.zeros(1, 3, *size))
        assert all(maps.shape[2:] == (size[0] / 4, size[1] / 4) for maps in seen.values())


def test_views_of_one_batch_are_joined_in_their_layout():
    network, tap = Last(), FeatureTap(Last(), "turn:nhwc")
    tap = tap.of(network)
    tap.passes = 2
    with tap as seen:
        for part in IMAGES.tensor_split(2):
            network(part)
    assert torch.equal(seen["turn:nhwc"], tapped(network, "conv")[0])


def test_a_turned_map_that_is_overwritten_is_seen_and_can_be_copied():
    network = Last(inplace=True)
    with pytest.raises(OverwrittenTapError):
        tapped(network, "turn:nhwc")
    (copied,) = tapped(network, "turn:nhwc", copy="turn:nhwc")
    assert (copied < 0).any()


def test_a_convolution_that_is_tapped_in_a_layout_is_not_folded():
    pairs = [nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)]
    network = nn.Sequential(*pairs)
    for norm in (network[1], network[3]):
        norm.running_mean.fill_(3)
    teacher, batch = Teacher(Predict(network)), {"image": IMAGES}
    wanted = teacher.infer_shapes(["0:nchw:tokens", "3:nchw"], batch)
    assert teacher.accelerate(batch) == 1  # the second pair alone
    torch.testing.assert_close(teacher(batch), wanted)


@pytest.mark.parametrize(
    ("tap", "maps", "tokens"),
    [
        ("a:tokens", "a:map", "a:tokens"),
        ("a:map(prefix=1,grid=2x3)", "a:map(prefix=1,grid=2x3)", "a:tokens(prefix=1,grid=2x3)"),
        ("a[0]:nhwc", "a[0]:nhwc", "a[0]:nhwc:tokens"),
        ("a:nchw:tokens", "a:nchw", "a:nchw:tokens"),
        ("map.tokens", "map.tokens", "map.tokens"),
        ("a:cls", "a:cls", "a:cls"),
    ],
)
def test_a_tap_follows_what_its_criterion_takes(tap, maps, tokens):
    assert for_kind(tap, "maps") == maps
    assert for_kind(tap, "tokens") == tokens
    assert for_kind(tap, "logits") == tap


class Predict(Task):
    def forward(self, batch):
        out = self.network(batch["image"])
        return {"own": out.mean()} if self.training else out


class Mean(Criterion):
    takes = "maps"

    def forward(self, student, teacher, batch):
        return sum((s.mean() - t.mean()).square() for s, t in zip(student, teacher, strict=True))


class TokenMean(Mean):
    takes = "tokens"

    def forward(self, student, teacher, batch):
        return (student.mean(1) - teacher.mean(1)).square().mean()


class VectorMean(TokenMean):
    takes = "vectors"

    def forward(self, student, teacher, batch):
        return (student - teacher).square().mean()


@pytest.mark.parametrize(
    ("criterion", "student", "shape"),
    [
        (Mean, "late:tokens", (5, 4, 9)),
        (TokenMean, "late:map", (36, 5)),
        (VectorMean, "late:cls", (5,)),
        (VectorMean, "late:mean", (5,)),
        (VectorMean, "conv_proj:nchw:mean", (5,)),
    ],
)
def test_a_criterion_gets_the_tokens_as_it_takes_them(criterion, student, shape):
    term = Term(criterion(), student=student, teacher=student)
    distiller = Distiller(
        Predict(Tokens()), Predict(Tokens()), {"t": term}, sample={"image": IMAGES}
    )
    (seen,) = distiller.tap_shapes["student"].values()
    assert seen == shape
    distiller.train()({"image": IMAGES})["t"].backward()


@pytest.mark.parametrize(
    ("criterion", "tap", "message"),
    [
        (Mean, "late", r"gives \[N, 37, 5\]; if these are tokens, write PATH:tokens"),
        (TokenMean, "conv_proj", "write PATH:nchw:tokens or PATH:nhwc:tokens"),
        (VectorMean, "late", "PATH:cls is the class token and PATH:mean the mean of the image's"),
        (VectorMean, "conv_proj", "PATH:nchw:mean or PATH:nhwc:mean is a map's mean"),
        (VectorMean, "conv_proj:nhwc:mean", "it gives a map .*write 'conv_proj:nchw:mean'"),
        (TokenMean, "conv_proj:nhwc:tokens", "it gives a map .*write 'conv_proj:nchw:tokens'"),
    ],
)
def test_a_criterion_refuses_another_layout_with_the_way_on(criterion, tap, message):
    term = Term(criterion(), student=tap, teacher="late:tokens")
    with pytest.raises(UserError, match=message):
        Distiller(Predict(Tokens()), Predict(Tokens()), {"t": term}, sample={"image": IMAGES})


def with_role(network, tap):
    task = Predict(network)
    task.roles = {"map": (tap,)}
    return task


def test_maps_behind_a_role_are_tokens_for_a_criterion_on_tokens():
    student, teacher = with_role(Last(), "conv"), with_role(Last(), "turn:nhwc")
    term = Term(TokenMean(), student="@map", teacher="@map")
    distiller = Distiller(student, teacher, {"t": term}, sample={"image": IMAGES})
    assert distiller.tap_shapes == {
        "student": {"conv:nchw:tokens": (36, 5)},
        "teacher": {"turn:nhwc:tokens": (36, 5)},
    }
    distiller.train()({"image": IMAGES})["t"].backward()


@pytest.mark.parametrize("tap", ["turn", "turn:nchw:tokens"])
def test_channels_that_are_last_are_not_taken_for_positions(tap):
    term = Term(TokenMean(), student="@map", teacher="conv:nchw:tokens")
    with pytest.raises(UserError, match=r"gives a map \[N, H, W, C\].* write 'turn:nhwc:tokens'"):
        Distiller(with_role(Last(), tap), Predict(Last()), {"t": term}, sample={"image": IMAGES})


class Attributes(nn.Module):
    """A transformer with the attributes of one of timm's or Hugging Face's."""

    def __init__(self, **attributes):
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)
        self.block = nn.Identity()


def _patches(**inner):
    return Attributes(proj=nn.Conv2d(3, 2, 2, stride=2), **inner)


@pytest.mark.parametrize(
    ("network", "prefix"),
    [
        (
            Attributes(
                patch_embed=_patches(),
                num_prefix_tokens=5,
                cls_token=nn.Parameter(torch.zeros(1, 1, 2)),
                feature_info=[{"module": "block", "num_chs": 2, "reduction": 2}],
            ),
            5,
        ),
        (
            Attributes(
                config={},
                embeddings=Attributes(
                    cls_token=nn.Parameter(torch.zeros(1, 1, 2)),
                    register_tokens=nn.Parameter(torch.zeros(1, 4, 2)),
                    patch_embeddings=Attributes(projection=nn.Conv2d(3, 2, 2, stride=2)),
                ),
            ),
            5,
        ),
    ],
    ids=["timm", "hugging face"],
)
def test_transformers_say_their_prefix_and_grid(network, prefix):
    layout = FeatureTap(network, "block:map")._taps[0].layout
    assert layout.prefix == prefix
    assert layout.source.endswith(("proj", "projection"))
    assert FeatureTap(network, "block:cls").paths


def test_levels_of_several_strides_are_not_taken_for_a_plain_transformer():
    infos = [{"module": "block", "num_chs": 2, "reduction": stride} for stride in (4, 8)]
    network = Attributes(patch_embed=_patches(), num_prefix_tokens=0, feature_info=infos)
    with pytest.raises(UserError, match="how many tokens"):
        FeatureTap(network, "block:map")
