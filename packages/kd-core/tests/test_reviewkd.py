from math import isclose

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.reviewkd import ReviewKD, hcl
from kd_core.errors import UserError
from kd_core.testing import signals

# Channels of student and teacher, sides of student and teacher, and the references' count.
SAME = (32, 16, 8, 1)
PAIRS = {
    "resnet56_resnet20": ((16, 32, 64, 64), (16, 32, 64, 64), SAME, SAME, 114_278),
    "resnet32x4_resnet8x4": ((64, 128, 256, 256), (64, 128, 256, 256), SAME, SAME, 1_808_774),
    "wrn_40_2_wrn_16_2": ((32, 64, 128, 128), (32, 64, 128, 128), SAME, SAME, 453_830),
    "wrn_40_2_wrn_40_1": ((16, 32, 64, 64), (32, 64, 128, 128), SAME, SAME, 216_006),
    "vgg13_vgg8": ((128, 256, 512, 512, 512),) * 2 + ((16, 8, 4, 4, 1),) * 2 + (9_847_560,),
    "ResNet50_vgg8": (
        *((128, 256, 512, 512, 512), (256, 512, 1024, 2048, 2048)),
        *((16, 8, 4, 4, 1), (32, 16, 8, 4, 1), 28_140_040),
    ),
    "resnet32x4_ShuffleV1": (
        *((240, 480, 960, 960), (64, 128, 256, 256)),
        *((16, 8, 4, 1), (32, 16, 8, 1), 4_607_366),
    ),
    "wrn_40_2_ShuffleV1": (
        *((240, 480, 960, 960), (32, 64, 128, 128)),
        *((16, 8, 4, 1), (32, 16, 8, 1), 2_984_646),
    ),
    "resnet32x4_ShuffleV2": (
        *((116, 232, 464, 1024), (64, 128, 256, 256)),
        *((16, 8, 4, 1), (32, 16, 8, 1), 4_195_718),
    ),
    "vgg13_MobileNetV2": (
        *((12, 16, 48, 160, 1280), (128, 256, 512, 512, 512)),
        *((16, 8, 4, 2, 1), (16, 8, 4, 4, 1), 9_640_712),
    ),
    "ResNet50_MobileNetV2": (
        *((12, 16, 48, 160, 1280), (256, 512, 1024, 2048, 2048)),
        *((16, 8, 4, 2, 1), (32, 16, 8, 4, 1), 27_933_192),
    ),
    "imagenet_resnet34_resnet18": (
        *((64, 128, 256, 512, 512),) * 2,
        *((56, 28, 14, 7, 1),) * 2,
        7_552_904,
    ),
    "imagenet_resnet50_mobilenetv1": (
        *((128, 256, 512, 1024, 1024), (256, 512, 1024, 2048, 2048)),
        *((56, 28, 14, 7, 1),) * 2,
        28_664_328,
    ),
}
# Of KnowledgeReview: the last two blocks take the place of the pooled vector.
REVIEWS = {
    "resnet50_resnet18": ((64, 128, 256, 512, 512), (256, 512, 1024, 2048, 2048), 512, 27_910_664),
    "resnet152_resnet50": ((256, 512, 1024, 2048, 2048),) * 2 + (512, 30_171_656),
    "resnet50_mobilenet_v2": (
        *((144, 192, 576, 960, 1280), (256, 512, 1024, 2048, 2048)),
        *(256, 14_391_304),
    ),
}
STUDENT = (
    signals((2, 4, 8, 8), 0.13, 0.1),
    signals((2, 4, 2, 2), 0.41, 0.2),
    signals((2, 4, 1, 1), 0.77, 0.3),
)
TEACHER = (
    signals((2, 4, 8, 8), 0.21, 0.5),
    signals((2, 4, 2, 2), 0.51, 0.6),
    signals((2, 4, 1, 1), 0.87, 0.7),
)


def shapes(channels, sides):
    return tuple((width, side, side) for width, side in zip(channels, sides, strict=True))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("student", "teacher", "own", "target", "expected"), PAIRS.values(), ids=PAIRS
)
def test_it_has_as_many_parameters_as_the_references(student, teacher, own, target, expected):
    with torch.device("meta"):
        criterion = ReviewKD(shapes(student, own), shapes(teacher, target))
    assert count(criterion) == expected


@pytest.mark.parametrize(
    ("student", "teacher", "middle", "expected"), REVIEWS.values(), ids=REVIEWS
)
def test_knowledge_review_is_a_case_of_it(student, teacher, middle, expected):
    sides = (56, 28, 14, 7, 7)
    with torch.device("meta"):
        criterion = ReviewKD(shapes(student, sides), shapes(teacher, sides), max_mid_channel=middle)
    assert count(criterion) == expected


def test_the_intended_width_of_mobilenetv1_is_half_of_mdistillers():
    student, teacher, own, target, _ = PAIRS["imagenet_resnet50_mobilenetv1"]
    with torch.device("meta"):
        criterion = ReviewKD(shapes(student, own), shapes(teacher, target), max_mid_channel=256)
    assert count(criterion) == 14_338_056


def test_names_of_parameters_are_the_references():
    criterion = ReviewKD(((4, 2, 2), (4, 1, 1)), ((6, 2, 2), (6, 1, 1)))
    norms = "weight", "bias", "running_mean", "running_var", "num_batches_tracked"
    block = {f"{c}.0.weight" for c in ("conv1", "conv2")}
    block |= {f"{c}.1.{name}" for c in ("conv1", "conv2") for name in norms}
    attention = {"att_conv.0.weight", "att_conv.0.bias"}
    expected = {f"abfs.0.{name}" for name in block}
    expected |= {f"abfs.1.{name}" for name in block | attention}
    assert set(criterion.state_dict()) == expected


def test_equals_the_value_of_the_authors_code(golden):
    golden(hcl(STUDENT, TEACHER), 2.08328924302)
    golden(hcl(STUDENT[0], TEACHER[0]), 0.70684639569)


def slow_mse(student, teacher):
    pairs = zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True)
    return sum((a - b) ** 2 for a, b in pairs) / student.numel()


@pytest.mark.parametrize(
    ("side", "weights"),
    [(8, {8: 1, 4: 1 / 2, 2: 1 / 4, 1: 1 / 8}), (3, {3: 1, 2: 1 / 2, 1: 1 / 4}), (1, {1: 1})],
)
def test_equals_the_pyramid_written_as_a_loop(side, weights):
    student, teacher = (maps[:, :, :side, :side] for maps in (STUDENT[0], TEACHER[0]))
    expected = sum(
        weight * slow_mse(*(F.adaptive_avg_pool2d(maps, size) for maps in (student, teacher)))
        for size, weight in weights.items()
    )
    loss = hcl(student, teacher).item()
    assert isclose(loss, expected / sum(weights.values()), rel_tol=1e-12)


def test_gradient_is_that_of_finite_differences():
    student = tuple(maps[:, :2].clone().requires_grad_() for maps in STUDENT)
    teacher = tuple(maps[:, :2] for maps in TEACHER)
    assert torch.autograd.gradcheck(lambda *maps: hcl(maps, teacher), student)


def slow_fusion(block, maps, deeper, size):
    """One level as the paper draws it, with sample-wise attention written out."""
    fused = block.conv1(maps)
    if deeper is not None:
        deeper = F.interpolate(deeper, size=maps.shape[-1], mode="nearest")
        both = torch.cat([fused, deeper], dim=1)
        own, other = torch.sigmoid(block.att_conv[0](both)).unbind(1)
        fused = fused * own.unsqueeze(1) + deeper * other.unsqueeze(1)
    if fused.shape[-1] != size:
        fused = F.interpolate(fused, size=size, mode="nearest")
    return block.conv2(fused), fused


def test_levels_are_reviewed_from_the_deepest_to_the_shallowest():
    # Maps before and after a fusion are larger than 1x1, else enlarging would not matter.
    own, target = ((3, 4, 4), (5, 2, 2), (7, 1, 1)), ((4, 8, 8), (6, 2, 2), (8, 1, 1))
    criterion = ReviewKD(own, target)
    student, teacher = (tuple(torch.randn(2, *shape) for shape in side) for side in (own, target))
    outputs, fused = [], None
    for level, block in zip((2, 1, 0), criterion.abfs, strict=True):
        output, fused = slow_fusion(block, student[level], fused, teacher[level].shape[-1])
        outputs = [output, *outputs]
    torch.testing.assert_close(criterion(student, teacher, {}), hcl(outputs, teacher))
    assert [block.conv1[0].out_channels for block in criterion.abfs] == [7, 7, 7]


def test_deeper_levels_reach_the_shallower():
    criterion = ReviewKD(((3, 4, 4), (5, 1, 1)), ((4, 4, 4), (6, 1, 1)))
    shallow, deep = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 1, 1, requires_grad=True)
    teacher = torch.randn(2, 4, 4, 4), torch.randn(2, 6, 1, 1)
    for parameter in criterion.abfs[0].conv2.parameters():
        parameter.data.zero_()  # the deep level's own comparison is constant
    criterion((shallow, deep), teacher, {}).backward()
    assert deep.grad.any()


def test_a_single_sample_is_refused_as_documented():
    criterion = ReviewKD(((3, 4, 4), (5, 1, 1)), ((4, 4, 4), (6, 1, 1)))
    maps = (
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 5, 1, 1)),
        (torch.zeros(1, 4, 4, 4), torch.zeros(1, 6, 1, 1)),
    )
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        criterion(*maps, {})
    assert criterion.eval()(*maps, {}).isfinite()


def test_maps_of_different_shapes_are_not_broadcast():
    with pytest.raises(UserError, match="needs the same shape"):
        hcl(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 1, 1))
