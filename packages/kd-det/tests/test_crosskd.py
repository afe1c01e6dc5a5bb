import copy
import math

import pytest
import torch
import torchvision
from kd_core.errors import UserError
from kd_core.functional import kl_rows
from kd_core.networks.taps import FeatureTap
from kd_core.testing import NoHostReads, signals
from kd_core.testing.checks import moved
from kd_core.testing.fake_cuda import FakeCuda
from kd_det.criteria.crosskd import CrossKD, align, crosskd_box, crosskd_class
from torch import nn
from torch.utils._pytree import tree_map

STUDENT, TEACHER = signals((4, 10), 0.7, 0.3, 3), signals((4, 10), 0.7, 1.1, 4)
WEIGHT = torch.tensor([1, 1, 0, 1])
TAPS = ["head.cls_subnet.2[*]", "head.bbox_subnet.2[*]"]
CLASSES, CHANNELS, SIZES = 3, 4, ((3, 2), (2, 1), (1, 1))


def test_classes_equal_the_value_of_the_authors_code(golden):
    golden(crosskd_class(STUDENT, TEACHER, weight=WEIGHT, normalizer=2), 3.205055228473493)


def test_box_distributions_of_other_heads_have_their_value_from_the_divergence(golden):
    rows = kl_rows(STUDENT.log_softmax(1), TEACHER.log_softmax(1))
    golden(4 * (rows * WEIGHT).sum() / 4, 2.3158322477935984)


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def slow_class(student, teacher, weight, beta):
    loss = 0.0
    for row, shown, factor in zip(student, teacher, weight, strict=True):
        for s, t in zip(row, shown, strict=True):
            p, q = sigmoid(s), sigmoid(t)
            entropy = -q * math.log(p) - (1 - q) * math.log(1 - p)
            loss += factor * abs(p - q) ** beta * entropy
    return loss


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_classes_equal_the_equation_written_as_a_loop(beta):
    expected = slow_class(*(x.tolist() for x in (STUDENT, TEACHER, WEIGHT)), beta) / 5
    loss = crosskd_class(STUDENT, TEACHER, weight=WEIGHT, normalizer=5, beta=beta)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def slow_giou(box, other):
    width, height = (
        max(min(box[i + 2], other[i + 2]) - max(box[i], other[i]), 0) for i in range(2)
    )
    first, second = ((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    union = first + second - width * height
    hull = math.prod(max(box[i + 2], other[i + 2]) - min(box[i], other[i]) for i in range(2))
    return width * height / union - (hull - union) / hull


BOXES = torch.tensor(
    [[0, 0, 4, 4], [2, 1, 6, 9], [10, 10, 12, 30], [1, 1, 2, 2], [-5, -5, 5, 5]],
    dtype=torch.float64,
)


@pytest.mark.parametrize("turn", range(5))
def test_boxes_equal_the_equation_and_torchvision(turn):
    other, weight = BOXES.roll(turn, 0), signals((5,), 0.7, 0.3) + 1
    pairs = zip(BOXES.tolist(), other.tolist(), weight.tolist(), strict=True)
    expected = sum(w * (1 - slow_giou(a, b)) for a, b, w in pairs) / 3
    loss = crosskd_box(BOXES, other, weight=weight, normalizer=3)
    assert loss.item() == pytest.approx(expected, rel=1e-6, abs=1e-6)
    theirs = torchvision.ops.generalized_box_iou_loss(BOXES, other)
    torch.testing.assert_close(loss, (theirs * weight).sum() / 3)


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [3, 2, 3, 7], [1, 1, 1 + 1e-4, 1 + 1e-4]])
def test_a_box_without_area_does_not_differ_from_itself(box):
    point = torch.tensor([box], dtype=torch.float64, requires_grad=True)
    loss = crosskd_box(point, point.detach(), weight=torch.ones(1), normalizer=1)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert point.grad.isfinite().all()


def test_alignment_gives_the_statistics_of_the_teacher():
    student, teacher = signals((3, 2, 4, 5), 0.7, 0.3), signals((3, 2, 4, 5), 0.9, 0.8, 3, 2)
    aligned = align(student, teacher)
    for channel in range(2):
        own, shown = aligned[:, channel], teacher[:, channel]
        assert own.mean().item() == pytest.approx(shown.mean().item(), rel=1e-5)
        assert own.std().item() == pytest.approx(shown.std().item(), rel=1e-5)
    order = student[:, 0].flatten().argsort()
    assert torch.equal(aligned[:, 0].flatten().argsort(), order)


def test_gradients_are_those_of_finite_differences():
    check, weight = torch.autograd.gradcheck, WEIGHT.double()
    given = STUDENT.clone().requires_grad_()
    assert check(lambda s: crosskd_class(s, TEACHER, weight=weight, normalizer=2, beta=1.5), given)
    boxes = BOXES[:4].clone().requires_grad_()
    other = BOXES[1:] + 0.3
    assert check(lambda s: crosskd_box(s, other, weight=weight, normalizer=2), boxes)
    maps = signals((2, 2, 3, 2), 0.7, 0.3).requires_grad_()
    assert check(lambda s: align(s, signals((2, 2, 3, 2), 0.7, 0.8)), maps)


class Transform:
    """Stands in for Detectron2's Box2BoxTransform, with weights of 1."""

    def apply_deltas(self, deltas, boxes):
        size = boxes[:, 2:] - boxes[:, :2]
        centre = boxes[:, :2] + size / 2 + deltas[:, :2] * size
        half = deltas[:, 2:].exp() * size / 2
        return torch.cat([centre - half, centre + half], 1)


class RetinaNet(nn.Module):
    """Stands in for Detectron2's, with two anchors in every place; its input are the maps."""

    def __init__(self, seed, channels=CHANNELS, classes=CLASSES):
        super().__init__()
        torch.manual_seed(seed)
        self.num_classes, self.box2box_transform = classes, Transform()
        self.head = nn.Module()
        for name in ("cls_subnet", "bbox_subnet"):
            convolutions = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3)]
            layers = [layer for conv in convolutions for layer in (conv, nn.ReLU())]
            self.head.add_module(name, nn.Sequential(*layers))
        self.head.cls_score = nn.Conv2d(channels, 2 * classes, 3, padding=1)
        self.head.bbox_pred = nn.Conv2d(channels, 2 * 4, 3, padding=1)
        self.double()

    def forward(self, maps):
        head = self.head
        return [
            (head.cls_score(head.cls_subnet(m)), head.bbox_pred(head.bbox_subnet(m))) for m in maps
        ]


def anchors():
    corners = [signals((2 * h * w, 2), 1.3, h, 20) for h, w in SIZES]
    return [torch.cat([corner, corner + 5 + corner.abs() / 9], 1) for corner in corners]


def labels(samples):
    count = sum(2 * h * w for h, w in SIZES)
    drawn = torch.arange(samples * count) * 7 % 11 % 5 - 1  # -1 to 3, of which 3 is background
    return drawn.view(samples, count)


def tapped(network, maps):
    with FeatureTap(network, TAPS) as seen:
        network(maps)
    return tuple(seen[path] for path in TAPS)


@pytest.fixture
def case():
    """Return a bound criterion and what it is given, of two samples."""
    return make_case(2)


def make_case(samples, **arguments):
    student, teacher = RetinaNet(0), RetinaNet(1).eval().requires_grad_(False)
    criterion = CrossKD(**arguments)
    criterion.bind(student, teacher, (TAPS, TAPS))
    maps = [signals((samples, CHANNELS, *size), 0.7, 0.3) for size in SIZES]
    seen = [tapped(network, maps) for network in (student, teacher)]
    seen = [tuple(tuple(m.detach() for m in branch) for branch in side) for side in seen]
    for maps in (*seen[0][0], *seen[0][1]):
        maps.requires_grad_()
    batch = {"anchors": anchors(), "gt_labels": labels(samples)}
    return criterion, (*seen, batch), teacher


def by_anchor(maps, values):
    """Return the predictions of one image in Detectron2's order."""
    rows = []
    for level in maps:
        for h in range(level.shape[1]):
            for w in range(level.shape[2]):
                for a in range(2):
                    rows.append(level[a * values : (a + 1) * values, h, w].tolist())
    return rows


def decoded(deltas, box):
    width, height = box[2] - box[0], box[3] - box[1]
    x, y = box[0] + width / 2 + deltas[0] * width, box[1] + height / 2 + deltas[1] * height
    width, height = width * math.exp(deltas[2]), height * math.exp(deltas[3])
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def test_the_whole_equals_the_equations_written_as_a_loop(case):
    criterion, (student, teacher, batch), network = case
    head, loss, positives = network.head, 0.0, 0
    last = (head.cls_subnet[4], head.cls_score), (head.bbox_subnet[4], head.bbox_pred)
    crossed, shown = [], []
    for (conv, predict), own, target in zip(last, student, teacher, strict=True):
        aligned = []
        for s, t in zip(own, target, strict=True):
            pairs = [(s[:, c], t[:, c]) for c in range(CHANNELS)]
            channels = [(a - a.mean()) / (a.std() + 1e-6) * b.std() + b.mean() for a, b in pairs]
            aligned.append(torch.stack(channels, 1))
        crossed.append([predict(conv(m.relu()).relu()) for m in aligned])
        shown.append([predict(conv(m.relu()).relu()) for m in target])
    places = torch.cat(batch["anchors"]).tolist()
    for n, image_labels in enumerate(batch["gt_labels"].tolist()):
        (logits, deltas), (target_logits, target_deltas) = (
            [by_anchor([m[n] for m in maps], v) for maps, v in zip(side, (CLASSES, 4), strict=True)]
            for side in (crossed, shown)
        )
        weight = [float(label >= 0) for label in image_labels]
        positives += sum(0 <= label < CLASSES for label in image_labels)
        loss += slow_class(logits, target_logits, weight, 1.0)
        for r, box in enumerate(places):
            pair = decoded(deltas[r], box), decoded(target_deltas[r], box)
            confidence = max(map(sigmoid, target_logits[r]))
            loss += weight[r] * confidence * (1 - slow_giou(*pair))
    assert positives > 1
    result = criterion(student, teacher, batch)
    assert result.item() == pytest.approx(loss / positives, rel=1e-5)
    doubled = make_case(2, class_weight=2.0, box_weight=2.0)[0](student, teacher, batch)
    torch.testing.assert_close(doubled, 2 * result)


def test_equal_maps_give_0(case):
    criterion, (_, teacher, batch), _ = case
    assert criterion(teacher, teacher, batch).item() == pytest.approx(0, abs=1e-5)


def test_gradient_reaches_the_students_maps_only(case):
    criterion, (student, teacher, batch), network = case
    for maps in (*teacher[0], *teacher[1]):
        maps.requires_grad_()
    criterion(student, teacher, batch).backward()
    assert all(maps.grad.abs().sum() > 0 for maps in (*student[0][:2], *student[1][:2]))
    assert all(maps.grad is None for maps in (*teacher[0], *teacher[1], *network.parameters()))


def test_the_head_is_neither_trained_nor_saved(case):
    criterion, inputs, network = case
    assert not list(criterion.parameters())
    assert not criterion.state_dict()
    other, copied = copy.deepcopy((network, criterion))
    with torch.no_grad():
        other.head.cls_score.bias += 5
    assert copied(*inputs) != criterion(*inputs)


@pytest.mark.parametrize("samples", [0, 1])
def test_small_batches_are_finite(samples):
    criterion, (student, teacher, batch), _ = make_case(samples)
    loss = criterion(student, teacher, batch)
    loss.backward()
    assert loss.isfinite()
    assert all(maps.grad.isfinite().all() for branch in student for maps in branch)


def test_ignored_anchors_do_not_count(case):
    criterion, (student, teacher, batch), _ = case
    ignored = {**batch, "gt_labels": torch.full_like(batch["gt_labels"], -1)}
    assert criterion(student, teacher, ignored) == 0


def test_without_positives_the_sum_is_divided_by_1(case):
    criterion, (student, teacher, batch), _ = case
    background = torch.full_like(batch["gt_labels"], CLASSES)
    one = background.clone()
    one[1, 3] = 0
    two = one.clone()
    two[0, 0] = CLASSES - 1
    losses = [
        criterion(student, teacher, {**batch, "gt_labels": given})
        for given in (background, one, two)
    ]
    assert losses[0] == losses[1]
    torch.testing.assert_close(losses[0], 2 * losses[2])


def test_nothing_is_read_back(case):
    criterion, inputs, _ = case
    with NoHostReads():
        criterion(*inputs).backward()


def test_it_stays_on_the_gpu(case):
    criterion, inputs, _ = case
    with FakeCuda() as cuda:
        with cuda.waiting():
            moved(criterion, "cuda")
            student, teacher, batch = tree_map(on_cuda, inputs)
        with torch.autocast("cuda", torch.bfloat16):
            criterion(student, teacher, batch).backward()
    assert student[0][0].grad.device.type == "cuda"


def on_cuda(value):
    return value.detach().to("cuda").requires_grad_(value.requires_grad)


@pytest.mark.parametrize("branch", [0, 1])
def test_a_nan_of_an_ignored_anchor_is_not_hidden(case, branch):
    criterion, (student, teacher, batch), _ = case
    student[branch][1].data[0, 0, 0, 0] = torch.nan
    batch["gt_labels"].fill_(-1)
    assert criterion(student, teacher, batch).isnan()


def test_the_order_of_the_images_does_not_matter(case):
    criterion, (student, teacher, batch), _ = case
    turned = [[[m.flip(0) for m in maps] for maps in side] for side in (student, teacher)]
    loss = criterion(*turned, {**batch, "gt_labels": batch["gt_labels"].flip(0)})
    torch.testing.assert_close(loss, criterion(student, teacher, batch))


def test_low_precision_is_computed_in_float32(case):
    criterion, (student, teacher, batch), network = case
    network.float()
    halves = [[[m.bfloat16() for m in maps] for maps in side] for side in (student, teacher)]
    wide = [[[m.float() for m in maps] for maps in side] for side in halves]
    with torch.autocast("cpu", torch.bfloat16):
        loss = criterion(*halves, batch)
    torch.testing.assert_close(loss, criterion(*wide, batch))


class TestRefusals:
    def test_taps_that_are_not_of_the_head(self):
        pair = RetinaNet(0), RetinaNet(1)
        for taps in (["backbone[p3]"] * 2, TAPS[:1], TAPS[::-1], [tap[:-3] for tap in TAPS]):
            with pytest.raises(UserError, match="tap @towers of two RetinaNets"):
                CrossKD().bind(*pair, (taps, TAPS))
            with pytest.raises(UserError, match="tap @towers of two RetinaNets"):
                CrossKD().bind(*pair, (TAPS, taps))

    def test_another_detector(self):
        with pytest.raises(UserError, match="or Linear is another detector"):
            CrossKD().bind(RetinaNet(0), nn.Linear(2, 2), (TAPS, TAPS))

    def test_other_classes(self):
        with pytest.raises(UserError, match="student has 2 classes, the teacher 3"):
            CrossKD().bind(RetinaNet(0, classes=2), RetinaNet(1), (TAPS, TAPS))

    def test_other_channels_or_levels(self):
        branch = (8, 4, 4), (8, 2, 2)
        CrossKD().check_shapes((branch, branch), (branch, branch))
        for other in (((6, 4, 4), (6, 2, 2)), branch[:1]):
            with pytest.raises(UserError, match=r"student's branches have \[\[8, 8\], \[8, 8\]\]"):
                CrossKD().check_shapes((branch, branch), (other, other))

    def test_what_is_not_two_branches(self):
        branch = (8, 4, 4), (8, 2, 2)
        for shapes in ((branch,), branch):
            with pytest.raises(UserError, match="but the teacher's taps give"):
                CrossKD().check_shapes((branch, branch), shapes)

    def test_a_criterion_that_is_not_bound(self, case):
        with pytest.raises(UserError, match="call bind"):
            CrossKD()(*case[1])


class TestDetectron2:
    @pytest.fixture
    def network(self, request):
        """Return a network of Detectron2's own head and transform, in evaluation."""
        pytest.importorskip("detectron2")
        import kd_det  # noqa: F401
        from detectron2.layers import ShapeSpec
        from detectron2.modeling.box_regression import Box2BoxTransform
        from detectron2.modeling.meta_arch.retinanet import RetinaNetHead

        torch.manual_seed(0)
        network = nn.Module()
        network.head = RetinaNetHead(
            input_shape=[ShapeSpec(channels=CHANNELS)] * len(SIZES),
            num_classes=CLASSES,
            num_anchors=2,
            conv_dims=[CHANNELS] * 4,
            norm=request.param,
        )
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
            elif isinstance(module, nn.Conv2d):
                module.weight.data.normal_(std=0.2)
        network.num_classes = CLASSES
        network.box2box_transform = Box2BoxTransform((1.0, 2.0, 3.0, 4.0))
        return network.eval()

    @pytest.mark.parametrize(("network", "place"), [("", 4), ("BN", 7)], indirect=["network"])
    def test_predictions_are_those_of_its_own_head(self, network, place):
        from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K
        from kd_det.criteria import crosskd

        maps = [signals((2, CHANNELS, *size), 0.7, 0.3).float() for size in SIZES]
        taps = [f"head.{branch}_subnet.{place}[*]" for branch in ("cls", "bbox")]
        with FeatureTap(network, taps) as seen:
            outputs = network.head(maps)
        logits, deltas = (
            torch.cat([permute_to_N_HWA_K(level, values) for level in levels], 1)
            for levels, values in zip(outputs, (CLASSES, 4), strict=True)
        )
        places = [boxes.float() for boxes in anchors()]
        shown = [seen[tap] for tap in taps]
        given = network, [place + 1] * 2, shown, places
        for _ in range(2):  # the head counts its calls
            crossed, boxes = crosskd._finish(*given)
            torch.testing.assert_close(crossed, logits)
        for image in range(2):
            own = network.box2box_transform.apply_deltas(deltas[image], torch.cat(places))
            torch.testing.assert_close(boxes[image], own)
        criterion = CrossKD()
        criterion.bind(network, network, (taps, taps))
        batch = {"anchors": places, "gt_labels": labels(2)}
        assert criterion(shown, shown, batch).item() == pytest.approx(0, abs=1e-3)
