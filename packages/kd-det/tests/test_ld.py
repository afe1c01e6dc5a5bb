"""LD: distributions of edges, the valuable region, and the criterion of both."""

from typing import ClassVar

import pytest
import torch
from kd_core.errors import UserError
from kd_core.testing import check_contract, signals
from kd_core.testing.golden_inputs import normal, probe, uniform, value_and_gradients
from kd_det.criteria.ld import LD, ld, valuable_region

STUDENT, TEACHER = signals((4, 10), 0.7, 0.3, 3), signals((4, 10), 0.7, 1.1, 4)
WEIGHT = torch.tensor([1.0, 1.0, 0.0, 1.0])
CLASSES, BINS, SIZES = 3, 5, ((6, 4), (3, 2))
ROWS = [h * w for h, w in SIZES]


def squares(levels):
    """Return anchors of side 8 * stride around the cells' centres, of (height, width, stride)."""
    found = []
    for height, width, stride in levels:
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centres = (torch.stack([x, y], -1).reshape(-1, 2).double() + 0.5) * stride
        found.append(torch.cat([centres - 4 * stride, centres + 4 * stride], 1))
    return found


ANCHORS = torch.cat(squares([(8, 8, 8), (4, 4, 16), (2, 2, 32)]))
BOXES = torch.tensor([[6.5, 9.25, 41.0, 50.5], [30.0, 4.0, 60.5, 33.0]], dtype=torch.float64)
LEVELS = [64, 16, 4]


class TestFunctions:
    def test_edges_equal_the_authors_code(self, golden):
        teacher, weight = normal("c.ld.t", 12, 17, scale=3), uniform("c.ld.w", 12)
        loss, [(length, of_probe)] = value_and_gradients(
            lambda s: ld(s, teacher, weight, divisor=4.0), [normal("c.ld.s", 12, 17, scale=2)]
        )
        golden(loss, 0.580061689241)
        golden(length, 0.0254763799124)
        golden(of_probe, -0.0381003388184)

    def test_weighted_edges_and_classes_equal_the_authors_code(self, golden):
        divisor = 4 + 1.1920929e-7
        golden(0.25 * ld(STUDENT, TEACHER, WEIGHT, divisor=divisor), 0.03770254029751892)
        classes = ld(STUDENT, TEACHER, WEIGHT, divisor=divisor, temperature=2.0)
        golden(10 * classes, 0.9959423949063041)

    def test_the_region_equals_the_authors_code(self, golden):
        region = valuable_region(ANCHORS, BOXES, level_sizes=LEVELS)
        golden(region.sum(), 13.0098000001)
        golden((region > 0).sum(), 58)
        golden(probe(region), -0.260259338932)


def slow_region(anchors, boxes, sizes, candidates, overlap):
    """Return the region as it is described, anchor by anchor."""
    weights = [0.0] * len(anchors)
    for g in boxes:
        ious, near = [], []
        for a in anchors:
            width, height = (min(a[i + 2], g[i + 2]) - max(a[i], g[i]) for i in range(2))
            shared = max(width, 0) * max(height, 0)
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (a, g)]
            ious.append(shared / (sum(areas) - shared))
            hull = [max(a[i + 2], g[i + 2]) - min(a[i], g[i]) for i in range(2)]
            apart = [(a[i] + a[i + 2] - g[i] - g[i + 2]) / 2 for i in range(2)]
            found = ious[-1] if overlap == "iou" else shared / areas[0]
            relative = (apart[0] ** 2 + apart[1] ** 2) / (hull[0] ** 2 + hull[1] ** 2)
            near.append((apart[0] ** 2 + apart[1] ** 2, found - relative))
        chosen, start = [], 0
        for size in sizes:
            level = sorted(range(start, start + size), key=lambda i: near[i][0])[:candidates]
            chosen += [ious[i] for i in level]
            start += size
        values = torch.tensor(chosen, dtype=torch.float64)
        threshold = (values.mean() + values.std()).item()
        for i, (_, distance) in enumerate(near):
            if 0.25 * threshold <= distance < threshold:
                weights[i] = max(weights[i], ious[i])
    return torch.tensor(weights, dtype=torch.float64)


class TestRegion:
    @pytest.mark.parametrize("overlap", ["iof", "iou"])
    @pytest.mark.parametrize("candidates", [3, 9])
    def test_it_equals_its_description_written_as_a_loop(self, candidates, overlap):
        boxes = BOXES + torch.tensor([0.3, 1.7, 2.9, 0.1])  # no two anchors equally near
        given = {"candidates": candidates, "overlap": overlap}
        found = valuable_region(ANCHORS, boxes, level_sizes=LEVELS, **given)
        expected = slow_region(ANCHORS.tolist(), boxes.tolist(), LEVELS, candidates, overlap)
        torch.testing.assert_close(found, expected)
        assert 0 < (found > 0).sum() < len(found)

    def test_an_image_without_boxes_has_none(self):
        found = valuable_region(ANCHORS, BOXES[:0], level_sizes=LEVELS)
        assert found.shape == (84,)
        assert not found.any()

    def test_a_box_without_area_is_finite(self):
        found = valuable_region(ANCHORS, BOXES[:, [0, 1, 0, 1]], level_sizes=LEVELS)
        assert found.isfinite().all()

    def test_a_single_anchor_has_no_deviation(self):
        inside = torch.tensor([[0.0, 0.0, 16.0, 16.0]], dtype=torch.float64)
        found = valuable_region(ANCHORS[:1], inside, level_sizes=[1])
        assert found.tolist() == [16**2 / 64**2]

    def test_levels_that_do_not_add_up_are_refused(self):
        with pytest.raises(UserError, match="add up to 80, but there are 84 anchors"):
            valuable_region(ANCHORS, BOXES, level_sizes=[64, 16])


def labels(samples):
    """Return labels with positive anchors, and ignored ones."""
    row = torch.arange(sum(ROWS)) * 7 % 11 % 5 - 1  # -1 to 3, of which 3 is background
    return row.expand(samples, -1).clone()


def entries(samples):
    places = squares([(*size, stride) for size, stride in zip(SIZES, (8, 16), strict=True)])
    return {"gt_labels": labels(samples), "anchors": places, "boxes": [BOXES] * samples}


def maps(samples, values, offset):
    return tuple(
        signals((samples, values, *size), 0.7, offset + number, 2)
        for number, size in enumerate(SIZES)
    )


def case(samples=2, **arguments):
    own, shown = (
        (maps(samples, CLASSES, offset), maps(samples, 4 * BINS, offset + 5))
        for offset in (0.3, 1.1)
    )
    return LD(bins=BINS, **arguments), own, shown, entries(samples)


class Flat(LD):
    __doc__ = LD.__doc__
    example = (tuple((values, *size) for values in (CLASSES, 4 * BINS) for size in SIZES),) * 2
    example_arguments: ClassVar = {"bins": BINS}

    def check_shapes(self, student, teacher):
        super().check_shapes(nested(student), nested(teacher))

    def forward(self, student, teacher, batch):
        given = entries(len(student[0]))
        boxes, places = ([on(student[0], x) for x in given[key]] for key in ("boxes", "anchors"))
        labels = given["gt_labels"].to(student[0].device, non_blocking=True)
        batch = {"gt_labels": labels, "anchors": places, "boxes": boxes}
        return super().forward(nested(student), nested(teacher), batch)


def on(maps, values):
    """Return what the distiller would give: values of the type and on the device of the maps."""
    return values.to(maps, non_blocking=True)


def nested(taps):
    return tuple(taps[: len(SIZES)]), tuple(taps[len(SIZES) :])


def test_it_keeps_the_contract():
    check_contract(Flat)


def test_the_whole_is_the_sum_of_its_parts():
    criterion, own, shown, batch = case()
    expected = 0.0
    places, divisor = torch.cat(batch["anchors"]), (labels(2) >= 0) & (labels(2) < CLASSES)
    for image in range(2):
        region = valuable_region(places, BOXES, level_sizes=ROWS)
        for row in range(sum(ROWS)):
            level, cell = (0, row) if row < ROWS[0] else (1, row - ROWS[0])
            y, x = divmod(cell, SIZES[level][1])
            logits, edges = (
                [side[part][level][image, :, y, x] for side in (own, shown)] for part in (0, 1)
            )
            four = [side.view(4, BINS) for side in edges]
            weight = torch.ones(4, dtype=torch.float64)
            expected += 0.25 * ld(*four, weight * region[row], divisor=16)
            if divisor[image, row]:
                confidence = logits[0].sigmoid().max()
                expected += 0.25 * ld(*four, weight * confidence, divisor=4)
                pair = [side[None] for side in logits]
                expected += 10 * ld(*pair, weight[:1], divisor=divisor.sum(), temperature=2.0)
    torch.testing.assert_close(criterion(own, shown, batch), expected, rtol=1e-6, atol=0)


def test_without_a_weight_the_region_needs_no_boxes():
    criterion, own, shown, batch = case(region_weight=0)
    loss = criterion(own, shown, {"gt_labels": batch["gt_labels"]})
    assert 0 < loss < case()[0](own, shown, batch)


def test_without_objects_it_is_0_with_a_finite_gradient():
    criterion, own, shown, batch = case()
    batch["gt_labels"].fill_(CLASSES)
    batch["boxes"] = [BOXES[:0]] * 2
    leaves = [m.requires_grad_() for branch in own for m in branch]
    loss = criterion(own, shown, batch)
    loss.backward()
    assert loss == 0
    assert all(m.grad.isfinite().all() for m in leaves)


class TestRefusals:
    def test_what_is_not_two_branches_of_equal_levels(self):
        logits, edges = ((3, 6, 4), (3, 3, 2)), ((20, 6, 4), (20, 3, 2))
        LD(bins=5).check_shapes((logits, edges), (logits, edges))
        with pytest.raises(UserError, match=r"the teacher's taps give .* tap @dense_logits"):
            LD(bins=5).check_shapes((logits, edges), (logits,))
        with pytest.raises(UserError, match="same classes, anchors and levels"):
            LD(bins=5).check_shapes((logits, edges), (logits, ((40, 6, 4), (40, 3, 2))))

    def test_bins_that_do_not_fit(self):
        shapes = ((3, 6, 4),), ((20, 6, 4),)
        with pytest.raises(UserError, match="68 values a box do not fit heads of 3 channels"):
            LD().check_shapes(shapes, shapes)

    @pytest.mark.parametrize("arguments", [{"bins": 1}, {"candidates": 0}])
    def test_numbers_that_mean_nothing(self, arguments):
        with pytest.raises(UserError, match="wanted at least 2 bins"):
            LD(**arguments)

    def test_targets_of_other_anchors(self):
        criterion, own, shown, batch = case()
        with pytest.raises(UserError, match="for 30 anchors an image"):
            criterion(own, shown, {**batch, "gt_labels": labels(2)[:, 1:]})
