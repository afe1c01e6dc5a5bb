import math

import pytest
import torch
from kd_core.criteria.ofd import OFD, margin, ofd
from kd_core.errors import UserError
from kd_core.testing import signals
from torch import nn

# Channels before the last activation of each stage, and the references' count.
PAIRS = {
    "resnet56_resnet20": ((16, 32, 64), (16, 32, 64), 5_600),
    "resnet32x4_resnet8x4": ((64, 128, 256), (64, 128, 256), 86_912),
    "wrn_40_2_wrn_16_2": ((32, 64, 128), (32, 64, 128), 21_952),
    "wrn_40_2_wrn_40_1": ((16, 32, 64), (32, 64, 128), 11_200),
    "vgg13_vgg8": ((128, 256, 512, 512), (128, 256, 512, 512), 609_024),
    "resnet32x4_ShuffleV2": ((116, 232, 464), (64, 128, 256), 156_800),
    "imagenet_resnet50_mobilenetv1": ((256, 512, 1024), (512, 1024, 2048), 2_759_680),
}
STUDENT = 2 * signals((8, 20, 4, 4), 0.29, 0.1)
TEACHER = 2 * signals((8, 20, 4, 4), 0.23, 0.6)
MARGIN = -(0.1 + 0.5 * signals((20,), 0.7, 0.2).abs())


def shapes(*channels):
    return tuple((width, 4, 4) for width in channels)


class Teacher(nn.Module):
    """Two levels of other widths, whose BatchNorms were trained."""

    def __init__(self):
        super().__init__()
        self.stem, self.shallow, self.deep = (nn.BatchNorm2d(width) for width in (2, 3, 3))
        for number, layer in enumerate(self.children()):
            layer.weight.data = signals(layer.weight.shape, 1.1, number).float()
            layer.bias.data = signals(layer.bias.shape, 1.7, number).float()


def bound(student, teacher, taps, network, **arguments):
    criterion = OFD(student, teacher, **arguments)
    criterion.bind(nn.Module(), network, ((), taps))
    return criterion


@pytest.mark.parametrize(("student", "teacher", "count"), PAIRS.values(), ids=PAIRS)
def test_connectors_have_as_many_parameters_as_the_references(student, teacher, count):
    criterion = OFD(shapes(*student), shapes(*teacher))
    assert sum(parameter.numel() for parameter in criterion.parameters()) == count
    deepest = criterion.connectors[-1][0].weight
    assert deepest.std().item() == pytest.approx(math.sqrt(2 / teacher[-1]), rel=0.05)


def test_equals_the_value_of_the_authors_code(golden):
    golden(ofd(STUDENT, TEACHER, MARGIN), 888.312978364)
    weight, bias = torch.tensor([[1, 1, 1, 0.5], [0, 2.5, 4, -1]], dtype=torch.float64)
    references = -0.797884560803, -0.322744797664, -3, -1.02762393134
    for value, reference in zip(margin(weight, bias), references, strict=True):
        golden(value, reference)


def test_module_equals_the_value_of_the_authors_code(golden):
    criterion = OFD(shapes(20), shapes(20)).double()
    criterion.bind(nn.Module(), nn.Sequential(nn.BatchNorm2d(20)), ((), ["0"]))
    criterion.margins.copy_(MARGIN)
    convolution, _ = criterion.connectors[0]
    convolution.weight.data.copy_(torch.eye(20)[:, :, None, None])
    criterion.eval()  # so that the BatchNorm changes nothing, but for its eps
    criterion.connectors[0][1].eps = 0.0
    golden(criterion((STUDENT,), (TEACHER,), {}).detach(), 888.312978364)


def slow_ofd(student, teacher, margins):
    """Levels of equal sizes: the three cases of the formula, neuron by neuron."""
    loss = 0.0
    for i, (maps, targets, margin_) in enumerate(zip(student, teacher, margins, strict=True)):
        for n, c in torch.cartesian_prod(*map(torch.arange, maps.shape[:2])).tolist():
            m = margin_[c].item()
            pairs = zip(
                maps[n, c].flatten().tolist(), targets[n, c].flatten().tolist(), strict=True
            )
            for x, t in pairs:
                part = 0.0
                if t <= m and x > m:
                    part = (x - m) ** 2
                elif (m < t <= 0 and x > t) or t > 0:
                    part = (x - t) ** 2
                loss += part / len(maps) / 2 ** (len(student) - 1 - i)
    return loss


def test_equals_the_equation_written_as_a_loop():
    student = STUDENT[:2, :3], STUDENT[2:4, :5, :2], STUDENT[4:6, 5:9]
    teacher = TEACHER[:2, :3], TEACHER[2:4, :5, :2], TEACHER[4:6, 5:9].clone()
    teacher[2][0, 0, 0] = 0.0  # neither positive nor negative
    margins = MARGIN[:3], MARGIN[:5], MARGIN[5:9]
    expected = slow_ofd(student, teacher, margins)
    assert ofd(student, teacher, margins).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_that_of_finite_differences():
    student, teacher = STUDENT[:2, :3], TEACHER[:2, :3]
    assert torch.autograd.gradcheck(
        lambda maps: ofd(maps, teacher, MARGIN[:3]), student.clone().requires_grad_()
    )


@pytest.mark.parametrize("side", [2, 8])
def test_the_teachers_map_takes_the_size_of_the_students(side):
    teacher = torch.randn(8, 20, side, side)
    pooled = torch.nn.functional.adaptive_avg_pool2d(teacher, 4)
    assert ofd(STUDENT, teacher, MARGIN) == ofd(STUDENT, pooled, MARGIN)


def test_a_margin_is_the_mean_of_the_negative_part():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(200_000, generator=generator, dtype=torch.float64)
    weight, bias = torch.tensor([[0.7, 2.0, 0.3], [0.5, -1.0, 0.1]], dtype=torch.float64)
    for w, b, m in zip(weight, bias, margin(weight, bias), strict=True):
        drawn = w * values + b
        assert m.item() == pytest.approx(drawn[drawn < 0].mean().item(), rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_margin_is_finite_and_not_positive_whatever_the_weight(dtype):
    weight = torch.tensor([0.0, 1e-30, 1e-8, 1e-3, 1.0, 1e3], dtype=dtype)
    bias = torch.tensor([-1e4, -3.0, -1e-6, 0.0, 1e-6, 0.02, 3.0, 1e4], dtype=dtype)
    weight, bias = torch.cartesian_prod(weight, bias).T
    values = margin(weight, bias)
    assert values.isfinite().all()
    assert (values <= 0).all()
    torch.testing.assert_close(margin(-weight, bias), values)  # of a normal, the sign is lost
    dead = weight == 0  # gives its bias always
    torch.testing.assert_close(values[dead], bias[dead].clamp(max=0))


def test_a_margin_changes_its_formula_where_a_thousandth_is_negative():
    bias = torch.tensor([3.0902, 3.0903], dtype=torch.float64)  # 0.1000 % and a little less
    below, above = margin(torch.ones(2, dtype=torch.float64), bias)
    assert below > -0.4
    assert above == -3


def test_every_margin_belongs_to_its_level():
    network = Teacher()
    criterion = bound(shapes(4, 4), shapes(3, 3), ["shallow", "deep"], network)
    pairs = zip(criterion.margins.split(3), (network.shallow, network.deep), strict=True)
    for values, layer in pairs:
        assert torch.equal(values, margin(layer.weight, layer.bias))
    assert not torch.equal(*criterion.margins.split(3))


def test_every_level_is_cut_at_its_own_margin():
    criterion = bound(shapes(4, 4), shapes(3, 3), ["shallow", "deep"], Teacher())
    student, teacher = torch.randn(2, 2, 4, 4, 4), torch.randn(2, 2, 3, 4, 4)
    connected = [connect(maps) for connect, maps in zip(criterion.connectors, student, strict=True)]
    expected = ofd(connected, [*teacher], criterion.margins.split(3))
    torch.testing.assert_close(criterion([*student], [*teacher], {}), expected)
    assert expected != ofd(connected, [*teacher], criterion.margins.split(3)[::-1])


def test_batchnorms_may_be_named():
    network = Teacher()
    named = bound(
        shapes(4, 4), shapes(3, 3), ["output", "output"], network, batchnorms=["shallow", "deep"]
    )
    found = bound(shapes(4, 4), shapes(3, 3), ["shallow", "deep"], network)
    assert torch.equal(named.margins, found.margins)


@pytest.mark.parametrize(
    "taps", [["shallow", "output"], ["shallow", "stem"], ["shallow", "shalow"]]
)
def test_without_a_batchnorm_of_the_maps_channels_they_are_to_be_named(taps):
    with pytest.raises(UserError, match=f"'{taps[1]}' leads to none of 3 channels; name them"):
        bound(shapes(4, 4), shapes(3, 3), taps, Teacher())


def test_too_few_names_are_refused():
    with pytest.raises(UserError, match=r"2 levels; batchnorms=\['deep'\] must be as many"):
        bound(shapes(4, 4), shapes(3, 3), ["shallow", "deep"], Teacher(), batchnorms=["deep"])


def test_before_it_is_bound_it_says_so():
    with pytest.raises(UserError, match="call bind"):
        OFD(shapes(4), shapes(3))((torch.zeros(1, 4, 4, 4),), (torch.zeros(1, 3, 4, 4),), {})


def test_channels_are_not_broadcast():
    with pytest.raises(UserError, match="needs the same shape"):
        ofd(STUDENT[:, :1], TEACHER, MARGIN)


@pytest.mark.parametrize("response", [1.0, -0.1, -9.0])
def test_a_nan_is_not_hidden_whatever_the_teacher_says(response):
    student = torch.full((1, 1, 1, 1), torch.nan)
    assert ofd(student, torch.full_like(student, response), -torch.ones(1)).isnan()
