import math

import pytest
import torch
from kd_core.criteria.fgd import FGD, fgd
from kd_core.errors import UserError
from kd_core.testing import fill, signals

STUDENT, TEACHER = signals((4, 6, 8, 8), 0.7, 0.3), signals((4, 6, 8, 8), 0.7, 0.8)
SHAPES = ((6, 8, 8),), ((6, 8, 8),)
ONLY = dict(alpha=0.0, beta=0.0, gamma=0.0)


def boxes_of(*images):
    return [torch.tensor(image, dtype=torch.float64).view(-1, 4) for image in images]


BOXES = boxes_of(
    [[4, 6, 30, 40], [20, 10, 60, 50]], [], [[0, 0, 64, 64]], [[33.3, 17.2, 41.9, 25.5]]
)
BATCH = {"boxes": BOXES, "padded_size": (64, 64), "image_sizes": torch.tensor([[64, 64]] * 4)}


def filled(**arguments):
    """As the golden values are: the blocks' convolutions first, then what follows them."""
    criterion = FGD(*SHAPES, **arguments)
    own, shown = criterion.student_relations[0], criterion.teacher_relations[0]
    start = 1
    for module in (own.attend, shown.attend, own.transform, shown.transform):
        start = fill(module, start)
    return criterion


@pytest.mark.parametrize(
    ("weight", "reference"),
    [
        ("alpha", 0.6008003403299937),
        ("beta", 0.5407834533780742),
        ("gamma", 7.874747951380084),
        ("relation_weight", 54.661761356682746),
    ],
)
def test_a_part_equals_the_value_of_the_authors_code(weight, reference, golden):
    weights = ONLY | {"relation_weight": 0.0, weight: 1.0}
    golden(filled(**weights)((STUDENT,), (TEACHER,), BATCH).detach(), reference)


def test_the_whole_equals_the_value_of_the_authors_code(golden):
    golden(filled()((STUDENT,), (TEACHER,), BATCH).detach(), 0.009019248825182529)


def softmax(values):
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


def slow_attention(image, temperature):
    channels, height, width = image.shape
    cells = [(h, w) for h in range(height) for w in range(width)]
    means = [sum(abs(image[c, h, w].item()) for c in range(channels)) / channels for h, w in cells]
    spatial = softmax([mean / temperature for mean in means])
    spatial = {cell: len(cells) * value for cell, value in zip(cells, spatial, strict=True)}
    means = [
        sum(abs(image[c, h, w].item()) for h, w in cells) / len(cells) for c in range(channels)
    ]
    return spatial, [channels * value for value in softmax([mean / temperature for mean in means])]


def slow_masks(boxes, size, height, width):
    objects = {(h, w): 0.0 for h in range(height) for w in range(width)}
    for x1, y1, x2, y2 in boxes.tolist():
        left, right = math.floor(x1 * width / size[1]), math.ceil(x2 * width / size[1])
        top, bottom = math.floor(y1 * height / size[0]), math.ceil(y2 * height / size[0])
        for h, w in objects:
            if top <= h <= bottom and left <= w <= right:
                area = (bottom - top + 1) * (right - left + 1)
                objects[h, w] = max(objects[h, w], 1 / area)
    rest = sum(value == 0 for value in objects.values())
    return objects, {cell: (value == 0) / max(rest, 1) for cell, value in objects.items()}


def slow(student, teacher, boxes, sizes, temperature, alpha, beta, gamma):
    loss = 0.0
    for s, t, given, size in zip(student, teacher, boxes, sizes, strict=True):
        (spatial, channel), (own_spatial, own_channel) = (
            slow_attention(image, temperature) for image in (t, s)
        )
        objects, rest = slow_masks(given, size, *s.shape[1:])
        for cell in objects:
            weight = alpha * objects[cell] + beta * rest[cell]
            for c in range(len(s)):
                error = (s[c, *cell] - t[c, *cell]).item() ** 2
                loss += weight * spatial[cell] * channel[c] * error
            loss += gamma * abs(spatial[cell] - own_spatial[cell])
        loss += gamma * sum(abs(a - b) for a, b in zip(channel, own_channel, strict=True))
    return loss / len(student)


WEIGHTS = dict(temperature=0.8, alpha=0.3, beta=0.2, gamma=0.1)


def test_equals_the_equations_written_as_a_loop_summed_over_levels():
    student, teacher = STUDENT[:3, :2, :3, :5], TEACHER[:3, :2, :3, :5]
    small = student[..., :2, :2], teacher[..., :2, :2]
    sizes = [[48, 60], [40, 60], [48, 50]]
    expected = slow(student, teacher, BOXES[:3], sizes, **WEIGHTS)
    expected += slow(*small, BOXES[:3], sizes, **WEIGHTS)
    pairs = (student, small[0]), (teacher, small[1])
    loss = fgd(*pairs, BOXES[:3], torch.tensor(sizes), **WEIGHTS)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_one_size_stands_for_all_images():
    pair = STUDENT, TEACHER, BOXES
    assert fgd(*pair, (64, 96)) == fgd(*pair, torch.tensor([[64, 96]] * 4))


def test_gradient_is_that_of_finite_differences():
    student, teacher = STUDENT[:2, :2, :3, :3], TEACHER[:2, :2, :3, :3]
    assert torch.autograd.gradcheck(
        lambda maps: fgd(maps, teacher, BOXES[:2], (64, 64), **WEIGHTS),
        student.clone().requires_grad_(),
    )


def test_without_objects_everything_is_background():
    ones, nothing = torch.ones(2, 3, 4, 4), [torch.zeros(0, 4)] * 2
    weights = dict(temperature=0.5, gamma=0.0)
    assert fgd(2 * ones, ones, nothing, (64, 64), alpha=1.0, beta=0.0, **weights) == 0
    assert fgd(2 * ones, ones, nothing, (64, 64), alpha=0.0, beta=1.0, **weights) == 3


def test_an_object_that_fills_the_image_leaves_no_background():
    ones, whole = torch.ones(1, 3, 4, 4), [torch.tensor([[0.0, 0.0, 64.0, 64.0]])]
    weights = dict(temperature=0.5, gamma=0.0)
    assert fgd(2 * ones, ones, whole, (64, 64), alpha=0.0, beta=1.0, **weights) == 0
    # The cells that begin where the box ends count as its area, but lie beyond the map.
    loss = fgd(2 * ones, ones, whole, (64, 64), alpha=1.0, beta=0.0, **weights)
    torch.testing.assert_close(loss, torch.tensor(3 * 16 / 25))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_does_not_move_a_box_that_ends_between_two_cells(dtype):
    cells = torch.arange(99, dtype=dtype)
    boxes = torch.stack([8 * cells, 0 * cells, 8 * cells + 8, 0 * cells], 1)
    errors = torch.eye(100, dtype=dtype)[:99, None, None]  # each at the first cell of its box
    weights = dict(alpha=1.0, beta=0.0, gamma=0.0)
    loss = fgd(errors, 0 * errors, boxes[:, None].unbind(), (8, 800), **weights)
    assert loss.item() == pytest.approx(1 / 2)  # of two cells


def test_the_maps_cover_the_padded_image_unless_asked_otherwise():
    batch = {"boxes": BOXES, "padded_size": (64, 96), "image_sizes": torch.tensor([[64, 64]] * 4)}
    without = ONLY | {"relation_weight": 0.0, "alpha": 1.0}
    padded, shifted = (
        FGD(*SHAPES, **without, unpadded=unpadded).double()((STUDENT,), (TEACHER,), batch)
        for unpadded in (False, True)
    )
    assert padded == fgd(STUDENT, TEACHER, BOXES, (64, 96), **(ONLY | {"alpha": 1.0}))
    assert shifted == fgd(STUDENT, TEACHER, BOXES, (64, 64), **(ONLY | {"alpha": 1.0}))
    assert padded != shifted


def test_the_order_of_the_images_does_not_matter():
    criterion, turn = filled(), [2, 0, 3, 1]
    turned = {"boxes": [BOXES[i] for i in turn], "padded_size": (64, 64)}
    torch.testing.assert_close(
        criterion((STUDENT[turn],), (TEACHER[turn],), turned),
        criterion((STUDENT,), (TEACHER,), BATCH),
    )


def test_at_first_the_relation_is_the_squared_distance():
    criterion = FGD(*SHAPES, **ONLY, relation_weight=2.0).double()
    expected = 2 * (STUDENT - TEACHER).square().sum() / 4
    torch.testing.assert_close(criterion((STUDENT,), (TEACHER,), BATCH), expected)


def test_the_blocks_of_both_networks_are_trained_and_the_teacher_is_not():
    criterion = filled()
    teacher = TEACHER.clone().requires_grad_()
    criterion((STUDENT,), (teacher,), BATCH).backward()
    for relations in (criterion.student_relations, criterion.teacher_relations):
        assert relations[0].transform[0].weight.grad.any()
    assert teacher.grad is None


def test_parameters_are_counted():
    criterion = FGD(((4, 8, 8), (6, 4, 4)), ((6, 8, 8), (6, 4, 4)))
    assert [sum(p.numel() for p in m.parameters()) for m in criterion.aligners] == [4 * 6 + 6, 0]
    block = (6 + 1) + (6 * 3 + 3) + 2 * 3 + (3 * 6 + 6)
    for relations in (criterion.student_relations, criterion.teacher_relations):
        assert [sum(p.numel() for p in m.parameters()) for m in relations] == [block] * 2


def test_the_map_is_aligned_before_it_is_compared():
    criterion = FGD(((4, 8, 8),), ((6, 8, 8),), relation_weight=0.0).double()
    aligned = criterion.aligners[0](STUDENT[:, :4])
    expected = fgd(aligned, TEACHER, BOXES, (64, 64))
    torch.testing.assert_close(criterion((STUDENT[:, :4],), (TEACHER,), BATCH), expected)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UserError, match=r"FGD .* 8x8 and 4x4; tap levels of equal size"):
        FGD(((6, 8, 8),), ((6, 4, 4),))
    with pytest.raises(UserError, match="needs the same shape"):
        fgd(STUDENT, TEACHER[:, :1], BOXES, (64, 64))
    with pytest.raises(UserError, match="FGD needs batch"):
        FGD(*SHAPES)((STUDENT,), (TEACHER,), {})
