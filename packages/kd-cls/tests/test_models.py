"""Networks of the zoo: sizes, names, initial weights, errors, and real checkpoints."""

import inspect
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from kd_cls.models import MODELS, build_model
from kd_cls.models.__main__ import table
from kd_core.errors import UserError
from kd_core.files.weights import load_weights
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet50

# Parameters and state-dict entries of the reference implementations.
SIZES = {
    "resnet8": (83_892, 56),
    "resnet14": (181_108, 92),
    "resnet20": (278_324, 128),
    "resnet32": (472_756, 200),
    "resnet44": (667_188, 272),
    "resnet56": (861_620, 344),
    "resnet110": (1_736_564, 668),
    "resnet8x4": (1_233_540, 62),
    "resnet32x4": (7_433_860, 206),
    "ResNet18": (11_220_132, 122),
    "ResNet34": (21_328_292, 218),
    "ResNet50": (23_705_252, 320),
    "ResNet101": (42_697_380, 626),
    "wrn_16_1": (180_916, 82),
    "wrn_16_2": (703_284, 83),
    "wrn_40_1": (569_780, 226),
    "wrn_40_2": (2_255_156, 227),
    "vgg8": (3_965_028, 37),
    "vgg11": (9_277_284, 58),
    "vgg13": (9_462_180, 72),
    "vgg16": (14_774_436, 93),
    "vgg19": (20_086_692, 114),
    "MobileNetV2": (812_836, 320),
    "ShuffleV1": (949_258, 296),
    "ShuffleV2": (1_355_528, 338),
    "MobileNetV2_tiny": (2_497_480, 373),
    "MobileNetV1": (4_231_976, 164),
    "resnet18_imagenet": (11_689_512, 122),
    "resnet34_imagenet": (21_797_672, 218),
    "resnet50_imagenet": (25_557_032, 320),
    "resnet101_imagenet": (44_549_160, 626),
}
KEYS = {
    "resnet8x4": ("layer1.0.downsample.0.weight", "layer3.0.downsample.1.running_var", "fc.bias"),
    "ResNet50": ("layer1.0.shortcut.1.bias", "layer4.2.conv3.weight", "linear.weight"),
    "wrn_16_2": ("block1.layer.0.convShortcut.weight", "block3.layer.1.bn2.weight", "bn1.bias"),
    "vgg19": ("block2.9.bias", "block4.10.num_batches_tracked", "classifier.weight"),
    "MobileNetV2": ("conv1.0.weight", "blocks.6.0.conv.7.bias", "classifier.0.weight"),
    "ShuffleV1": ("layer2.7.bn3.weight", "layer1.0.conv3.weight", "linear.bias"),
    "ShuffleV2": ("layer1.0.conv5.weight", "layer2.7.bn3.running_mean", "conv2.weight"),
    "MobileNetV2_tiny": ("pre.0.bias", "stage1.residual.7.weight", "stage4.3.residual.0.bias"),
    "MobileNetV1": ("model.0.1.weight", "model.13.4.bias", "fc.weight"),
    "resnet20_a": ("layer1.2.conv2.weight", "layer3.0.bn2.bias", "fc.weight"),
}


def classes_of(name: str) -> int:
    return inspect.signature(MODELS[name]).parameters["num_classes"].default


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return build_model(name, classes_of(name))


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_of_the_published_networks(name):
    parameters, entries = SIZES[name]
    network = on_meta(name)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == parameters
    assert len(network.state_dict()) == entries


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_option_a_has_the_parameters_of_the_formula(depth):
    n = (depth - 2) // 6
    pairs = [(16, 16)] * 2 * n + [(16, 32)] + [(32, 32)] * (2 * n - 1)
    pairs += [(32, 64)] + [(64, 64)] * (2 * n - 1)
    body = sum(9 * a * b + 2 * b for a, b in [(3, 16), *pairs])
    network = on_meta(f"resnet{depth}_a")
    assert sum(p.numel() for p in network.parameters()) == body + 64 * 100 + 100


def test_option_a_shortcut_pads_every_second_pixel_with_zeros_on_both_sides():
    shortcut = build_model("resnet20_a").get_submodule("layer2.0.downsample")
    x = torch.rand(2, 16, 4, 4)
    padded = shortcut(x)
    assert torch.equal(padded[:, 8:24], x[:, :, ::2, ::2])
    assert padded.shape == (2, 32, 2, 2)
    assert not padded[:, :8].any()
    assert not padded[:, 24:].any()


@pytest.mark.parametrize("name", KEYS)
def test_keys_are_those_of_the_public_checkpoints(name):
    assert set(KEYS[name]) <= set(on_meta(name).state_dict())


@pytest.mark.parametrize("name", ["resnet8x4", "ResNet18", "wrn_16_2", "vgg8", "MobileNetV2"])
def test_convolutions_start_he_normal_over_their_outputs(name):
    torch.manual_seed(0)
    convs = [m for m in build_model(name).modules() if isinstance(m, nn.Conv2d)]
    for conv in (conv for conv in convs if conv.weight.numel() > 10_000):
        outputs = conv.out_channels * conv.kernel_size[0] ** 2
        assert conv.weight.std().item() == pytest.approx((2 / outputs) ** 0.5, rel=0.05)
        assert conv.bias is None or not conv.bias.any()


def test_classifiers_start_as_published():
    torch.manual_seed(0)
    for classifier in (build_model("vgg8").classifier, build_model("MobileNetV2").classifier[0]):
        assert classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert not classifier.bias.any()
    assert not build_model("wrn_16_1").fc.bias.any()
    assert build_model("resnet8").fc.bias.any()


def test_zero_init_makes_the_blocks_start_as_identities():
    block = build_model("ResNet18", zero_init_residual=True).layer1[1]
    x = torch.rand(2, 64, 4, 4)
    assert torch.equal(block(x), x)


def test_imagenet_resnets_equal_torchvision():
    torch.manual_seed(0)
    reference, network = resnet50().eval(), build_model("resnet50_imagenet", 1000).eval()
    network.load_state_dict(reference.state_dict())
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(network(image), reference(image))


@pytest.mark.parametrize(
    ("name", "arguments", "hint"),
    [
        ("resnet32x8", {}, "did you mean 'resnet32x4'"),
        ("resnet18", {}, "did you mean 'ResNet18' or 'resnet18_imagenet'"),
        ("wrn_16_1", {"dropot": 0.3}, "'dropot'; did you mean 'dropout'"),
    ],
)
def test_misspelt_network_or_argument_names_the_nearest(name, arguments, hint):
    with pytest.raises(UserError, match=hint):
        build_model(name, **arguments)


def test_impossible_depth_is_refused():
    network = type(build_model("resnet8"))
    with pytest.raises(UserError, match="6n \\+ 2"):
        network(18)


@pytest.fixture(scope="module", autouse=True)
def tiny_network():
    """Leave the zoo as it is: this module looks at all of it."""


def test_the_page_in_docs_has_the_table_of_the_code():
    page = Path(__file__).parents[3] / "docs" / "models.md"
    if not page.exists():
        pytest.skip("kd-cls is tested outside its repository")
    assert table() in page.read_text(encoding="utf-8")


def cifar10_images(data: Path, count: int) -> Tensor:
    """Return every n-th test image, normalised as CIFAR-100."""
    arrays = np.load(data / "cifar10_jpeg" / "test.npz")
    ends, jpeg = arrays["offset"], arrays["jpeg"]
    picked = range(0, len(ends) - 1, (len(ends) - 1) // count)
    files = (io.BytesIO(jpeg[ends[i] : ends[i + 1]].tobytes()) for i in picked)
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    mean, std = torch.tensor([0.5071, 0.4867, 0.4408]), torch.tensor([0.2675, 0.2565, 0.2761])
    return ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)


@pytest.mark.skipif("KD_DATA" not in os.environ, reason="KD_DATA names no folder of real data")
def test_two_public_checkpoints_load_strictly_and_see_the_same():
    data, answers = Path(os.environ["KD_DATA"]), []
    images = cifar10_images(data, 200)
    for name in ("resnet20", "resnet32"):
        network = build_model(name).eval()
        load_weights(network, data / "checkpoints" / f"cifar100_{name}.pth")
        with torch.no_grad():
            answers.append(network(images).argmax(dim=1))
    # Images of foreign classes: the networks are often wrong, but mostly about the same thing.
    assert (answers[0] == answers[1]).float().mean() > 0.25  # by chance 0.01
