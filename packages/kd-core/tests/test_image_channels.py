"""Grey and colour images, and networks of one and three channels, in any combination."""

import numpy as np
import pytest
import torch
from kd_core.errors import UserError
from kd_core.networks.image_channels import input_channels, statistics_for
from kd_core.networks.image_task import ImageTask
from PIL import Image
from torch import nn


def conv(channels):
    return nn.Sequential(nn.Flatten(0, -1), nn.Conv2d(channels, 2, 3), nn.Conv2d(2, 1, 3))


@pytest.mark.parametrize(
    ("network", "channels"),
    [
        (conv(1), 1),
        (conv(3), 3),
        (conv(4), 3),
        (nn.Linear(3, 2), 3),
        (nn.Sequential(nn.Conv1d(1, 1, 3), nn.Conv2d(3, 4, 3)), 3),
    ],
)
def test_the_first_convolution_says_how_many_channels_a_network_takes(network, channels):
    assert input_channels(network) == channels


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("size", [None, 6])
def test_colour_becomes_grey_as_pillow_has_it(dtype, size):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    image = image if dtype is torch.uint8 else image / 255
    before = image.clone()
    prepared = ImageTask(conv(1), mean=[0.25], std=[0.5], size=size).prepare(image)
    assert torch.equal(image, before)
    assert prepared.shape[1] == 1
    if size is None:
        grey = np.array(Image.fromarray(pixels).convert("L"))
        assert np.abs((prepared[0, 0] * 0.5 + 0.25).numpy() * 255 - grey).max() <= 0.51


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_grey_images_are_repeated_for_a_network_of_three_channels(dtype):
    image = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4)
    image = image if dtype is torch.uint8 else image / 255
    before = image.clone()
    task = ImageTask(conv(3), mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    expected = task.prepare(image.expand(-1, 3, -1, -1).contiguous())
    assert torch.equal(task.prepare(image), expected)
    assert torch.equal(image, before)


def test_grey_stored_in_three_channels_is_the_same_grey():
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    task = ImageTask(conv(1), mean=[0.4], std=[0.2])
    assert torch.allclose(task.prepare(grey), task.prepare(grey.repeat(1, 3, 1, 1)), atol=1e-6)


def test_without_statistics_a_task_has_the_channels_of_its_network():
    assert ImageTask(conv(1)).prepare(torch.rand(2, 3, 4, 4)).shape[1] == 1
    assert ImageTask(conv(3)).prepare(torch.rand(2, 1, 4, 4)).shape[1] == 3


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_refused(channels):
    with pytest.raises(UserError, match=rf"the images have {channels} channels.*1 \(grey\) or 3"):
        ImageTask(conv(3)).prepare(torch.rand(2, channels, 4, 4))


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5, 0.5], [0.5, 0.5], "mean needs three numbers, one a channel, or one of grey"),
        ([0.5], [0.5, 0.5, 0.5], "mean has 1 numbers and std 3"),
    ],
)
def test_statistics_of_no_image_are_refused(mean, std, message):
    with pytest.raises(UserError, match=message):
        ImageTask(conv(3), mean=mean, std=std)


def test_statistics_are_those_of_the_network_s_channels_and_grey_is_told(capsys):
    colour = (0.1, 0.2, 0.4), (0.3, 0.3, 0.3)
    assert statistics_for(conv(3), colour, "student") == colour
    assert capsys.readouterr().err == ""
    assert statistics_for(conv(1), colour, "student") == ((0.1929,), (0.3,))
    told = " ".join(capsys.readouterr().err.split())
    assert "student: the network takes one channel, so images become grey (0.299 red" in told
    assert "student.mean=[...]" in told
    assert statistics_for(conv(3), ((0.1,), (0.3,)), "student") == ((0.1,) * 3, (0.3,) * 3)
    assert statistics_for(conv(1), ((0.1,), (0.3,)), "student") == ((0.1,), (0.3,))
