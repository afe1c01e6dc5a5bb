"""Tokens of student and teacher are laid on one another only where their grids allow it."""

import pytest
import torch
from kd_core.criteria.aligners import resize_tokens
from kd_core.criteria.criterion import Criterion
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.functional import mse
from kd_core.networks.task import Task
from torch import nn


class Tokens(Criterion):
    """Compares tokens of equal width, on the teacher's grid."""

    takes = "tokens"

    def forward(self, student, teacher, batch):
        return mse(resize_tokens(student, teacher.shape[1]), teacher.detach())


class Network(nn.Module):
    """A convolution with a stride."""

    def __init__(self, stride):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, stride, stride)
        self.swapped = nn.Identity()

    def forward(self, image):
        maps = self.conv(image)
        self.swapped(nn.functional.gelu(maps).movedim(1, -1))
        return maps.mean((2, 3))


class Resized(Task):
    """A task whose images get a size of their own."""

    def __init__(self, network, size=None, roles=None):
        super().__init__(network, roles=roles)
        self.size = size

    def forward(self, batch):
        image = batch["image"]
        image = image if self.size is None else nn.functional.interpolate(image, self.size)
        out = self.network(image)
        return {"zero": 0 * out.sum()} if self.training else out


def distilled(image, strides=(2, 2), size=None, taps=("conv:nchw:tokens",) * 2, roles=None):
    student = Resized(Network(strides[0]), roles=roles)
    teacher = Resized(Network(strides[1]), size)
    batch = {"image": torch.randn(2, 3, *image), "label": torch.tensor([0, 1])}
    term = Term(Tokens(), student=taps[0], teacher=taps[1])
    return Distiller(student, teacher, {"t": term}, sample=batch).train()(batch)["t"]


@pytest.mark.parametrize(
    ("image", "strides", "size"),
    [
        ((8, 8), (2, 2), None),
        ((8, 8), (2, 4), None),
        ((8, 8), (4, 2), (16, 16)),
        ((4, 16), (2, 2), None),
    ],
)
def test_equal_or_square_grids_are_compared(image, strides, size):
    assert distilled(image, strides, size).isfinite()


@pytest.mark.parametrize(
    ("image", "strides", "size", "message"),
    [
        # 16 tokens both, of 2 x 8 and 4 x 4
        ((4, 16), (2, 2), (8, 8), "are of 2 x 8 positions, the teacher's of 4 x 4"),
        # 16 and 4, which both have a root
        ((4, 16), (2, 4), None, "are of 2 x 8 positions, the teacher's of 1 x 4"),
        ((8, 8), (2, 2), (4, 16), "are of 4 x 4 positions, the teacher's of 2 x 8"),
    ],
)
def test_grids_that_only_look_alike_by_their_number_are_refused(image, strides, size, message):
    with pytest.raises(UserError, match=f"term 't': the student's tokens {message}") as caught:
        distilled(image, strides, size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tap", ["@map", "@tokens", "@stages[-1]"])
def test_a_map_by_its_role_is_tokens_for_a_criterion_on_tokens(tap):
    roles = {"map": ("conv",), "stages": ("conv",)}
    torch.manual_seed(0)
    expected = distilled((8, 8))
    torch.manual_seed(0)
    assert distilled((8, 8), taps=(tap, "conv:nchw:tokens"), roles=roles) == expected


@pytest.mark.parametrize("tap", ["@map", "@tokens", "swapped:nchw:tokens"])
def test_a_map_with_its_channels_last_that_does_not_say_so_is_refused(tap):
    with pytest.raises(UserError, match=r"it gives a map .N, H, W, C.*write 'swapped:nhwc:tokens'"):
        distilled((8, 8), taps=(tap, "conv:nchw:tokens"), roles={"map": ("swapped",)})


def test_a_role_of_tokens_is_taken_before_the_map():
    roles = {"map": ("no.such",), "tokens": ("conv:nchw:tokens",)}
    assert distilled((8, 8), taps=("@tokens", "conv:nchw:tokens"), roles=roles).isfinite()
