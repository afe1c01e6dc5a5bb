"""The teacher cache: exact to float16, shared, and refused where views are without number."""

from functools import partial

import numpy as np
import pytest
import torch
from kd_core.criteria.fitnet import FitNet
from kd_core.criteria.kd import KD
from kd_core.criteria.rkd import RKD
from kd_core.data.augment import CropFlip, Flip, Views
from kd_core.data.device_loader import DeviceLoader
from kd_core.data.folder_loader import FolderLoader
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.networks.image_task import ImageTask
from kd_core.training.teacher_cache import CachedTeachers
from torch import nn

COUNT = 40
CROP = (CropFlip(1),)


class Toy(ImageTask):
    """Classifies images."""

    def forward(self, batch):
        logits = self.network(self.prepare(batch["image"]))
        return {"ce": self.cross_entropy(logits, batch["label"])} if self.training else logits


def network(seed):
    torch.manual_seed(seed)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), pool, nn.Linear(6, 5))


def loader(augment=CROP, **options):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (COUNT, 3, 8, 8), dtype=torch.uint8, generator=generator)
    arguments = {"batch_size": 8, "shuffle": True, **options}
    return DeviceLoader(images, torch.arange(COUNT) % 5, augment=augment, **arguments)


def distiller(*terms, seed=1, mean=None, taps="output"):
    std = mean and (0.2, 0.2, 0.2)
    models = Toy(network(0)), Toy(network(seed), mean=mean, std=std)
    terms = terms or [Term(KD(), student=taps, teacher=taps)]
    return Distiller(
        *models, {f"term{i}": t for i, t in enumerate(terms)}, sample=loader().sample(2)
    )


class Counted:
    """Counts the images that go through a distiller's teacher."""

    def __init__(self, distiller):
        self.images = 0
        distiller.teachers["teacher"].network.register_forward_pre_hook(self.note)

    def note(self, module, args):
        self.images += len(args[0])


def test_targets_are_the_online_teachers_to_float16(tmp_path):
    online = distiller()
    cached = CachedTeachers(loader(), online.teachers, tmp_path)
    for epoch in range(3):
        for batch in cached.epoch(epoch):
            shown, wanted = (
                batch["teacher_features"]["teacher"]["output"],
                online.teachers["teacher"](batch),
            )
            assert shown.dtype == torch.float32
            torch.testing.assert_close(shown, wanted["output"], rtol=2**-10, atol=1e-6)


def test_the_batches_are_the_loaders_own_from_any_place(tmp_path):
    cached = CachedTeachers(loader(), distiller().teachers, tmp_path)
    for start in (0, 3, len(cached)):
        plain, ours = list(loader().epoch(2, start)), list(cached.epoch(2, start))
        assert len(plain) == len(ours)
        for one, other in zip(plain, ours, strict=True):
            assert set(other) == {*one, "teacher_features"}
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_losses_with_the_cache_are_those_without(tmp_path):
    vectors = Term(RKD(), student="4:in", teacher="4:in")
    model = distiller(Term(KD()), vectors)
    cached = CachedTeachers(loader(), model.teachers, tmp_path)
    for plain, ours in zip(loader().epoch(0), cached.epoch(0), strict=True):
        torch.testing.assert_close(model(ours), model(plain), rtol=2e-3, atol=1e-5)


def test_a_view_goes_through_the_teacher_once_for_all_runs_and_methods(tmp_path):
    first = distiller()
    counted = Counted(first)
    cached = CachedTeachers(loader(), first.teachers, tmp_path)
    keys = [
        tuple(pair)
        for epoch in range(4)
        for batch in cached.epoch(epoch)
        for pair in zip(batch["index"].tolist(), batch["crop_id"].tolist(), strict=True)
    ]
    assert len(set(keys)) <= counted.images <= len(set(keys)) + 10 < len(keys)
    second = distiller(
        Term(RKD(), student="output", teacher="output")
    )  # another method and student
    counted = Counted(second)
    list(CachedTeachers(loader(), second.teachers, tmp_path).epoch(0))
    assert counted.images == 10  # a sample, and a few that are compared


def test_another_run_sees_what_was_written_after_it_started(tmp_path):
    one, other = distiller(), distiller()
    early = CachedTeachers(loader(), other.teachers, tmp_path)
    list(CachedTeachers(loader(), one.teachers, tmp_path).epoch(0))
    counted = Counted(other)
    list(early.epoch(0))
    assert counted.images == 8  # compared


def test_an_epoch_that_was_left_early_keeps_what_was_computed(tmp_path):
    batches = CachedTeachers(loader(), distiller().teachers, tmp_path).epoch(0)
    next(batches)
    batches.close()
    counted = Counted(again := distiller())
    next(CachedTeachers(loader(), again.teachers, tmp_path).epoch(0))
    assert counted.images == 10


@pytest.mark.parametrize(
    "change",
    [
        lambda: (loader(), distiller(seed=2), "fp32"),
        lambda: (loader(), distiller(mean=(0.4, 0.4, 0.4)), "fp32"),
        lambda: (loader([CropFlip(2)]), distiller(), "fp32"),
        lambda: (loader(), distiller(), "bf16"),
    ],
    ids=["weights", "normalisation", "augmentation", "precision"],
)
def test_another_teacher_data_or_precision_has_tables_of_its_own(tmp_path, change):
    list(CachedTeachers(loader(), distiller().teachers, tmp_path).epoch(0))
    other_loader, other, precision = change()
    CachedTeachers(other_loader, other.teachers, tmp_path, precision=precision)
    assert len(list(tmp_path.iterdir())) == 2


def test_other_images_have_tables_of_their_own(tmp_path):
    CachedTeachers(loader(), distiller().teachers, tmp_path)
    changed = loader()
    changed.images[3, 0, 0, 0] ^= 1
    CachedTeachers(changed, distiller().teachers, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_one_teacher_in_two_processes_has_one_name(tmp_path):
    class Odd(nn.Module):
        """Shows an address when it is printed, as a function would."""

        def extra_repr(self):
            return repr(partial(lambda: 0)) + repr(object())

        def forward(self, x):
            return x

    for _ in range(2):
        model = distiller()
        model.teachers["teacher"].network.append(Odd())
        CachedTeachers(loader(), model.teachers, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_teacher_whose_code_was_changed_is_found_out(tmp_path):
    list(CachedTeachers(loader(), distiller().teachers, tmp_path).epoch(0))
    model = distiller()
    model.teachers["teacher"].network[4].forward = lambda x: torch.zeros(len(x), 5)
    with pytest.raises(UserError, match=r"'teacher' gives other values than are kept here"):
        next(CachedTeachers(loader(), model.teachers, tmp_path).epoch(0))


def test_values_beyond_float16_are_refused(tmp_path):
    model = distiller()
    model.teachers["teacher"].network[4].bias.fill_(1e6)
    with pytest.raises(UserError, match="'output' gives values that float16 cannot hold"):
        next(CachedTeachers(loader(), model.teachers, tmp_path).epoch(0))


def folder_loader():
    return FolderLoader(
        np.array([b"a.png"] * 4), torch.zeros(4).long(), None, image_size=8, workers=0, batch_size=2
    )


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (lambda: loader([Flip()]), "the augmentation is Flip; only CropFlip alone"),
        (lambda: loader([CropFlip(1), Flip()]), "the augmentation is CropFlip, Flip"),
        (lambda: loader([Views([[CropFlip(1)]])]), "the augmentation is Views"),
        (folder_loader, "images are read and cropped again in each epoch"),
    ],
)
def test_views_without_number_are_refused(tmp_path, made, problem):
    with pytest.raises(UserError, match=problem):
        CachedTeachers(made(), distiller().teachers, tmp_path)


def test_maps_are_refused(tmp_path):
    hint = FitNet(student_shapes=((6, 6, 6),), teacher_shapes=((6, 6, 6),))
    model = distiller(Term(hint, student=["2"], teacher=["2"]))
    with pytest.raises(UserError, match=r"tap '2' of teacher 'teacher' gives \[6, 6, 6\]"):
        CachedTeachers(loader(), model.teachers, tmp_path)


def test_a_student_alone_has_nothing_to_cache(tmp_path):
    alone = Distiller(Toy(network(0)), {}, {}, sample=loader().sample(2))
    with pytest.raises(UserError, match="nothing is learned from a teacher"):
        CachedTeachers(loader(), alone.teachers, tmp_path)


def test_without_augmentation_every_image_is_one_view(tmp_path):
    cached = CachedTeachers(loader([]), distiller().teachers, tmp_path)
    list(cached.epoch(0))
    assert "1 views of 40 images); 3 epochs need 100%" in cached.describe(3)


def test_the_size_is_told(tmp_path):
    text = CachedTeachers(loader(), distiller().teachers, tmp_path).describe(18)
    assert str(tmp_path) in text
    assert "0.0 MB of 0.0 MB are there (18 views of 40 images); 18 epochs need 64%" in text
