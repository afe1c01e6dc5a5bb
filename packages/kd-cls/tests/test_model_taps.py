"""Tap paths of the zoo: shapes on the meta device, values where they matter."""

import functools
import inspect

import pytest
import torch
from kd_cls.models import MODELS, Taps, build_model, taps
from kd_cls.models.layers import ChannelShuffle
from torch import Tensor, nn

BASIC = ((16, 32), (16, 32), (32, 16), (64, 8))
WIDE = ((32, 32), (64, 32), (128, 16), (256, 8))
BASIC_4 = ((64, 32), (64, 32), (128, 16), (256, 8), (512, 4))
BOTTLENECK_4 = ((64, 32), (256, 32), (512, 16), (1024, 8), (2048, 4))
WRN_2 = ((16, 32), (32, 32), (64, 16), (128, 8))
VGG = ((64, 32), (128, 16), (256, 8), (512, 4), (512, 4))
IMAGENET_BASIC = ((64, 112), (64, 56), (128, 28), (256, 14), (512, 7))
IMAGENET_BOTTLENECK = ((64, 112), (256, 56), (512, 28), (1024, 14), (2048, 7))

# (channels, height) of the stages, and width of the pooled vector.
SHAPES = {
    "resnet8": (BASIC, 64),
    "resnet14": (BASIC, 64),
    "resnet20": (BASIC, 64),
    "resnet32": (BASIC, 64),
    "resnet44": (BASIC, 64),
    "resnet56": (BASIC, 64),
    "resnet110": (BASIC, 64),
    "resnet8x4": (WIDE, 256),
    "resnet32x4": (WIDE, 256),
    "ResNet18": (BASIC_4, 512),
    "ResNet34": (BASIC_4, 512),
    "ResNet50": (BOTTLENECK_4, 2048),
    "ResNet101": (BOTTLENECK_4, 2048),
    "wrn_16_1": (BASIC, 64),
    "wrn_16_2": (WRN_2, 128),
    "wrn_40_1": (BASIC, 64),
    "wrn_40_2": (WRN_2, 128),
    "vgg8": (VGG, 512),
    "vgg11": (VGG, 512),
    "vgg13": (VGG, 512),
    "vgg16": (VGG, 512),
    "vgg19": (VGG, 512),
    "MobileNetV2": (((16, 16), (12, 16), (16, 8), (48, 4), (160, 2)), 1280),
    "ShuffleV1": (((24, 32), (240, 16), (480, 8), (960, 4)), 960),
    "ShuffleV2": (((24, 32), (116, 16), (232, 8), (464, 4)), 1024),
    "MobileNetV2_tiny": (((32, 66), (24, 33), (32, 17), (64, 9), (1280, 9)), 1280),
    "MobileNetV1": (((128, 56), (256, 28), (512, 14), (1024, 7)), 1024),
    "resnet18_imagenet": (IMAGENET_BASIC, 512),
    "resnet34_imagenet": (IMAGENET_BASIC, 512),
    "resnet50_imagenet": (IMAGENET_BOTTLENECK, 2048),
    "resnet101_imagenet": (IMAGENET_BOTTLENECK, 2048),
}
PIXELS = {100: 32, 200: 64, 1000: 224}
# One network of every family that has a pre-activation behind a ReLU.
RECTIFIED = ("resnet8", "resnet8x4", "resnet20_a", "ResNet18", "vgg8", "ShuffleV1", "MobileNetV1")


def classes_of(name: str) -> int:
    return inspect.signature(MODELS[name]).parameters["num_classes"].default


@functools.cache
def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return build_model(name, classes_of(name))


@functools.cache
def taps_of(name: str) -> Taps:
    return taps(name)


@pytest.fixture
def plain_norms(monkeypatch):
    """Let BatchNorms only look at the channels: PyTorch takes 10 ms for one on the meta device."""

    def unchanged(norm, maps):
        assert maps.shape[1] == norm.num_features
        return maps

    monkeypatch.setattr(nn.BatchNorm2d, "forward", unchanged)


def tapped(network: nn.Module, image: Tensor, *paths: str) -> list[Tensor]:
    """Return what the paths gave in one forward pass."""
    seen: dict[str, Tensor] = {}
    handles = []
    for path in paths:
        module = network.get_submodule(path.removesuffix(":in"))
        if path.endswith(":in"):
            hook = lambda _, args, path=path: seen.update({path: args[0]})  # noqa: E731
            handles.append(module.register_forward_pre_hook(hook))
        else:
            hook = lambda _, args, output, path=path: seen.update({path: output})  # noqa: E731
            handles.append(module.register_forward_hook(hook))
    network(image)
    for handle in handles:
        handle.remove()
    return [seen[path] for path in paths]


@pytest.mark.usefixtures("plain_norms")
@pytest.mark.parametrize("name", SHAPES)
def test_taps_give_the_published_shapes(name):
    shapes, pooled = SHAPES[name]
    paths, pixels = taps_of(name), PIXELS[classes_of(name)]
    image = torch.empty(2, 3, pixels, pixels, device="meta")
    maps = (*paths.stages, *(paths.preact or paths.stages))
    *values, vector, last = tapped(on_meta(name), image, *maps, paths.pooled, "avgpool:in")
    assert [tuple(value.shape) for value in values] == [(2, c, h, h) for c, h in shapes] * 2
    assert paths.channels == tuple(channels for channels, _ in shapes)
    assert vector.shape == last.shape[:2] == (2, pooled)


@pytest.mark.usefixtures("plain_norms")
@pytest.mark.parametrize("name", MODELS)
def test_an_image_of_64_pixels_runs_every_module_exactly_once(name):
    network, calls = on_meta(name).train(), []
    handles = [
        module.register_forward_hook(lambda *_, path=path: calls.append(path))
        for path, module in network.named_modules()
    ]
    logits = network(torch.empty(2, 3, 64, 64, device="meta"))
    for handle in handles:
        handle.remove()
    assert logits.shape == (2, classes_of(name))
    assert sorted(calls) == sorted(path for path, _ in network.named_modules())


@pytest.mark.parametrize("name", MODELS)
def test_listed_batchnorms_stand_before_the_activation_of_the_stages_after_the_first(name):
    network, paths = on_meta(name), taps_of(name)
    norms = [network.get_submodule(path) for path in paths.batchnorms]
    assert all(isinstance(norm, nn.BatchNorm2d) for norm in norms)
    assert not norms or [norm.num_features for norm in norms] == list(paths.channels[1:])


@pytest.mark.parametrize("name", RECTIFIED)
def test_stage_is_the_rectified_pre_activation(name):
    network, paths = build_model(name).eval(), taps(name)
    values = tapped(network, torch.rand(2, 3, 32, 32), *paths.stages, *paths.preact)
    stages, preacts = values[: len(paths.stages)], values[len(paths.stages) :]
    for stage, preact in zip(stages[1:], preacts[1:], strict=True):
        assert preact.min() < 0
        assert torch.equal(stage, preact.relu())


def test_shufflev2_stage_is_the_rectified_and_shuffled_pre_activation():
    network, paths = build_model("ShuffleV2_x0_5").eval(), taps("ShuffleV2_x0_5")
    image = torch.randn(2, 3, 32, 32)
    stages, preacts = (tapped(network, image, *p) for p in (paths.stages, paths.preact))
    for stage, preact in zip(stages[1:], preacts[1:], strict=True):
        first, second = preact.chunk(2, dim=1)
        assert first.min() >= 0 > second.min()
        assert torch.equal(stage, ChannelShuffle(2)(torch.cat([first, second.relu()], dim=1)))


def test_channel_shuffle_interleaves_the_groups():
    shuffled = ChannelShuffle(3)(torch.arange(6.0).view(1, 6, 1, 1))
    assert shuffled.flatten().tolist() == [0, 2, 4, 1, 3, 5]


def test_wrn_stages_are_raw_and_its_statistics_move_once_a_step():
    network, paths = build_model("wrn_16_1"), taps("wrn_16_1")
    stages = tapped(network, torch.rand(2, 3, 32, 32), *paths.stages)
    assert all(stage.min() < 0 for stage in stages)
    counts = [b.item() for n, b in network.named_buffers() if n.endswith("num_batches_tracked")]
    assert set(counts) == {1}


@pytest.mark.parametrize(
    "heights", [(32, 16, 8, 4, 4), (64, 32, 16, 8, 4), (96, 48, 24, 12, 12)], ids=str
)
def test_vgg_halves_once_more_for_64_pixels_only(heights):
    image = torch.empty(1, 3, heights[0], heights[0], device="meta")
    stages = tapped(on_meta("vgg8"), image, *taps("vgg8").stages)
    assert tuple(stage.shape[2] for stage in stages) == heights


def test_reading_tap_paths_leaves_the_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    taps("ShuffleV2")
    taps("vgg8")
    assert torch.equal(torch.get_rng_state(), before)
