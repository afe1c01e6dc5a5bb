"""A teacher is looked at, never trained, saved or switched to train mode."""

import copy

import pytest
import torch
from kd_core.distill.teacher import Teacher, as_teachers
from kd_core.errors import UserError
from kd_core.networks.task import Task, network_of
from torch import nn


class Logits(Task):
    """A task that always predicts."""

    def forward(self, batch):
        return self.network(batch["image"])


def net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(64, 5),
    )


def batch():
    return {"image": torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))}


@pytest.fixture
def teacher():
    teacher = Teacher(Logits(net()).train())
    teacher.infer_shapes(["1", "output"], batch())
    return teacher


def test_a_teacher_is_frozen_and_in_eval_mode(teacher):
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert not any(module.training for module in teacher.model.modules())
    assert teacher.network is teacher.model.network


def test_a_teacher_shows_its_taps_of_the_plain_network(teacher):
    seen = teacher(batch())
    torch.testing.assert_close(seen["output"], teacher.network(batch()["image"]))
    assert seen["1"].min() < 0  # what the in-place ReLU overwrote was copied
    assert not any(value.requires_grad for value in seen.values())


def test_the_sample_shows_what_later_batches_will(teacher):
    torch.testing.assert_close(teacher.infer_shapes(["1", "output"], batch()), teacher(batch()))
    assert teacher.infer_shapes(["1"]) == {}


def test_what_a_teacher_shows_can_be_saved_for_backward(teacher):
    scale = torch.ones(5, requires_grad=True)
    (scale * teacher(batch())["output"]).sum().backward()
    torch.testing.assert_close(scale.grad, teacher(batch())["output"].sum(0))


def test_no_gradient_passes_through_a_teacher(teacher):
    image = batch()["image"].requires_grad_()  # as a student's proposals would
    assert not any(value.requires_grad for value in teacher({"image": image}).values())


def test_a_teacher_with_dropout_gives_the_same_twice_and_draws_nothing(teacher):
    state = torch.get_rng_state()
    torch.testing.assert_close(teacher(batch()), teacher(batch()), rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("part", ["model", "network", "dropout"])
def test_a_teacher_set_to_train_by_hand_is_put_back(teacher, part):
    statistics = copy.deepcopy(teacher.model.state_dict())
    expected = teacher(batch())
    by_hand = {"model": teacher.model, "network": teacher.network, "dropout": teacher.network[3]}
    by_hand[part].train()
    torch.testing.assert_close(teacher(batch()), expected, rtol=0, atol=0)
    torch.testing.assert_close(teacher.model.state_dict(), statistics, rtol=0, atol=0)
    assert not any(module.training for module in teacher.model.modules())


def test_an_error_in_a_teacher_leaves_it_usable(teacher):
    expected = teacher(batch())
    with pytest.raises(RuntimeError):
        teacher({"image": torch.zeros(2, 9, 6, 6)})
    torch.testing.assert_close(teacher(batch()), expected)


def test_a_deepcopy_shares_the_teacher(teacher):
    assert copy.deepcopy({"teacher": teacher})["teacher"] is teacher


def test_a_teacher_without_taps_cannot_be_called():
    with pytest.raises(RuntimeError, match=r"infer_shapes\(\) was not called"):
        Teacher(net())(batch())


def test_a_teacher_need_not_be_a_task():
    network = net()
    assert Teacher(network).network is network


@pytest.mark.parametrize(
    ("models", "names"),
    [
        (net(), ["teacher"]),
        (nn.ModuleDict({"a": net(), "b": net()}), ["a", "b"]),
        ({"b": net(), "a": net()}, ["b", "a"]),
        ({}, []),
    ],
)
def test_teachers_are_named_and_one_alone_is_called_teacher(models, names):
    assert list(as_teachers(models, net())) == names


def test_a_teacher_sharing_parameters_with_the_student_is_refused_before_it_is_frozen():
    student, other = net(), net()
    other[5] = student[5]
    with pytest.raises(UserError, match=r"teacher 'b' shares parameters.*copy.deepcopy"):
        as_teachers({"a": net(), "b": other}, student)
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_a_teacher_cannot_be_named_student():
    with pytest.raises(UserError, match="cannot be named 'student'"):
        as_teachers({"student": net()}, net())


class Residual(nn.Module):
    """Two convolutions with BatchNorms, and a sum that reads what the second BatchNorm gives."""

    def __init__(self, *, reads_raw=False):
        super().__init__()
        self.reads_raw = reads_raw
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4, affine=False)
        self.relu, self.fc = nn.ReLU(inplace=True), nn.Linear(4, 5)

    def forward(self, images):
        raw = self.conv1(images)
        first = self.relu(self.bn1(raw))
        second = self.relu(self.bn2(self.conv2(first)) + (raw if self.reads_raw else first))
        return self.fc(second.mean((2, 3)))


def trained(network):
    """Give BatchNorms statistics and parameters that are not those of a fresh network."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return network


def folding(network, paths, sample=None):
    teacher = Teacher(Logits(trained(network)).double())
    sample = {"image": (sample or batch())["image"].double()}
    teacher.infer_shapes(paths, sample)
    before = teacher(sample)
    count = teacher.accelerate(sample)
    return teacher, before, teacher(sample), count


@pytest.mark.parametrize("paths", [["output"], ["bn2", "relu:in[*][-1]", "output"], ["bn1", "fc"]])
def test_a_folded_teacher_gives_the_same_with_fewer_modules(paths):
    teacher, before, after, count = folding(Residual(), paths)
    assert count == 2
    assert list(after) == list(before)
    for path, value in before.items():
        torch.testing.assert_close(after[path], value, rtol=1e-9, atol=1e-9)
    kinds = [type(module) for module in teacher.models[1].modules()]
    assert nn.BatchNorm2d not in kinds
    assert nn.BatchNorm2d in [type(module) for module in teacher.network.modules()]  # as it was


@pytest.mark.parametrize(("path", "left"), [("conv1", "bn1"), ("bn2:in", "bn2")])
def test_a_convolution_whose_own_output_is_tapped_is_not_folded(path, left):
    teacher, before, after, count = folding(Residual(), [path, "output"])
    assert count == 1
    assert type(teacher.models[1].network.get_submodule(left)) is nn.BatchNorm2d
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-9, atol=1e-9)


def test_nothing_is_folded_where_something_else_reads_a_convolution():
    teacher, before, after, count = folding(Residual(reads_raw=True), ["output"])
    assert (count, len(teacher.models)) == (0, 1)
    assert torch.equal(before["output"], after["output"])


def test_a_batchnorm_behind_an_activation_in_place_is_not_folded():
    conv, norm, relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
    network = nn.Sequential(conv, relu, norm, nn.Flatten(), nn.Linear(64, 5))
    _, before, after, count = folding(network, ["output"])
    assert count == 0
    assert torch.equal(before["output"], after["output"])


def test_a_convolution_that_runs_twice_is_not_folded():
    conv, norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
    network = nn.Sequential(conv, norm, nn.ReLU(), conv, nn.Flatten(), nn.Linear(108, 5))
    _, before, after, count = folding(network, ["output"])
    assert count == 0
    assert torch.equal(before["output"], after["output"])


def test_other_taps_undo_the_folding():
    teacher, before, _, _ = folding(Residual(), ["output"])
    teacher.infer_shapes(["conv1", "output"])
    sample = {"image": batch()["image"].double()}
    assert torch.equal(teacher(sample)["output"], before["output"])
    assert len(teacher.models) == 1


class PreActivated(Residual):
    """The shortcut reads what the ReLU is given."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, images):
        first = self.bn1(self.conv1(images))
        return self.fc((self.bn2(self.conv2(self.relu(first))) + first).mean((2, 3)))


@pytest.mark.parametrize(
    ("network", "paths", "inplace"),
    [
        (net, ["output"], True),
        (net, ["1"], False),  # which a ReLU in place would overwrite
        (PreActivated, ["output"], False),
    ],
)
def test_relus_work_in_place_where_nothing_else_reads_their_input(network, paths, inplace):
    made = network()
    for module in made.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    teacher, before, after, _ = folding(made, paths)
    for path, value in before.items():
        torch.testing.assert_close(after[path], value, rtol=1e-9, atol=1e-9)
    relus = [
        [m.inplace for m in model.modules() if isinstance(m, nn.ReLU)] for model in teacher.models
    ]
    assert relus == [[False], [inplace]]


@pytest.mark.parametrize(("paths", "passes"), [(["output"], 2), (["1"], 3)])
def test_folding_takes_two_passes_and_a_third_where_a_relu_in_place_does_harm(paths, passes):
    network = net()
    network[2].inplace = False
    teacher = Teacher(Logits(trained(network)))
    teacher.infer_shapes(paths, batch())
    ran = []
    teacher.network.register_forward_pre_hook(lambda *_: ran.append(1))  # its copy has it too
    assert teacher.accelerate(batch()) == 1
    assert len(ran) == passes


class Holder(nn.Conv2d):
    """A convolution with its own norm, as Detectron2's."""

    def __init__(self, *args, norm, **kwargs):
        super().__init__(*args, **kwargs)
        self.norm = norm

    def forward(self, images):
        return self.norm(super().forward(images)).relu_()


class FrozenBatchNorm2d(nn.Module):
    """As torchvision's and Detectron2's: all values are buffers."""

    def __init__(self, channels):
        super().__init__()
        self.eps = 1e-5
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(channels))

    def forward(self, maps):
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return maps * scale[:, None, None] + (self.bias - self.running_mean * scale)[:, None, None]


def frozen(channels):
    norm = FrozenBatchNorm2d(channels)
    for buffer in norm.buffers():
        buffer.uniform_(0.5, 2)
    return norm


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, frozen])
@pytest.mark.parametrize(
    ("paths", "count"), [(["output"], 2), (["0", "output"], 2), (["0.norm:in", "output"], 1)]
)
def test_norms_inside_convolutions_and_frozen_ones_are_folded(kind, paths, count):
    holder = Holder(3, 4, 3, norm=kind(4))
    layers = holder, nn.Conv2d(4, 4, 3), kind(4), nn.Flatten(), nn.Linear(16, 5)
    _, before, after, folded = folding(nn.Sequential(*layers), paths)
    assert folded == count
    for path, value in before.items():
        torch.testing.assert_close(after[path], value, rtol=1e-9, atol=1e-9)


def test_a_module_with_the_values_of_a_frozen_norm_that_computes_more_is_not_folded():
    class Doubling(FrozenBatchNorm2d):
        def forward(self, maps):
            return 2 * super().forward(maps)

    network = nn.Sequential(nn.Conv2d(3, 4, 3), Doubling(4), nn.Flatten(), nn.Linear(64, 5))
    _, before, after, count = folding(network, ["output"])
    assert count == 0
    assert torch.equal(before["output"], after["output"])


def test_weights_held_in_bf16_give_what_autocast_gives():
    teacher, sample = Teacher(Logits(trained(Residual()))), batch()
    teacher.infer_shapes(["bn2", "output"], sample)
    teacher.accelerate(sample)
    with torch.autocast("cpu", torch.bfloat16):
        expected = teacher(sample)
    teacher.infer_shapes(["bn2", "output"], sample)
    teacher.accelerate(sample, torch.bfloat16)
    assert {p.dtype for p in teacher.models[1].parameters()} == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(teacher(sample), expected, rtol=0, atol=0)
    assert {p.dtype for p in teacher.model.parameters()} == {torch.float32}


def test_a_teacher_without_batchnorms_is_not_copied():
    teacher, sample = Teacher(Logits(nn.Sequential(nn.Flatten(), nn.Linear(108, 5)))), batch()
    teacher.infer_shapes(["output"], sample)
    assert teacher.accelerate(sample) == 0
    assert teacher.models == [teacher.model]


def test_what_is_not_folded_is_shared_with_the_model():
    teacher = folding(Residual(), ["output"])[0]
    model, copied = teacher.models
    assert copied.network.fc.weight is model.network.fc.weight
    assert copied.network.conv1.weight is not model.network.conv1.weight


def ran(teacher, sample):
    """Return the names of the modules that run for a batch."""
    names, handles = [], []
    for name, module in network_of(teacher.models[-1]).named_modules():
        note = lambda *_, name=name: names.append(name)  # noqa: E731
        handles.append(module.register_forward_hook(note))
    teacher(sample)
    for handle in handles:
        handle.remove()
    return names


@pytest.mark.parametrize(
    ("paths", "last"),
    [(["bn1"], "bn1"), (["relu:in[*]"], ""), (["fc:in"], "bn2"), (["bn1", "output"], "")],
)
def test_a_teacher_stops_at_its_last_tap(paths, last):
    teacher, sample = Teacher(Logits(trained(Residual()))), batch()
    expected = teacher.infer_shapes(paths, sample)
    names = ran(teacher, sample)
    assert names[-1] == last if last != "bn2" else names[-2:] == ["bn2", "relu"]
    torch.testing.assert_close(teacher(sample), expected, rtol=0, atol=0)


def test_a_module_that_runs_twice_is_found_though_the_pass_could_stop_before():
    relu = nn.ReLU()
    teacher = Teacher(Logits(nn.Sequential(relu, nn.Flatten(), relu)))
    with pytest.raises(UserError, match="ran twice"):
        teacher.infer_shapes(["0"], batch())


def test_a_teacher_without_taps_does_not_run():
    teacher = Teacher(Logits(net()))
    teacher.infer_shapes([], batch())
    assert ran(teacher, batch()) == []
