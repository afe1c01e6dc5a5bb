"""BCKD: its functions, the whole criterion, and two RetinaNets or two FCOS of Detectron2."""

import math
from datetime import timedelta

import pytest
import torch
from kd_core.errors import UserError
from kd_core.testing import check_contract, signals
from kd_core.testing.golden_inputs import coins, normal, probe, uniform, value_and_gradients
from kd_det.criteria.bckd import BCKD, classification, localization, location_weight
from torch import nn

TAPS = ["head.cls_score[*]", "head.bbox_pred[*]"]
CLASSES, ANCHORS, SIZES = 3, 2, ((3, 2), (2, 1))
ROWS = [ANCHORS * h * w for h, w in SIZES]

LOGITS = normal("c.bk.s", 7, 5, scale=2)
SHOWN_LOGITS = normal("c.bk.t", 7, 5, scale=2.5)
WEIGHT = coins("c.bk.w", 7, share=0.8)


class TestFunctions:
    def test_classes_equal_the_authors_code(self, golden):
        loss, [(length, of_probe)] = value_and_gradients(
            lambda s: classification(s, SHOWN_LOGITS, WEIGHT, divisor=3.0), [LOGITS]
        )
        golden(loss, 9.91885056557)
        golden(length, 1.01269702814)
        golden(of_probe, 0.50992093714)

    def test_weights_of_boxes_equal_the_authors_code(self, golden):
        weight = location_weight(LOGITS.clone().requires_grad_(), SHOWN_LOGITS, WEIGHT)
        assert not weight.requires_grad
        golden(weight.sum(), 5.71978707583)
        golden(probe(weight), 0.654491400281)

    def test_distributions_equal_the_authors_code(self, golden):
        teacher, points = normal("c.bl.t", 7, 68, scale=1.5), uniform("c.bl.p", 7, 2, scale=20)
        loss, [(length, of_probe)] = value_and_gradients(
            lambda s: localization(s, teacher, points, uniform("c.bl.w", 7), divisor=3.0, bins=17),
            [normal("c.bl.s", 7, 68, scale=1.5)],
        )
        golden(loss, 0.762488005781)
        golden(length, 0.0873928262308)
        golden(of_probe, -0.0130531858953)

    def test_without_a_positive_weight_boxes_give_0_with_graph(self):
        student = normal("s", 3, 68).requires_grad_()
        points, weight = torch.ones(3, 2), torch.zeros(3)
        loss = localization(student, normal("t", 3, 68), points, weight, divisor=1)
        loss.backward()
        assert loss == 0
        assert not student.grad.any()

    @pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0])
    def test_equal_probabilities_have_a_finite_gradient(self, beta):
        student = LOGITS.clone().requires_grad_()
        loss = classification(student, LOGITS.clone(), WEIGHT, divisor=3.0, beta=beta)
        loss.backward()
        assert beta == 0 or loss == 0
        assert student.grad.isfinite().all()

    def test_nothing_is_broadcast(self):
        for function in (classification, localization):
            extra = {"points": torch.ones(7, 2)} if function is localization else {}
            with pytest.raises(UserError, match="needs the same shape"):
                function(LOGITS, SHOWN_LOGITS[:1], weight=WEIGHT, divisor=1.0, **extra)


class Transform:
    """Stands in for Detectron2's Box2BoxTransform."""

    def __init__(self, weight=1.0):
        self.weight = weight

    def apply_deltas(self, deltas, boxes):
        deltas, size = deltas / self.weight, boxes[:, 2:] - boxes[:, :2]
        centre = boxes[:, :2] + size / 2 + deltas[:, :2] * size
        half = deltas[:, 2:].clamp_max(4).exp() * size / 2
        return torch.cat([centre - half, centre + half], 1)


class Detector(nn.Module):
    """Stands in for a dense detector, which BCKD asks for its classes and its boxes."""

    def __init__(self, classes=CLASSES, weight=1.0):
        super().__init__()
        self.num_classes, self.box2box_transform = classes, Transform(weight)


def anchors():
    corners = [signals((rows, 2), 1.3, rows, 20) for rows in ROWS]
    return [torch.cat([corner, corner + 5 + corner.abs() / 9], 1) for corner in corners]


def labels(samples):
    """Return labels with positive anchors on both levels, and ignored ones."""
    row = torch.arange(sum(ROWS)) * 7 % 11 % 5 - 1  # -1 to 3, of which 3 is background
    return row.expand(samples, -1).clone()


def maps(samples, values, offset):
    return tuple(
        signals((samples, ANCHORS * values, *size), 0.7, offset + number, 2)
        for number, size in enumerate(SIZES)
    )


def case(samples=2, student=None, teacher=None, **arguments):
    """Return a bound criterion and what it is given."""
    criterion = BCKD(**arguments)
    criterion.bind(student or Detector(), teacher or Detector(), (TAPS, TAPS))
    values = 4 * (criterion.bins or 1)
    own, shown = ((maps(samples, CLASSES, o), maps(samples, values, o + 5)) for o in (0.3, 1.1))
    return criterion, own, shown, {"anchors": anchors(), "gt_labels": labels(samples)}


class Flat(BCKD):
    __doc__ = BCKD.__doc__
    example = (tuple((ANCHORS * v, *size) for v in (CLASSES, 4) for size in SIZES),) * 2

    def check_shapes(self, student, teacher):
        super().check_shapes(nested(student), nested(teacher))

    def bind(self, student, teacher, taps):
        super().bind(Detector(), Detector(), (TAPS, TAPS))

    def forward(self, student, teacher, batch):
        given = labels(len(student[0])).to(student[0].device, non_blocking=True)
        places = [on(student[0], level) for level in anchors()]
        batch = {"gt_labels": given, "anchors": places}
        return super().forward(nested(student), nested(teacher), batch)


def on(maps, values):
    """Return what the distiller would give: values of the type and on the device of the maps."""
    return values.to(maps, non_blocking=True)


def nested(taps):
    return tuple(taps[: len(SIZES)]), tuple(taps[len(SIZES) :])


def test_it_keeps_the_contract():
    check_contract(Flat)


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def by_anchor(levels, values):
    """Return the predictions of one image in Detectron2's order."""
    return [
        level[a * values : (a + 1) * values, h, w].tolist()
        for level in levels
        for h in range(level.shape[1])
        for w in range(level.shape[2])
        for a in range(ANCHORS)
    ]


def slow_giou(box, other):
    sides = [min(box[i + 2], other[i + 2]) - max(box[i], other[i]) for i in range(2)]
    shared = max(sides[0], 0) * max(sides[1], 0)
    union = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)) - shared
    hull = math.prod(max(box[i + 2], other[i + 2]) - min(box[i], other[i]) for i in range(2))
    return shared / union - (hull - union) / hull


def slow(own, shown, batch, only=(0, 1)):
    """Return the sums of classes and of boxes over the anchors of some levels."""
    classes = boxes = 0.0
    taught = [number in only for number, rows in enumerate(ROWS) for _ in range(rows)]
    places = torch.cat(batch["anchors"])
    for image, image_labels in enumerate(batch["gt_labels"].tolist()):
        sides = [
            [by_anchor([m[image] for m in side[part]], (CLASSES, 4)[part]) for part in (0, 1)]
            for side in (own, shown)
        ]
        (logits, deltas), (shown_logits, shown_deltas) = sides
        decode = Transform().apply_deltas
        own_boxes, shown_boxes = (
            decode(torch.tensor(d, dtype=torch.float64), places).tolist()
            for d in (deltas, shown_deltas)
        )
        for r, label in enumerate(image_labels):
            if label < 0 or not taught[r]:
                continue
            pairs = list(zip(map(sigmoid, logits[r]), map(sigmoid, shown_logits[r]), strict=True))
            for p, q in pairs:
                classes -= abs(p - q) * (q * math.log(p) + (1 - q) * math.log(1 - p))
            largest = max(abs(p - q) for p, q in pairs)
            boxes += largest * (1 - slow_giou(own_boxes[r], shown_boxes[r]))
    return classes, boxes


def test_the_whole_equals_the_equations_written_as_a_loop():
    criterion, own, shown, batch = case()
    positives = ((batch["gt_labels"] >= 0) & (batch["gt_labels"] < CLASSES)).sum().item()
    classes, boxes = slow(own, shown, batch)
    expected = (classes + 4 * boxes) / positives
    assert criterion(own, shown, batch).item() == pytest.approx(expected, rel=1e-5)
    weighted = case(class_weight=3.0, box_weight=0.5)[0](own, shown, batch).item()
    assert weighted == pytest.approx((3 * classes + boxes / 2) / positives, rel=1e-5)


def test_only_levels_with_a_positive_anchor_take_part():
    criterion, own, shown, batch = case()
    batch["gt_labels"][:, ROWS[0] :] = CLASSES
    positives = ((batch["gt_labels"] >= 0) & (batch["gt_labels"] < CLASSES)).sum().item()
    classes, boxes = slow(own, shown, batch, only=(0,))
    expected = (classes + 4 * boxes) / positives
    assert criterion(own, shown, batch).item() == pytest.approx(expected, rel=1e-5)
    batch["gt_labels"][1] = CLASSES  # one image of the batch is enough
    batch["gt_labels"][0, 3:] = CLASSES
    assert criterion(own, shown, batch) > 0


def test_without_positives_it_is_0_with_a_finite_gradient():
    criterion, own, shown, batch = case()
    batch["gt_labels"].fill_(CLASSES)
    leaves = [m.requires_grad_() for branch in own for m in branch]
    loss = criterion(own, shown, batch)
    loss.backward()
    assert loss == 0
    assert all(m.grad.isfinite().all() for m in leaves)


def test_each_detector_decodes_its_own_boxes():
    criterion, own, shown, batch = case(student=Detector(weight=2.0), class_weight=0.0)
    doubled = tuple(2 * deltas for deltas in shown[1])
    assert criterion((own[0], doubled), shown, batch).item() == pytest.approx(0, abs=1e-6)
    assert criterion((own[0], shown[1]), shown, batch) > 0.1


def test_boxes_of_distributions_are_those_of_the_function():
    criterion, own, shown, batch = case(bins=5, class_weight=0.0, box_weight=1.0)
    rows = [by_anchor([m[0] for m in side[1]], 20) for side in (own, shown)]
    logits = [by_anchor([m[0] for m in side[0]], CLASSES) for side in (own, shown)]
    rows, logits = ([torch.tensor(s, dtype=torch.float64) for s in x] for x in (rows, logits))
    given = batch["gt_labels"][:1]
    weight = location_weight(*logits, (given[0] >= 0).double())
    positives = ((given >= 0) & (given < CLASSES)).sum()
    points = signals((sum(ROWS), 2), 0.7, 0.2, 9)
    expected = localization(*rows, points, weight, divisor=positives, bins=5)
    first = [[[m[:1] for m in branch] for branch in side] for side in (own, shown)]
    loss = criterion(*first, {**batch, "gt_labels": given})
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


class TestRefusals:
    def test_detectors_that_are_not_dense(self):
        with pytest.raises(UserError, match="but Linear is another detector") as raised:
            BCKD().bind(Detector(), nn.Linear(2, 2), (TAPS, ["roi_heads"]))
        assert "\n" not in str(raised.value)

    def test_other_classes(self):
        with pytest.raises(UserError, match="student has 2 classes, the teacher 3"):
            BCKD().bind(Detector(2), Detector(), (TAPS, TAPS))

    @pytest.mark.parametrize("change", ["strides", "offset", "cell_anchors"])
    def test_other_anchors(self, change):
        def with_anchors(**changes):
            network = Detector()
            network.anchor_generator = nn.Module()
            cells = [torch.tensor([[-8.0, -8.0, 8.0, 8.0]])]
            known = {"strides": [8], "offset": 0.0, "cell_anchors": cells} | changes
            for name, value in known.items():
                setattr(network.anchor_generator, name, value)
            return network

        BCKD().bind(with_anchors(), with_anchors(), (TAPS, TAPS))
        other = {"strides": [16], "offset": 0.5, "cell_anchors": [torch.ones(1, 4)]}[change]
        with pytest.raises(UserError, match=r"give both the same MODEL[.]ANCHOR_GENERATOR"):
            BCKD().bind(with_anchors(), with_anchors(**{change: other}), (TAPS, TAPS))

    def test_what_is_not_two_branches_of_equal_levels(self):
        logits, boxes = ((6, 4, 4), (6, 2, 2)), ((8, 4, 4), (8, 2, 2))
        BCKD().check_shapes((logits, boxes), (logits, boxes))
        for shapes in ((logits,), logits, (logits, boxes[:1])):
            with pytest.raises(UserError, match="but the teacher's taps give"):
                BCKD().check_shapes((logits, boxes), shapes)
        with pytest.raises(UserError, match="by level the student's logits and boxes are"):
            BCKD().check_shapes((logits, boxes), (((6, 8, 8), (6, 4, 4)), boxes))

    def test_distributions_that_do_not_fit(self):
        shapes = ((6, 4, 4),), ((8, 4, 4),)
        with pytest.raises(UserError, match="68 values a box do not fit heads of 6 channels"):
            BCKD(bins=17).check_shapes(shapes, shapes)
        with pytest.raises(UserError, match="bins is 1"):
            BCKD(bins=1)

    def test_targets_of_other_anchors(self):
        criterion, own, shown, batch = case()
        with pytest.raises(UserError, match=r"for 16 anchors .* `gt_labels` is \[2, 15\]"):
            criterion(own, shown, {**batch, "gt_labels": batch["gt_labels"][:, 1:]})

    def test_a_criterion_that_is_not_bound(self):
        with pytest.raises(UserError, match="call bind"):
            BCKD()(*case()[1:])


def loss_of(rank):
    """Return the loss of a process: the first has twice the positive anchors of the second."""
    criterion, own, shown, batch = case()
    batch["gt_labels"].fill_(CLASSES)
    batch["gt_labels"][:, : 2 if rank == 0 else 1] = 0
    return criterion(own, shown, batch).item()


def in_two_processes(folder, rank):
    """Write the loss that a process has beside the other one."""
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    (folder / f"loss{rank}").write_text(repr(loss_of(rank)))
    torch.distributed.destroy_process_group()


def test_the_divisor_is_the_mean_over_the_processes(tmp_path, forks):
    alone = loss_of(0), loss_of(1)
    both = [forks.start(in_two_processes, tmp_path, rank, folder=tmp_path) for rank in (0, 1)]
    for status, said in [one.end(100) for one in both]:
        assert status == 0, said
    first, second = (float((tmp_path / f"loss{rank}").read_text()) for rank in (0, 1))
    assert first == pytest.approx(alone[0] * 4 / 3, rel=1e-6)  # of 4 and 2, the mean is 3
    assert second == pytest.approx(alone[1] * 2 / 3, rel=1e-6)
