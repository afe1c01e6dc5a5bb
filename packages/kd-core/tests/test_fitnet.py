import pytest
import torch
from kd_core.criteria.fitnet import FitNet, fitnet
from kd_core.errors import UserError
from kd_core.testing import fill, signals

# Third tap [C, H, W] of student and teacher on 32-pixel images, and the parameters counted there.
PAIRS = {
    "resnet56_resnet20": ((32, 16, 16), (32, 16, 16), 1_120),
    "resnet32x4_resnet8x4": ((128, 16, 16), (128, 16, 16), 16_768),
    "wrn_40_2_wrn_16_2": ((64, 16, 16), (64, 16, 16), 4_288),
    "wrn_40_2_wrn_40_1": ((32, 16, 16), (64, 16, 16), 2_240),
    "vgg13_vgg8": ((256, 8, 8), (256, 8, 8), 66_304),
    "resnet32x4_ShuffleV1": ((480, 8, 8), (128, 16, 16), 983_424),
    "resnet32x4_ShuffleV2": ((232, 8, 8), (128, 16, 16), 475_520),
    "wrn_40_2_ShuffleV1": ((480, 8, 8), (64, 16, 16), 491_712),
    "vgg13_MobileNetV2": ((16, 8, 8), (256, 8, 8), 4_864),
    "ResNet50_MobileNetV2": ((16, 8, 8), (512, 16, 16), 132_608),
    "of twice the size": ((3, 8, 8), (5, 4, 4), 3 * 5 * 9 + 5 + 2 * 5),
}


@pytest.mark.parametrize(
    ("student", "teacher", "reference"),
    [
        ((6, 8, 8), (12, 4, 4), 1.002380878867127),
        ((6, 4, 4), (12, 8, 8), 1.0041250458837123),
        ((6, 8, 8), (12, 8, 8), 1.0059797635719303),
        ((6, 8, 8), (12, 6, 6), 1.0190882545028226),
    ],
)
def test_module_equals_the_value_of_mdistiller(student, teacher, reference, golden):
    criterion = FitNet((student,), (teacher,))
    fill(criterion)
    maps = signals((4, *student), 0.7, 0.3), signals((4, *teacher), 0.7, 0.6)
    golden(criterion(maps[:1], maps[1:], {}).detach(), reference)


@pytest.mark.parametrize(("student", "teacher", "count"), PAIRS.values(), ids=PAIRS)
def test_regressor_has_as_many_parameters_as_the_references(student, teacher, count):
    criterion = FitNet((student,), (teacher,))
    assert sum(parameter.numel() for parameter in criterion.parameters()) == count


@pytest.mark.parametrize("student", [(3, 8, 8), (3, 2, 2), (3, 4, 4), (3, 5, 7), (3, 4, 9)])
def test_regressor_gives_a_nonnegative_map_of_the_teachers_shape(student):
    regressor = FitNet((student,), ((5, 4, 4),)).regressors[0]
    hint = regressor(torch.randn(2, *student))
    assert hint.shape == (2, 5, 4, 4)
    assert (hint >= 0).all()


@pytest.mark.parametrize("student", [(3, 3, 3), (3, 2, 8), (3, 8, 3), (3, 1, 1)])
def test_a_map_that_no_regressor_fits_is_refused_at_construction(student):
    with pytest.raises(UserError, match="tap a student map of half that size, or of at least it"):
        FitNet((student,), ((5, 4, 4),))


def test_what_is_no_map_is_refused_at_construction():
    with pytest.raises(UserError, match=r"FitNet takes maps .* gives \[N, 10\]"):
        FitNet(((10,),), ((10,),))


def test_equals_the_mean_square_written_as_a_loop_summed_over_levels():
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 3, 4, 4), (2, 5, 2, 2)
    student, teacher = (
        tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
        for _ in range(2)
    )
    expected = 0.0
    for s, t in zip(student, teacher, strict=True):
        squares = [(a - b) ** 2 for a, b in zip(s.flatten(), t.flatten(), strict=True)]
        expected += sum(squares).item() / len(squares)
    assert fitnet(student, teacher).item() == pytest.approx(expected, rel=1e-12)
    assert fitnet(student[0], teacher[0]) == fitnet(student[:1], teacher[:1])


def test_module_compares_the_regressed_maps():
    criterion = FitNet(((3, 4, 4),), ((5, 8, 8),))
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 8, 8)
    expected = fitnet(criterion.regressors[0](student), teacher)
    torch.testing.assert_close(criterion((student,), (teacher,), {}), expected)


def test_gradient_is_that_of_finite_differences():
    teacher = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    student = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda maps: fitnet(maps, teacher), student)


def test_different_numbers_of_levels_are_refused():
    maps = torch.zeros(1, 2, 3, 3)
    with pytest.raises(UserError, match="student has 2 maps, teacher 1"):
        fitnet((maps, maps), maps)


def test_maps_of_different_shapes_are_not_broadcast():
    with pytest.raises(UserError, match="needs the same shape"):
        fitnet(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 1, 1))


def test_batchnorm_refuses_a_single_1x1_map_as_documented():
    criterion = FitNet(((3, 1, 1),), ((5, 1, 1),))
    maps = (torch.zeros(1, 3, 1, 1),), (torch.zeros(1, 5, 1, 1),)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        criterion(*maps, {})


def test_linear_form_adds_a_convolution_only_where_channels_differ():
    linear = FitNet(((8, 4, 4), (6, 2, 2)), ((8, 4, 4), (5, 2, 2)), linear=True)
    assert sum(parameter.numel() for parameter in linear.parameters()) == 6 * 5 + 5
    maps = (-torch.rand(2, 8, 4, 4), torch.zeros(2, 6, 2, 2))
    teacher = (maps[0], linear.regressors[1](maps[1]))
    assert linear(maps, teacher, {}) == 0  # of both signs: no ReLU stands between


def test_linear_form_refuses_maps_of_other_sizes():
    with pytest.raises(UserError, match="equal size"):
        FitNet(((8, 4, 4),), ((8, 2, 2),), linear=True)
