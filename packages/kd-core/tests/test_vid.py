import math

import pytest
import torch
from kd_core.criteria.vid import VID, vid
from kd_core.errors import UserError
from kd_core.testing import fill, signals

# Channels of the stages of student and teacher, and the references' count of the regressors.
PAIRS = {
    "resnet56_resnet20": ((16, 32, 64), (16, 32, 64), 16_128),
    "resnet32x4_resnet8x4": ((64, 128, 256), (64, 128, 256), 258_048),
    "wrn_40_2_wrn_16_2": ((32, 64, 128), (32, 64, 128), 64_512),
    "wrn_40_2_wrn_40_1": ((16, 32, 64), (32, 64, 128), 53_760),
    "vgg13_vgg8": ((128, 256, 512, 512), (128, 256, 512, 512), 1_818_624),
    "resnet32x4_ShuffleV1": ((240, 480, 960), (64, 128, 256), 494_592),
    "wrn_40_2_ShuffleV1": ((240, 480, 960), (32, 64, 128), 204_288),
    "vgg13_MobileNetV2": ((12, 16, 48, 160), (128, 256, 512, 512), 1_324_544),
    "ResNet50_MobileNetV2": ((12, 16, 48, 160), (256, 512, 1024, 2048), 11_529_216),
    "resnet32x4_ShuffleV2": ((116, 232, 464), (64, 128, 256), 327_936),
    "ResNet50_vgg8": ((128, 256, 512, 512), (256, 512, 1024, 2048), 12_877_824),
}
FIRST = signals((8, 20, 4, 4), 0.31, 0.2), signals((8, 20, 4, 4), 0.23, 0.6)
SCALE = math.log(math.expm1(5.0 - 1e-5))


def shapes(*channels):
    return tuple((width, 4, 4) for width in channels)


def scales(width, value=SCALE):
    return torch.full((width,), value, dtype=torch.float64)


@pytest.mark.parametrize(("student", "teacher", "count"), PAIRS.values(), ids=PAIRS)
def test_regressors_have_as_many_parameters_as_the_references(student, teacher, count):
    with torch.device("meta"):
        criterion = VID(shapes(*student), shapes(*teacher), learn_variance=True)
    assert sum(parameter.numel() for parameter in criterion.regressors.parameters()) == count
    every = sum(parameter.numel() for parameter in criterion.parameters())
    assert every == count + sum(teacher)


def test_equals_the_value_of_the_authors_code(golden):
    golden(VID(shapes(20), shapes(20)).log_scales[0][0].detach(), 4.99322918271)
    mean, target = FIRST
    golden(vid(mean, scales(20), target), 0.904673473422)


def test_module_equals_the_value_of_the_authors_code(golden):
    criterion = VID(((6, 8, 8),), ((12, 8, 8),))
    fill(criterion.regressors)
    criterion.double()
    student, teacher = signals((4, 6, 8, 8), 0.7, 0.3), signals((4, 12, 8, 8), 0.7, 0.6)
    golden(criterion((student,), (teacher,), {}).detach(), 0.8547477978576755)


def test_equals_the_likelihood_of_a_normal_distribution_written_as_a_loop():
    mean, target = (maps[:2, :3, :2, :2] for maps in FIRST)
    scale = signals((3,), 1.3, 0.2)
    expected = 0.0
    for predicted, true in zip(mean, target, strict=True):
        for channel in range(3):
            variance = math.log(1 + math.exp(scale[channel].item())) + 1e-5
            pairs = zip(predicted[channel].flatten(), true[channel].flatten(), strict=True)
            for m, t in pairs:
                density = math.exp(-((m - t) ** 2) / (2 * variance)) / math.sqrt(variance)
                expected -= math.log(density)
    assert vid(mean, scale, target).item() == pytest.approx(expected / mean.numel(), rel=1e-12)


def test_levels_are_summed():
    (mean, target), scale = FIRST, scales(20, 0.3)
    other = mean[:4, :5], scale[:5], target[:4, :5]
    parts = vid(mean, scale, target) + vid(*other)
    both = vid((mean, other[0]), (scale, other[1]), (target, other[2]))
    torch.testing.assert_close(both, parts)


def test_gradient_is_that_of_finite_differences():
    mean, target = (maps[:2, :3, :2, :2] for maps in FIRST)
    inputs = mean.clone().requires_grad_(), signals((3,), 1.3, 0.2).requires_grad_()
    assert torch.autograd.gradcheck(lambda m, scale: vid(m, scale, target), inputs)


@pytest.mark.parametrize(
    ("student", "teacher"), [((4, 8, 8), (6, 4, 4)), ((4, 4, 4), (6, 8, 8)), ((4, 6, 6), (6, 4, 4))]
)
def test_the_larger_map_is_pooled_before_the_regressor(student, teacher):
    criterion = VID((student,), (teacher,))
    maps = torch.randn(2, *student), torch.randn(2, *teacher)
    s, t = (torch.nn.functional.adaptive_avg_pool2d(x, 4) for x in maps)
    expected = vid(criterion.regressors[0](s), criterion.log_scales[0], t)
    torch.testing.assert_close(criterion(maps[:1], maps[1:], {}), expected)


@pytest.mark.parametrize("learned", [False, True])
def test_variances_are_five_saved_and_moved_whether_they_are_trained_or_not(learned):
    criterion = VID(shapes(4), shapes(6), learn_variance=learned).double()
    scale = criterion.log_scales[0]
    torch.testing.assert_close(torch.nn.functional.softplus(scale) + 1e-5, scales(6, 5.0))
    assert "log_scales.0" in criterion.state_dict()
    assert scale.dtype == torch.float64
    maps = (signals((2, 4, 4, 4), 0.7, 0.3),), (signals((2, 6, 4, 4), 0.7, 0.6),)
    criterion(*maps, {}).backward()
    assert (scale.grad is not None and bool(scale.grad.any())) == learned


def test_the_smallest_variance_is_the_given_one():
    mean, target = FIRST
    loss = vid(mean, scales(20, -1e4), target, eps=0.5)
    expected = ((mean - target) ** 2 + math.log(0.5) / 2).mean()
    torch.testing.assert_close(loss, expected)
    assert VID(shapes(2), shapes(2), eps=0.5).eps == 0.5


def test_maps_of_different_shapes_are_not_broadcast():
    with pytest.raises(UserError, match="needs the same shape"):
        vid(torch.zeros(2, 3, 4, 4), torch.zeros(3), torch.zeros(2, 3, 1, 1))


def test_compared_are_the_predicted_means_and_the_teachers_maps():
    criterion = VID(((3, 8, 8),), ((5, 4, 4),)).eval()
    student, teacher = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)
    ((predicted, target),) = criterion.compared((student,), (teacher,))
    assert torch.equal(target, teacher.movedim(1, -1))
    expected = criterion.regressors[0](torch.nn.functional.avg_pool2d(student, 2))
    torch.testing.assert_close(predicted, expected.movedim(1, -1))
