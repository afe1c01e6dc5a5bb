"""What is wrong without an error is noticed before training: ranges of images, frozen parts."""

import pytest
import torch
from kd_core import Distiller
from kd_core.data.device_loader import DeviceLoader
from kd_core.distill.teacher import Teacher
from kd_core.errors import UserError
from kd_core.networks.frozen_norms import drifting_norms
from kd_core.networks.image_task import ImageTask
from kd_core.training.teacher_cache import CachedTeachers
from torch import nn

STATISTICS = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}


class Means(ImageTask):
    def forward(self, batch):
        logits = self.network(self.prepare(batch["image"])).mean((2, 3))
        return {"loss": logits.square().mean()} if self.training else logits


def blocks():
    """Return a part with a BatchNorm, twice, the second with one that has no parameters."""
    second = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, affine=False))
    return nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), second)


def images(low, high):
    return torch.linspace(low, high, 96).view(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (images(0, 255), " from 0 to 255; wanted uint8, .*divide them by 255"),
        (images(-2.1, 2.6), "normalised already, it would be done twice"),
        (images(0, 2.2), "normalised already, it would be done twice"),
    ],
)
@pytest.mark.parametrize("who", ["student", "teacher 'teacher'"])
def test_float_images_outside_0_to_1_are_refused_for_student_and_teacher(image, message, who):
    tasks = [Means(blocks(), **STATISTICS), Means(blocks())]
    student, teacher = tasks if who == "student" else tasks[::-1]
    distiller = Distiller(student, teacher, {})
    with pytest.raises(UserError, match=rf"{who}: images are floats.*{message}"):
        distiller({"image": image})


@pytest.mark.parametrize("image", [images(0, 1), images(-0.1, 1.1), images(0, 1).double()])
def test_floats_in_0_to_1_are_taken_with_what_resampling_adds(image):
    Means(blocks(), **STATISTICS).check_sample({"image": image})
    Means(blocks(), **STATISTICS).check_sample({"image": (255 * image).clamp(0, 255).byte()})
    Means(blocks(), **STATISTICS).check_sample({"image": image[:0]})


def test_without_statistics_floats_may_be_anything_and_only_those_of_bytes_are_told(capsys):
    Means(blocks()).check_sample({"image": images(-2, 2)})
    assert capsys.readouterr().err == ""
    Means(blocks()).check_sample({"image": images(0, 255)})
    assert "is the network made for 0 to 255?" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool])
def test_whole_numbers_that_are_no_bytes_are_refused(dtype):
    with pytest.raises(UserError, match="wanted uint8, or floats"):
        Means(blocks()).prepare(images(0, 255).to(dtype))


def test_batchnorms_of_frozen_parts_are_found():
    network = blocks()
    assert not list(drifting_norms(network))
    network[0].requires_grad_(False)
    assert [name for name, _ in drifting_norms(network)] == ["0.1"]
    network.requires_grad_(False)
    assert [name for name, _ in drifting_norms(network)] == ["0.1", "1.1"]
    network[0].eval()
    assert [name for name, _ in drifting_norms(network)] == ["1.1"]
    assert not list(drifting_norms(network.eval()))


@pytest.mark.parametrize("start", ["train", "call"])
def test_a_frozen_part_whose_statistics_move_is_told_once(start, capsys):
    student = Means(blocks())
    student.network[0].requires_grad_(False)
    distiller = Distiller(student, {}, {})
    for _ in range(2):
        distiller.train() if start == "train" else distiller({"image": images(0, 1)})
    told = capsys.readouterr().err.replace("\n", " ")
    assert told.count("student: BatchNorm 0.1 in a frozen part") == 1


def test_a_student_that_is_not_trained_has_no_statistics_that_move(capsys):
    Distiller(Means(blocks()), {}, {}, train_student=False).train()
    assert capsys.readouterr().err == ""


def test_a_teacher_whose_outputs_depend_on_the_batch_is_not_cached(tmp_path):
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    teacher = Teacher(Means(nn.Sequential(norm)))
    loader = DeviceLoader(
        torch.zeros(4, 3, 4, 4, dtype=torch.uint8), torch.zeros(4).long(), batch_size=2
    )
    teacher.infer_shapes(["output"], loader.sample(2))
    with pytest.raises(UserError, match="'0' of teacher 'wide' is a BatchNorm without running"):
        CachedTeachers(loader, {"wide": teacher}, tmp_path)
