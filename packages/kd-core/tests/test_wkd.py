import math

import pytest
import torch
from kd_core.criteria.nkd import nkd
from kd_core.criteria.wkd import WKDFeatures, WKDLogits, wkd_features, wkd_logits
from kd_core.distill.term import build_terms
from kd_core.errors import UserError
from kd_core.networks.task import Task
from kd_core.testing import NoHostReads, check_contract
from kd_core.testing.golden_inputs import (
    fill_with_sines,
    integers,
    normal,
    uniform,
    value_and_gradients,
)
from torch import nn


def symmetric(key, size):
    drawn = uniform(key, size, size)
    return ((drawn + drawn.T) / 2).fill_diagonal_(0)


STUDENT, TEACHER = normal("wkd.s", 4, 6, scale=2), normal("wkd.t", 4, 6, scale=4)
LABEL, COST = torch.tensor([3, 0, 5, 3]), symmetric("wkd.c", 6)
MAPS = normal("wkd.ms", 3, 4, 5, 7), normal("wkd.mt", 3, 4, 6, 4, scale=2)


def test_logits_equal_value_and_gradient_of_the_authors_code(golden):
    label, cost = integers("c.wl0.y", 6, high=10), symmetric("c.wl.c", 10)
    teacher = normal("c.wl0.t", 6, 10, scale=4)
    criterion = WKDLogits(10, cost=cost, temperature=4.0)
    for loss in (
        lambda logits: wkd_logits(logits, teacher, label, cost, temperature=4.0),
        lambda logits: criterion(logits, teacher, {"label": label}),
    ):
        value, gradients = value_and_gradients(loss, [normal("c.wl0.s", 6, 10, scale=2)])
        reference = (1.0844175219, 0.189401134581, -0.105287772804)
        for number, expected in zip((value, *gradients[0]), reference, strict=True):
            golden(number, expected)


@pytest.mark.parametrize(
    ("key", "arguments", "reference"),
    [
        ("wf0", {"mean_ratio": 4.0}, (7.73671607467, 0.675869616041, -0.54265412762)),
        ("wf1", {"mean_ratio": 3.0, "grid": 2}, (13.8855944284, 0.905681217855, 0.496885166261)),
    ],
)
def test_features_equal_value_and_gradient_of_the_authors_code(key, arguments, reference, golden):
    teacher = normal(f"c.{key}.t", 4, 5, 6, 6, scale=2)
    value, gradients = value_and_gradients(
        lambda maps: wkd_features(maps, teacher, **arguments), [normal(f"c.{key}.s", 4, 5, 6, 6)]
    )
    for number, expected in zip((value, *gradients[0]), reference, strict=True):
        golden(number, expected)


def test_the_regressor_equals_that_of_the_authors_code(golden):
    shapes = ((3, 4, 4),), ((6, 4, 4),)
    criterion = fill_with_sines(WKDFeatures(*shapes, mean_ratio=4.0, grid=1))
    teacher = normal("c.wfc.t", 4, 6, 4, 4, scale=2)
    value, gradients = value_and_gradients(
        lambda maps: criterion((maps,), (teacher,), {}), [normal("c.wfc.s", 4, 3, 4, 4)]
    )
    reference = (19.2950050863, 1.50038125719, -0.0129124766383)
    for number, expected in zip((value, *gradients[0]), reference, strict=True):
        golden(number, expected)


def slow_softmax(row):
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


def slow_transport(student, teacher, label, temperature, regularization, iterations):
    """One sample as the authors have it: the true class is cut out of everything."""
    kept = [c for c in range(len(student)) if c != label]
    a, b = (slow_softmax([row[c] / temperature for c in kept]) for row in (student, teacher))
    m = [[max(COST[i, j].item(), 0) + 1e-8 for j in kept] for i in kept]
    g = [[math.exp(-value / regularization) for value in row] for row in m]
    u, size = [1 / len(kept)] * len(kept), range(len(kept))
    for _ in range(iterations):
        v = [b[j] / (sum(g[i][j] * u[i] for i in size) + 1e-8) for j in size]
        u = [a[i] / (sum(g[i][j] * v[j] for j in size) + 1e-8) for i in size]
    return sum(u[i] * g[i][j] * v[j] * m[i][j] for i in size for j in size)


def test_logits_equal_the_equation_written_as_a_loop():
    expected = 0.0
    for s, t, y in zip(STUDENT.tolist(), TEACHER.tolist(), LABEL.tolist(), strict=True):
        expected -= 0.7 * slow_softmax(t)[y] * math.log(slow_softmax(s)[y]) / 4
        expected += 5.0 * slow_transport(s, t, y, 2.5, 0.1, 7) / 4
    weights = {"gamma": 5.0, "target_weight": 0.7, "temperature": 2.5}
    loss = wkd_logits(STUDENT, TEACHER, LABEL, COST, regularization=0.1, iterations=7, **weights)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_probabilities_that_vanish_start_like_all_others():
    student = STUDENT.clone()
    student[:, 1] = -1e4
    rows = zip(student.tolist(), TEACHER.tolist(), LABEL.tolist(), strict=True)
    expected = sum(slow_transport(*row, 1.0, 0.05, 2) for row in rows) / 4
    loss = wkd_logits(
        student, TEACHER, LABEL, COST, temperature=1.0, target_weight=0.0, iterations=2
    )
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_the_true_class_alone_is_the_first_part_of_nkd():
    torch.testing.assert_close(
        wkd_logits(STUDENT, TEACHER, LABEL, COST, gamma=0.0),
        nkd(STUDENT, TEACHER, LABEL, gamma=0.0),
    )


def test_a_small_regularisation_comes_near_to_the_exact_distance():
    """Of two probabilities on three classes at 0, 1 and 3 on a line: the cost of moving 0.3."""
    place = torch.tensor([0.0, 1.0, 3.0, 9.0], dtype=torch.float64)
    cost = (place[:, None] - place).abs()
    logits = torch.tensor([[0.5, 0.3, 0.2, 1.0], [0.2, 0.6, 0.2, 1.0]], dtype=torch.float64).log()
    loss = wkd_logits(
        logits[:1],
        logits[1:],
        torch.tensor([3]),
        cost,
        temperature=1.0,
        target_weight=0.0,
        regularization=0.2,
        iterations=200,
    )
    assert loss.item() == pytest.approx(0.3, rel=1e-2)


@pytest.mark.parametrize("height", [50.0, 1e3, 1e6])
def test_saturated_networks_give_a_finite_loss_and_gradient(height):
    student = torch.tensor([[height, 0.0, -height]], requires_grad=True)
    teacher = torch.tensor([[-height, 0.0, height]])
    cost = (1 - torch.eye(3)).requires_grad_()
    for label in range(3):
        loss = wkd_logits(student, teacher, torch.tensor([label]), cost, temperature=1.0)
        loss.backward()
        assert loss.isfinite()
        assert student.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences():
    assert torch.autograd.gradcheck(
        lambda logits: wkd_logits(logits, TEACHER, LABEL, COST), STUDENT.clone().requires_grad_()
    )
    assert torch.autograd.gradcheck(
        lambda maps: wkd_features(maps, MAPS[1], grid=2), MAPS[0].clone().requires_grad_()
    )


def test_the_cost_takes_no_memory_for_each_sample():
    kept = []
    keep = torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.append(x.numel()) or x, lambda x: x
    )
    student, label = torch.randn(64, 50, requires_grad=True), torch.zeros(64, dtype=torch.int64)
    with keep:
        wkd_logits(student, torch.randn(64, 50), label, torch.rand(50, 50))
    assert max(kept) <= 64 * 50


def test_features_equal_the_equation_written_as_a_loop():
    total = 0.0
    for s, t in zip(*(maps.tolist() for maps in MAPS), strict=True):
        for channel in range(4):
            for i in range(2):
                for j in range(2):
                    (m, d), (n, e) = (slow_cell(side[channel], i, j) for side in (s, t))
                    total += 3.0 * (m - n) ** 2 + (d - e) ** 2
    loss = wkd_features(*MAPS, mean_ratio=3.0, grid=2, eps=1e-3)
    assert loss.item() == pytest.approx(total / 3 / 4, rel=1e-12)


def slow_cell(rows, i, j):
    """Mean and deviation of a cell of 2x2, with the bounds of adaptive pooling."""
    height, width = len(rows), len(rows[0])
    across = range(j * width // 2, math.ceil((j + 1) * width / 2))
    down = range(i * height // 2, math.ceil((i + 1) * height / 2))
    values = [rows[y][x] for y in down for x in across]
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance + 1e-3)


def test_cells_are_those_of_adaptive_pooling():
    means = torch.nn.functional.adaptive_avg_pool2d(MAPS[0], 3)
    loss = wkd_features(MAPS[0], torch.zeros_like(MAPS[0]), mean_ratio=1.0, grid=3)
    alone = wkd_features(MAPS[0], torch.zeros_like(MAPS[0]), mean_ratio=0.0, grid=3)
    assert (loss - alone).item() == pytest.approx(means.square().sum().item() / 27)


@pytest.mark.parametrize(
    ("size", "grid", "remedy"),
    [
        ((4, 4), 4, "grid to at most 3"),
        ((1, 1), 1, "tap a larger map"),
        ((1, 7), 8, "grid to at most 6"),
    ],
)
def test_a_cell_of_one_position_is_refused(size, grid, remedy):
    maps = torch.zeros(2, 3, *size)
    with pytest.raises(UserError, match=f"cells of a single position.*{remedy}"):
        wkd_features(maps, maps, grid=grid)
    with pytest.raises(UserError, match="single position"):
        WKDFeatures(((3, *size),), ((3, *size),), grid=grid)


def test_several_maps_and_other_channels_are_refused():
    shapes = ((3, 4, 4), (3, 2, 2))
    with pytest.raises(UserError, match="WKDFeatures takes one map of each network"):
        WKDFeatures(shapes, shapes)
    with pytest.raises(UserError, match="needs the same shape"):
        wkd_features(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, 4))


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize(
    ("side", "kinds"),
    [(4, "Conv2d 1 1"), (8, "Conv2d 3 2"), (2, "ConvTranspose2d 4 2"), (7, "Conv2d 4 1")],
)
def test_the_regressor_brings_every_size_to_the_teacher_s(side, kinds, bottleneck):
    criterion = WKDFeatures(((3, side, side),), ((6, 4, 4),), bottleneck=bottleneck)
    assert criterion.regressor(torch.zeros(2, 3, side, side)).shape == (2, 6, 4, 4)
    convolutions = [
        f"{type(m).__name__} {m.kernel_size[0]} {m.stride[0]}"
        for m in criterion.regressor.modules()
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    ]
    middle = "Conv2d 3 1" if side == 4 else kinds
    assert convolutions == (["Conv2d 1 1", middle, "Conv2d 1 1"] if bottleneck else [kinds])


def test_a_map_of_a_third_of_the_teacher_s_size_is_refused():
    with pytest.raises(UserError, match="no regressor from the student's 2x2 map"):
        WKDFeatures(((3, 2, 2),), ((6, 6, 6),))


@pytest.mark.parametrize("arguments", [{"bottleneck": True}, {"grid": 2}])
def test_the_contract_holds_for_variants_of_the_features(arguments):
    check_contract(WKDFeatures, **arguments)


def test_what_is_compared_leaves_the_state_as_it_is():
    criterion = WKDFeatures(((3, 4, 4),), ((6, 4, 4),), grid=2)
    before = {name: value.clone() for name, value in criterion.state_dict().items()}
    pairs = criterion.compared((torch.randn(5, 3, 4, 4),), (torch.randn(5, 6, 4, 4),))
    assert [[tuple(side.shape) for side in pair] for pair in pairs] == [[(5, 4, 6)] * 2] * 2
    assert all(torch.equal(value, before[name]) for name, value in criterion.state_dict().items())
    assert criterion.training


def test_labels_are_not_read_back():
    with NoHostReads():
        loss = wkd_logits(STUDENT, TEACHER, LABEL, COST)
    assert loss > 0


class Logits(Task):
    def forward(self, batch):
        return self.network(batch["image"].flatten(1))


def built(weights=None, **arguments):
    model = Logits(nn.Linear(12, 5))
    node = {"criterion": {"type": WKDLogits, **arguments}} | (
        {"weights": weights} if weights else {}
    )
    return build_terms(
        {"wkd": node}, model, {"teacher": model}, {"image": torch.zeros(2, 3, 2, 2)}, num_classes=5
    )["wkd"].criterion, model


def test_a_term_without_costs_is_refused():
    with pytest.raises(UserError, match="WKDLogits needs what an earlier phase has trained, its c"):
        built()


def test_costs_of_a_phase_are_loaded(tmp_path):
    cost = symmetric("loaded", 5).float()
    torch.save({"cost": cost}, tmp_path / "cost.pth")
    criterion, _ = built(weights=str(tmp_path / "cost.pth"))
    assert torch.equal(criterion.cost, cost)


def test_costs_of_the_classifier_are_one_minus_the_cosines_of_its_weights(tmp_path):
    criterion, model = built(cost="classifier")
    criterion.bind(model.network, model.network, ((), ()))
    weight = model.network.weight.detach()
    expected = 1 - torch.cosine_similarity(weight[:, None], weight[None], dim=2)
    torch.testing.assert_close(criterion.cost, expected.clamp(min=0))
    criterion.bind(model.network, model.network, ((), ()))  # again, as in a copy
    torch.save({"cost": expected + 1}, tmp_path / "cost.pth")
    criterion, model = built(cost="classifier", weights=str(tmp_path / "cost.pth"))
    with pytest.raises(UserError, match="leave one of the two out"):
        criterion.bind(model.network, model.network, ((), ()))


def test_costs_of_a_classifier_that_is_not_there_are_refused():
    with pytest.raises(UserError, match="no linear layer of 6 outputs"):
        WKDLogits(6, cost="classifier").bind(nn.Identity(), nn.Linear(2, 5), ((), ()))


def test_costs_of_other_classes_are_refused():
    with pytest.raises(UserError, match=r"the cost is \[6, 6\], wanted \[5, 5\]"):
        WKDLogits(5, cost=COST)
    with pytest.raises(UserError, match="cost: wanted"):
        WKDLogits(5, cost="clasifier")


def test_a_cost_that_is_not_finite_is_refused():
    cost = torch.full((3, 3), torch.nan)
    with pytest.raises(UserError, match="the cost has values that are not finite"):
        WKDLogits(3, cost=cost)
