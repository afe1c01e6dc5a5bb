"""A teacher is looked at, never trained, saved or switched to train mode."""

import copy

import pytest
import torch
from kd_core.errors import UserError
from kd_core.task import Task
from kd_core.teacher import Teacher, as_teachers
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
    teacher.listen(["1", "output"], batch())
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
    torch.testing.assert_close(teacher.listen(["1", "output"], batch()), teacher(batch()))
    assert teacher.listen(["1"]) == {}


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


def test_a_teacher_that_was_not_told_what_to_show_refuses():
    with pytest.raises(RuntimeError, match=r"listen\(\) was not called"):
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
