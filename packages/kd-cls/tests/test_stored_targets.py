"""Runs on image files with stored targets, from the command line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from kd_cls.models import build_model
from kd_cls.train import main
from PIL import Image

CONFIG = """
data = dict(type="kd_cls.data.image_folder", root="set", image_size=8, resident=False, workers=0,
            batch_size=5, augment=[dict(type="kd_cls.data.augment.Flip"),
                                   dict(type="kd_cls.data.augment.Mixup")])
data_seed = 3
student = dict(network=dict(type="kd_cls.models.build_model", name="tiny"))
teacher = dict(
    network=dict(type="kd_cls.models.build_model", name="tiny"), weights="teacher.pth"
)
distiller = dict(terms=dict(kd=dict(criterion=dict(type="kd_core.criteria.kd.KD"))))
optimizer = dict(type="torch.optim.SGD", lr=0.01)
schedule = dict(type="kd_core.training.schedule.constant")
trainer = dict(epochs=2, loggers=[], allow_weak_teacher=True)
"""
IMAGES = 24  # of training, in batches of 5: the last of 4
PASSES = 5 * 2


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a set of photo-like files, a teacher and a config."""
    folder, rng = tmp_path_factory.mktemp("prepared"), np.random.default_rng(0)
    for number in range(IMAGES + 4):
        split = "train" if number < IMAGES else "test"
        place = folder / "set" / split / "ab"[number % 2] / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(256, size=(6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((48, 40)).save(place)
    torch.manual_seed(0)
    torch.save(build_model("tiny", num_classes=2).state_dict(), folder / "teacher.pth")
    (folder / "config.py").write_text(CONFIG)
    return folder


@pytest.fixture(autouse=True)
def _place(prepared, monkeypatch):
    monkeypatch.chdir(prepared)
    yield
    for made in ("runs", "kept"):
        shutil.rmtree(made, ignore_errors=True)


def run(name, *options, extra=()):
    command = ["config.py", "--work-dir", f"runs/{name}", *extra]
    return main([*command, *(["--cfg-options", *options] if options else [])])


def losses(name):
    lines = Path(f"runs/{name}/log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss_kd"] for line in lines]


def test_a_second_run_on_cropped_flipped_and_mixed_files_needs_no_teacher_pass(passes, capsys):
    assert run("online") == 0
    cache = "trainer.teacher_cache=kept"
    assert run("first", cache) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "stored targets in kept: 384 bytes for 2 epochs of 24 images (8 bytes for each)" in told
    passes.clear()
    assert run("second", cache) == 0
    assert passes == [5, 2, 5]  # two trials and what is compared, of a run's ten passes
    assert losses("first") == losses("second")
    np.testing.assert_allclose(losses("first"), losses("online"), rtol=2e-3)
    passes.clear()
    options = [cache, "student.network.name=resnet14", "trainer.epochs=1"]
    assert run("other", *options, extra=["--seeds", "0", "1", "--share-teacher"]) == 0
    assert passes == [5, 2, 5]


OTHERS = {
    "data_seed=4": "data_seed is 3 there and 4 here",
    "data.image_size=16": "transform.size is [8, 8] there and [16, 16] here",
    "data.transform={'type': 'torchvision.transforms.v2.RandomResizedCrop', 'size': 8, "
    "'scale': (0.5, 1.0)}": "transform.scale is [0.08, 1] there and [0.5, 1] here",
    "data.augment=[]": "augment.0 is kd_core.data.augment.Flip there and not set here",
    "data.limit_per_class=4": "samples is 24 there and 8 here",
    "data.batch_size=6": "batch_size is 5 there and 6 here",
    "trainer.precision=bf16": "precision is fp32 there and bf16 here",
}


def test_another_data_seed_or_transform_is_refused_before_training(capsys):
    cache = "trainer.teacher_cache={'folder': 'kept'}"
    assert run("first", cache, "trainer.epochs=1") == 0
    for option, difference in OTHERS.items():
        capsys.readouterr()
        assert run("other", cache, option) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert difference in told
        assert "its targets are not those of this run" in told
        assert not Path("runs/other").exists()


def test_a_named_folder_needs_a_data_seed_before_the_first_of_several_seeds_trains(capsys):
    options = ["data_seed=None", "trainer.teacher_cache=kept"]
    assert run("several", *options, extra=["--seeds", "0", "1"]) == 2
    assert "every seed has its own unless it is set" in " ".join(capsys.readouterr().err.split())
    assert not Path("kept").exists()


def test_without_a_folder_every_kind_of_targets_is_kept_beside_the_others(capsys):
    cache = "trainer.teacher_cache=True"
    assert run("first", cache, "trainer.epochs=1") == 0
    assert run("other", cache, "data_seed=4", "trainer.epochs=1") == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "is not used: data_seed is 3 there and 4 here" in told
    assert len(list(Path("runs/teachers").glob("targets-*"))) == 2


def test_top_k_labels_train_from_a_store_as_they_do_online():
    labels = "distiller.terms.kd.criterion={'type': 'kd_core.criteria.topk_labels.TopKLabels', "
    labels += "'k': 1, 'temperature': 2.0}"
    assert run("online", labels, "trainer.epochs=1") == 0
    assert run("kept", labels, "trainer.epochs=1", "trainer.teacher_cache={'topk': 1}") == 0
    np.testing.assert_allclose(losses("kept"), losses("online"), rtol=1e-3)


def test_a_dry_run_leaves_a_named_folder_alone():
    assert run("dry", "trainer.teacher_cache=kept", extra=["--dry-run"]) == 0
    assert not Path("kept").exists()
