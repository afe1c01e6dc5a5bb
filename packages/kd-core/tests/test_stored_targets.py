"""Targets kept by epoch and place: those of the online teacher, whatever happens to the files."""

import os
import random
import shutil
import signal

import numpy as np
import pytest
import torch
from kd_core.criteria.fitnet import FitNet
from kd_core.criteria.kd import KD
from kd_core.criteria.rkd import RKD
from kd_core.criteria.topk_labels import TopKLabels, topk_labels
from kd_core.data.augment import CropFlip, Flip, PerImage, QuarterTurns, Views
from kd_core.data.balanced import BalancedSampler
from kd_core.data.device_loader import DeviceLoader
from kd_core.data.folder_loader import FolderLoader
from kd_core.data.image_loader import packed
from kd_core.data.mix import CutMix, Mixup
from kd_core.distill.distiller import Distiller
from kd_core.distill.mutual import MutualDistiller
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.files import row_store
from kd_core.networks.image_task import ImageTask
from kd_core.testing.damage import cut, flip_bit, refusal, restored
from kd_core.training.settings import parse_trainer
from kd_core.training.targets import stored
from kd_core.training.targets.choice import CacheOptions, elsewhere, parse_cache, with_cache
from kd_core.training.targets.forms import TopK, topk_width
from kd_core.training.targets.stored import StoredTargets
from kd_core.training.teacher_cache import CachedTeachers
from PIL import Image
from torch import nn

COUNT, SIDE = 20, 8
MIXED = (Flip(), Mixup())


class Toy(ImageTask):
    """Classifies images."""

    def forward(self, batch):
        logits = self.network(self.prepare(batch["image"]))
        return {"ce": self.cross_entropy(logits, batch["label"])} if self.training else logits


class RandomCrop:
    """Cuts a square at a place that torch's generator draws."""

    def __init__(self, size=SIDE, step=1):
        self.size, self.step = size, step

    def __call__(self, image):
        x, y = (self.step * torch.randint(4, (2,))).tolist()
        return image.crop((x, y, x + self.size, y + self.size))


def network(seed):
    torch.manual_seed(seed)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), pool, nn.Linear(6, 5))


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A folder of small images, in two classes."""
    folder, rng = tmp_path_factory.mktemp("set"), np.random.default_rng(0)
    for number in range(COUNT):
        place = folder / "ab"[number % 2] / f"{number:02}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(256, size=(12, 12, 3), dtype=np.uint8)).save(place)
    return folder


def loader(folder, augment=MIXED, transform=None, **options):
    files = sorted(folder.glob("*/*.png"))
    labels = torch.tensor([ord(file.parent.name) - ord("a") for file in files])
    arguments = {"batch_size": 4, "shuffle": True, "workers": 0, "data_seed": 3, **options}
    transform = transform or RandomCrop()
    return FolderLoader(
        packed(map(str, files)), labels, transform, image_size=SIDE, augment=augment, **arguments
    )


def distiller(*terms, seed=1, kind=Distiller, **options):
    terms = terms or [Term(KD(), student="output", teacher="output")]
    sample = {"image": torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8), "label": torch.zeros(2)}
    sample["label"] = sample["label"].long()
    named = {f"term{i}": term for i, term in enumerate(terms)}
    return kind(Toy(network(0)), Toy(network(seed)), named, sample=sample, **options)


def targets(source, place, model=None, **options):
    return StoredTargets(source, (model or distiller()).teachers, place, **options)


def shown(source, epochs=2, start=0, tap="output"):
    return [
        batch["teacher_features"]["teacher"][tap]
        for epoch in range(epochs)
        for batch in source.epoch(epoch, start)
    ]


def online(source, model=None, epochs=2, tap="output"):
    teacher = (model or distiller()).teachers["teacher"]
    return [teacher(batch)[tap] for epoch in range(epochs) for batch in source.epoch(epoch)]


def same(ours, wanted):
    assert len(ours) == len(wanted) > 0
    for one, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=2**-10, atol=1e-6)


def equal(ours, others):
    return len(ours) == len(others) and all(map(torch.equal, ours, others))


@pytest.fixture
def passes(monkeypatch):
    """Note how many images go through a teacher in each pass."""
    from kd_core.distill.teacher import Teacher

    noted, call = [], Teacher.__call__

    def note(self, batch):
        noted.append(len(batch["image"]))
        return call(self, batch)

    monkeypatch.setattr(Teacher, "__call__", note)
    return noted


PIPELINES = {
    "crop": (),
    "crop, flip and mixup": MIXED,
    "cutmix": (CutMix(),),
    "one by one": (PerImage(lambda image: image + torch.randint(9, (), dtype=torch.uint8)),),
    "views": (Views([[Flip()], [CropFlip(1)]]),),
    "turns": (QuarterTurns(),),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_targets_are_the_online_teachers_to_float16_in_a_first_run_and_a_second(
    images, tmp_path, name, passes
):
    made = loader(images, PIPELINES[name])
    first = shown(targets(made, tmp_path))
    same(first, online(made))
    passes.clear()
    assert equal(shown(targets(loader(images, PIPELINES[name]), tmp_path)), first)
    views = len(next(made.epoch(0))["image"]) // 4
    assert passes == [4 * views, 2 * views, 4 * views]  # two trials, and what is compared


def test_images_in_memory_with_other_augmentation_than_a_crop_are_stored_too(tmp_path):
    pixels = torch.randint(256, (COUNT, 3, SIDE, SIDE), dtype=torch.uint8)
    made = DeviceLoader(pixels, torch.arange(COUNT) % 5, batch_size=8, augment=MIXED)
    same(shown(targets(made, tmp_path)), online(made))


def test_vectors_and_maps_are_kept_beside_logits(images, tmp_path):
    hint = FitNet(student_shapes=((6, 6, 6),), teacher_shapes=((6, 6, 6),))
    terms = [Term(hint, student=["0"], teacher=["0"]), Term(RKD(), student="4:in", teacher="4:in")]
    model = distiller(*terms)
    made = loader(images)
    for tap, shape in (("0", (4, 6, 6, 6)), ("4:in", (4, 6))):
        ours = shown(targets(made, tmp_path, model), tap=tap)
        same(ours, online(made, model, tap=tap))
        assert ours[0].shape == shape
    plain, kept = next(made.epoch(1)), next(targets(made, tmp_path, model).epoch(1))
    torch.testing.assert_close(model(kept), model(plain), rtol=2e-3, atol=1e-4)
    list(targets(made, tmp_path).epoch(0))  # another method adds its own tap
    assert len(list(tmp_path.iterdir())) == 3


def test_an_epoch_is_resumed_in_its_middle_and_a_longer_run_fills_the_rest(
    images, tmp_path, passes
):
    made = loader(images)
    batches = targets(made, tmp_path).epoch(0)
    for _ in range(2):
        next(batches)
    batches.close()
    passes.clear()
    same(shown(targets(made, tmp_path), epochs=1), online(made, epochs=1))
    assert sum(passes[:6]) == 4 + 2 + 4 + 3 * 4  # trials, what is compared, and the other batches
    assert equal(shown(targets(made, tmp_path), 1, start=3), shown(targets(made, tmp_path), 1)[3:])
    same(shown(targets(made, tmp_path), epochs=3), online(made, epochs=3))


def test_two_runs_fill_one_store_at_once_and_ranks_fill_their_parts(images, tmp_path):
    made = loader(images, (Flip(),))
    runs = [targets(made, tmp_path).epoch(0) for _ in range(2)]
    pairs = list(zip(*runs, strict=True))
    for one, other in pairs:
        ours, theirs = (batch["teacher_features"]["teacher"]["output"] for batch in (one, other))
        assert torch.equal(ours, theirs)
    for rank in range(3):
        list(targets(made.shard(rank, 3), tmp_path).epoch(1))
    same(shown(targets(made, tmp_path)), online(made))
    assert len(list(tmp_path.iterdir())) == 1


def test_repeated_samples_have_rows_of_their_own(images, tmp_path):
    for more in ({"copies": 2}, {"sampler": BalancedSampler(torch.arange(COUNT) % 3)}):
        made = loader(images, (Flip(),), **more)
        same(shown(targets(made, tmp_path)), online(made))


def changed_file(images, tmp_path):
    copy = tmp_path / "set"
    shutil.copytree(images, copy)
    place = copy / "b" / "07.png"
    size = place.stat().st_size
    pixels = np.array(Image.open(place))
    Image.fromarray(pixels[::-1]).save(place)
    assert place.stat().st_size == size
    return loader(copy)


def fewer_files(images, tmp_path):
    copy = tmp_path / "set"
    shutil.copytree(images, copy)
    (copy / "b" / "07.png").unlink()
    return loader(copy)


OTHERS = {
    "data_seed is 3 there and 4 here": lambda f, t: loader(f, data_seed=4),
    "transform.step is 1 there and 2 here": lambda f, t: loader(f, transform=RandomCrop(step=2)),
    "augment.1.share.alpha is 1 there and 0.5": lambda f, t: loader(f, (Flip(), Mixup(0.5))),
    "augment.0 is kd_core.data.augment.Flip": lambda f, t: loader(f, (Mixup(),)),
    "batch_size is 4 there and 5 here": lambda f, t: loader(f, batch_size=5),
    "shuffle is True there and False": lambda f, t: loader(f, shuffle=False),
    "copies is 1 there and 2 here": lambda f, t: loader(f, copies=2),
    "data is ": changed_file,
    "samples is 20 there and 19 here": fewer_files,
}


@pytest.mark.parametrize("difference", OTHERS)
def test_other_images_are_refused_in_a_named_folder_and_have_their_own_store_elsewhere(
    images, tmp_path, difference, capsys
):
    for folder, named in (("mine", True), ("all", False)):
        list(targets(loader(images), tmp_path / folder, named=named).epoch(0))
    other = OTHERS[difference](images, tmp_path)
    with pytest.raises(UserError) as error:
        targets(other, tmp_path / "mine", named=True)
    assert difference in str(error.value)
    assert "name another folder" in str(error.value)
    capsys.readouterr()
    same(shown(targets(other, tmp_path / "all")), online(other))
    told = " ".join(capsys.readouterr().err.split())
    assert f"is not used: {difference}" in told or difference in told
    assert len(list((tmp_path / "all").iterdir())) == 2


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"model": lambda: distiller(seed=2)}, "teacher is "),
        ({"precision": "bf16"}, "precision is fp32 there and bf16 here"),
        ({"topk": {"teacher": {"output": (3, 1.0)}}}, "topk is off there and 3 here"),
    ],
)
def test_another_teacher_precision_or_k_is_refused_in_a_named_folder(
    images, tmp_path, options, difference
):
    targets(loader(images), tmp_path, named=True)
    given = {**options, "model": options.get("model", distiller)()}
    with pytest.raises(UserError, match=difference):
        targets(loader(images), tmp_path, named=True, **given)


def test_another_batch_size_counts_only_where_images_depend_on_their_batch(images, tmp_path):
    list(targets(loader(images, (Flip(),)), tmp_path, named=True).epoch(0))
    other = loader(images, (Flip(),), batch_size=7, drop_last=True)
    same(shown(targets(other, tmp_path, named=True)), online(other))

    def own(batch, sampling):
        return batch

    targets(loader(images, (own,)), tmp_path / "own", named=True)
    with pytest.raises(UserError, match="batch_size is 4 there and 7 here"):
        targets(loader(images, (own,), batch_size=7), tmp_path / "own", named=True)


def test_a_copied_store_serves_a_copied_set_whatever_both_are_called(images, tmp_path, passes):
    first = shown(targets(loader(images), tmp_path / "store", named=True))
    shutil.copytree(images, tmp_path / "elsewhere" / "pictures")
    shutil.copytree(tmp_path / "store", tmp_path / "elsewhere" / "kept")
    shutil.rmtree(tmp_path / "store")
    passes.clear()
    moved = loader(tmp_path / "elsewhere" / "pictures")
    assert equal(shown(targets(moved, tmp_path / "elsewhere" / "kept", named=True)), first)
    assert len(passes) == 3
    texts = [path.read_text() for path in (tmp_path / "elsewhere/kept").rglob("*.json")]
    assert texts
    assert not any(str(place) in text for text in texts for place in (images, tmp_path))


def test_a_transform_whose_code_was_changed_is_found_out(images, tmp_path, monkeypatch):
    list(targets(loader(images), tmp_path).epoch(0))
    monkeypatch.setattr(RandomCrop, "__call__", lambda self, image: image.crop((4, 4, 12, 12)))
    with pytest.raises(UserError, match="other values than are kept here for tap 'output'"):
        next(targets(loader(images), tmp_path).epoch(0))


def test_what_one_epoch_or_tap_has_cannot_stand_for_another(images, tmp_path):
    list(targets(loader(images), tmp_path).epoch(0))
    (place,) = tmp_path.glob("*/epoch-00000")
    shutil.copytree(place, place.with_name("epoch-00001"))
    with pytest.raises(UserError, match="holds a table of"):
        next(targets(loader(images), tmp_path).epoch(1))
    shutil.rmtree(place.with_name("epoch-00001"))
    list(targets(loader(images), tmp_path).epoch(1))
    for name in ("values.f16", "sums.u32"):
        shutil.copyfile(place / name, place.with_name("epoch-00001") / name)
    with pytest.raises(UserError, match="the checksum of row 0 does not match"):
        next(targets(loader(images), tmp_path).epoch(1))


KILLS = 10


def fill_and_die(source, place, model, moment):
    """Fill two epochs in a child that is killed in the middle of a write."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    torch.set_num_threads(1)
    write, left = row_store._write, [moment]

    def last(descriptor, data, offset):
        if not left[0]:
            write(descriptor, data[: len(data) // 2 if len(data) > 4 else 0], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        write(descriptor, data, offset)

    row_store._write = last
    shown(targets(source, place, model))
    os._exit(0)


def test_ten_runs_that_are_killed_in_a_write_leave_only_right_targets(images, tmp_path):
    made, model = loader(images), distiller()
    wanted = online(made, model)
    rng = random.Random(0)
    killed = sum(fill_and_die(made, tmp_path, model, rng.randrange(12)) for _ in range(KILLS))
    assert killed >= KILLS - 2
    for epoch in range(2):  # what is there is right, before the rest is filled
        (store,) = targets(made, tmp_path, model)._targets[0].stores.values()
        rows = np.flatnonzero(store.has(epoch, np.arange(COUNT)))
        kept = store.form.decode(store.read(epoch, rows), torch.device("cpu"))
        joined = torch.cat(wanted[5 * epoch : 5 * epoch + 5])
        torch.testing.assert_close(kept, joined[torch.from_numpy(rows)], rtol=2**-10, atol=1e-6)
    same(shown(targets(made, tmp_path, model)), wanted)


def test_no_flipped_bit_and_no_cut_gives_another_target(images, tmp_path):
    made, model = loader(images), distiller()
    wanted = shown(targets(made, tmp_path, model), epochs=1)
    rng, read = random.Random(1), []
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        for damage in (*[flip_bit] * 6, cut):
            with restored(path):
                damage(path, rng)
                line = refusal(lambda: read.append(shown(targets(made, tmp_path, model), 1)))
                assert line or equal(read[-1], wanted)
                assert not line or str(tmp_path) in line


def test_the_size_is_told_before_within_five_percent(images, tmp_path):
    hint = FitNet(student_shapes=((6, 6, 6),), teacher_shapes=((6, 6, 6),))
    model = distiller(Term(KD(), student="output", teacher="output"), Term(hint, ["0"], ["0"]))
    made = targets(loader(images, copies=20), tmp_path, model)
    text = made.check_space(2)
    assert "360.00 kB for 2 epochs of 400 images (450 bytes for each), 0 bytes are" in text
    shown(made, epochs=2)
    taken = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) / 1e6
    assert abs(0.36 / taken - 1) < 0.05


def test_imagenet_for_a_hundred_epochs_takes_what_others_say():
    size = 100 * row_store.table_bytes(1_281_167, topk_width(10, 1000))
    assert abs(size / 5.4e9 - 1) < 0.05
    assert size - 100 * 4 * 1_281_167 == 1_281_167 * 100 * 10 * 4  # without the checksums


def test_a_disk_that_is_too_small_is_refused_before_training(images, tmp_path, monkeypatch):
    made = targets(loader(images), tmp_path)
    monkeypatch.setattr(stored.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match=r"10 epochs of 20 images .*: they do not fit; name a fold"):
        made.check_space(10)
    made.check_space(3)


def own_draws(image):
    """Draw from NumPy's generator."""
    x = int(np.random.randint(4))
    return image.crop((x, 0, x + SIDE, SIDE))


class Counting(RandomCrop):
    """Changes from call to call."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __call__(self, image):
        self.calls += 1
        return image.crop((self.calls % 4, 0, self.calls % 4 + SIDE, SIDE))


@pytest.mark.parametrize("transform", [own_draws, Counting()])
def test_a_transform_with_randomness_of_its_own_is_refused(images, tmp_path, transform):
    with pytest.raises(UserError, match="another one when it is read again"):
        targets(loader(images, transform=transform), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_augmentation_with_randomness_of_its_own_is_refused(images, tmp_path):
    def noise(batch, sampling):
        return {**batch, "image": batch["image"].float() / 255 + torch.rand(()) / 9}

    with pytest.raises(UserError, match="draws from a generator of its own"):
        targets(loader(images, (noise,)), tmp_path)


def test_teachers_whose_outputs_cannot_be_kept_are_refused(images, tmp_path):
    model = distiller()
    model.teachers["teacher"].network[4].register_forward_hook(lambda m, i, out: out - out.mean(0))
    with pytest.raises(UserError, match="'output' has other values for an image in another batch"):
        targets(loader(images), tmp_path, model)
    model = distiller()
    model.teachers["teacher"].network[4].bias.fill_(1e6)
    with pytest.raises(UserError, match="'output': gives values that float16 cannot hold"):
        targets(loader(images), tmp_path, model)
    model = distiller()
    model.teachers["teacher"].network[1].running_mean = None
    with pytest.raises(UserError, match="a BatchNorm without running statistics"):
        targets(loader(images), tmp_path, model)
    model = distiller()
    model.teachers["teacher"].network[4].register_forward_hook(lambda m, i, out: out.sum(1))
    with pytest.raises(UserError, match=r"'output' gives \[4\], which is not a row for each image"):
        targets(loader(images), tmp_path, model)
    assert not list(tmp_path.iterdir())


def cached(source, model, place, **options):
    made = {"beside": place, "precision": "fp32", "epochs": 2}
    return with_cache(source, [model], model.teachers, options or True, **made)


class First(Distiller):
    """Runs its student first."""

    student_first = True


def test_distillers_whose_teachers_give_something_else_each_time_are_refused(images, tmp_path):
    sample = loader(images).sample(2)
    mutual = MutualDistiller(Toy(network(0)), {"peer": Toy(network(1))}, sample=sample)
    choosing = distiller()
    choosing.student.changes_data = True
    for model, problem in (
        (distiller(kind=First), "teachers of a First run on what the student gives"),
        (mutual, "networks that teach one another change"),
        (choosing, "Toy chooses its own samples"),
    ):
        with pytest.raises(UserError, match=problem):
            cached(loader(images), model, tmp_path)
    with pytest.raises(UserError, match="list is not a SplitLoader"):
        cached([], distiller(), tmp_path)
    alone = distiller()
    alone.teachers.clear()
    alone.terms.clear()
    with pytest.raises(UserError, match="nothing is learned from a teacher here"):
        cached(loader(images), alone, tmp_path)


def test_few_views_of_images_in_memory_are_kept_once_for_all_epochs(tmp_path):
    pixels = torch.randint(256, (COUNT, 3, SIDE, SIDE), dtype=torch.uint8)
    made = DeviceLoader(pixels, torch.arange(COUNT) % 5, batch_size=8, augment=(CropFlip(1),))
    assert isinstance(cached(made, distiller(), tmp_path), CachedTeachers)
    hint = FitNet(student_shapes=((6, 6, 6),), teacher_shapes=((6, 6, 6),))
    maps = distiller(Term(hint, student=["0"], teacher=["0"]))
    assert isinstance(cached(made, maps, tmp_path), StoredTargets)


def topk_distiller(k=3, temperature=2.0, fill="spread", more=()):
    return distiller(
        Term(TopKLabels(k=k, temperature=temperature, fill=fill), "output", "output"), *more
    )


@pytest.mark.parametrize("fill", ["spread", "renormalize"])
@pytest.mark.parametrize(("kept", "k"), [(3, 3), (4, 2), (9, 5)])
def test_top_k_labels_learn_from_a_store_what_they_learn_online(images, tmp_path, kept, k, fill):
    model, made = topk_distiller(k, fill=fill), loader(images, (Views([[Flip()], []]),))
    for _ in range(2):
        batches = cached(made, model, tmp_path, topk=kept).epoch(0)
        for plain, ours in zip(made.epoch(0), batches, strict=True):
            student = torch.randn(8, 5, requires_grad=True)
            losses = [
                topk_labels(student, teacher, k=k, temperature=2.0, fill=fill)
                for teacher in (
                    model.teachers["teacher"](plain)["output"],
                    ours["teacher_features"]["teacher"]["output"],
                )
            ]
            torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=0)
            gradients = [torch.autograd.grad(loss, student)[0] for loss in losses]
            torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=2e-4)


@pytest.mark.parametrize("classes", [5, 40_000, 65_536, 65_537])
def test_classes_of_any_number_come_back(classes):
    form = TopK(classes, 2, 1.0)
    logits = torch.zeros(2, classes)
    logits[0, classes - 1], logits[0, 3], logits[1, 0], logits[1, classes // 2 + 1] = 20, 19, 9, 18
    rows = form.encode(logits)
    assert rows.shape == (2, form.width) == (2, topk_width(2, classes))
    found = form.decode(rows, logits.device).topk(2, sorted=True).indices
    assert found.tolist() == [[classes - 1, 3], [classes // 2 + 1, 0]]


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (lambda: topk_distiller(k=4), "its k is 4, and 3 are kept; set topk to 4 at least"),
        (
            lambda: topk_distiller(more=[Term(TopKLabels(k=2), "output", "output")]),
            "its temperature is 2, and another term keeps 1",
        ),
        (
            lambda: topk_distiller(more=[Term(KD(), "output", "output")]),
            "its criterion KD needs the whole logits",
        ),
        (distiller, "no term has the criterion TopKLabels"),
    ],
)
def test_a_criterion_that_needs_more_than_is_kept_is_refused(images, tmp_path, model, problem):
    with pytest.raises(UserError, match=problem):
        cached(loader(images), model(), tmp_path, topk=3)


def test_another_temperature_is_refused_in_a_named_folder(images, tmp_path):
    cached(loader(images), topk_distiller(), tmp_path, topk=3, folder=str(tmp_path / "x"))
    other = topk_distiller(temperature=1.0)
    with pytest.raises(UserError, match="temperature is 2 there and 1 here"):
        cached(loader(images), other, tmp_path, topk=3, folder=str(tmp_path / "x"))


def test_a_folder_of_something_else_is_refused(images, tmp_path):
    made = targets(loader(images), tmp_path, named=True)
    (place,) = tmp_path.iterdir()
    (place / "identity.json").unlink()
    with pytest.raises(UserError, match=r"has no identity\.json"):
        targets(loader(images), tmp_path, named=True)
    assert len(made) == 5


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({}, "is an empty dict; write True, or False"),
        ("", "the folder has no name"),
        ({"folder": ""}, "the folder has no name"),
        (" ", "the folder has no name"),
        ("{topk: 10}", "looks like a dict but cannot be read"),
        ("{'topk': true}", "looks like a dict but cannot be read"),
        ({"topk": 0}, "topk"),
        ({"top_k": 3}, "did you mean 'topk'"),
    ],
)
def test_what_the_setting_cannot_say_is_refused(value, problem):
    with pytest.raises(UserError, match=problem):
        parse_trainer({"epochs": 1, "teacher_cache": value})


def test_a_trial_run_writes_into_no_named_folder():
    assert parse_cache(elsewhere({"folder": "x", "topk": 3})) == CacheOptions(topk=3)
    assert elsewhere("x") is True
    assert elsewhere(False) is False
