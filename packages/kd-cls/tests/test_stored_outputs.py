"""A teacher whose logits are in a file: made by the tool, used by it, checked against the data."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from kd_cls import train
from kd_cls.models import build_model
from kd_core.experiment.outputs import in_order
from kd_core.files.outputs import read_outputs

TINY = """
data = dict(type="kd_cls.data.synthetic", num_train=24, num_test=8, num_classes=3, image_size=8,
            batch_size=8, augment=[])
student = dict(network=dict(type="kd_cls.models.build_model", name="tiny"))
teacher = dict(network=dict(type="kd_cls.models.build_model", name="tiny"), weights="t.pth")
distiller = dict(terms=dict(kd=dict(criterion=dict(type="kd_core.criteria.kd.KD"))))
optimizer = dict(type="torch.optim.SGD", lr=0.01)
schedule = dict(type="kd_core.training.schedule.constant")
trainer = dict(epochs=2, loggers=[], allow_weak_teacher=True)
"""
MIXUP = "data.augment=[{'type': 'kd_cls.data.augment.Mixup'}]"
CROPS = "data.augment=[{'type': 'kd_cls.data.augment.CropFlip'}]"
AT = "{'criterion': {'type': 'kd_core.criteria.at.AT'}, 'student': '@stages', 'teacher': '@stages'}"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny.py").write_text(TINY)
    torch.manual_seed(0)
    torch.save(build_model("tiny", num_classes=3).state_dict(), "t.pth")
    return tmp_path


def stored(file, **more):
    return f"teacher={ {'outputs': file, '_delete_': True, **more} }"


def run(*options, name="run", extra=()):
    options = ["--cfg-options", *options] if options else []
    return train.main(["tiny.py", "--work-dir", f"runs/{name}", *extra, *options])


def losses(name):
    lines = Path("runs", name, "log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss_kd"] for line in lines]


@pytest.fixture
def file():
    """Return a file that the tool wrote."""
    assert run(extra=["--save-outputs", "t.safetensors"]) == 0
    return "t.safetensors"


def test_a_student_learns_the_same_from_the_file_as_from_the_network(file, capsys):
    assert run(name="network") == 0
    assert run(stored(file), "trainer.ema=0.9", name="file") == 0
    np.testing.assert_allclose(losses("file"), losses("network"), rtol=1e-4)
    assert "its stored outputs are right for" in capsys.readouterr().err
    # Columns are matched by name, and some are left out.
    logits = read_outputs(Path(file)).logits.numpy()
    moved = logits[:, [2, 0, 0, 1]]
    names = [f"class {name}" for name in ("2", "zero", "x", "1")]
    np.savez("m.npz", logits=moved, classes=np.array(names))
    assert (
        run(stored("m.npz", class_map={"class 0": "class zero"}), "trainer.ema=0.9", name="moved")
        == 0
    )
    np.testing.assert_allclose(losses("moved"), losses("file"), rtol=1e-6)


def test_it_teaches_in_an_ensemble_with_weights_and_several_seeds_and_a_cache(file, capsys):
    network = "'net': {'network': {'type': 'kd_cls.models.build_model', 'name': 'tiny'}, "
    teachers = "{" + network + f"'weights': 't.pth'}}, 'file': {{'outputs': '{file}'}} }}"
    options = ["teacher=None", f"teachers={teachers}", "data_seed=0", "trainer.epochs=1"]
    options += ["distiller.ensembles={'mean': {'net': 1, 'file': 3}}"]
    options += ["distiller.terms.kd.source='mean'"]
    assert run(*options, extra=["--seeds", "0", "1", "--share-teacher"]) == 0
    assert "knows the training images alone" in capsys.readouterr().err
    alone = [stored(file), "trainer.teacher_cache=True", "trainer.epochs=1"]
    assert run(*alone, name="cached") == 0


def test_a_checkpoint_is_evaluated_without_it(file, capsys):
    assert run(stored(file), "trainer.epochs=1") == 0
    capsys.readouterr()
    assert run(stored(file), extra=["--eval-only", "runs/run/student.pth"], name="x") == 0
    out = capsys.readouterr().out
    assert "top1" in out
    assert "agreement" not in out


def test_what_augmentation_does_to_it_is_told(file, capsys):
    assert run(stored(file), CROPS, "trainer.epochs=1") == 0
    assert "images changed by CropFlip" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("teacher.outputs='t.safetensor'", "no file t.safetensor; did you mean 't.safetensors'"),
        ("teacher.outputs='t.pth'", "none of .npy, .npz, .safetensors"),
        ("teacher.weights='t.pth'", "from a file of outputs has no network, so no 'weights'"),
        ("teacher.trainer.epochs=1", "has no network, so no 'trainer.epochs'"),
        ("teacher.classes=['0','1']", "2 classes for the 3 columns"),
        ("teacher.classes=['class 0','class 1','x']", "1 of 3 classes are not among"),
        ("teacher.class_map={'class 3': 'x'}", "the data has no class 'class 3'"),
        ("data.num_train=25", "has 24 rows, but there are 25 training images"),
        ("data.val_fraction=0.25", "has 24 rows, but there are"),
        (f"distiller.terms.kd={AT}", "no '@stages' in a file of outputs"),
        (MIXUP, "mixes several"),
    ],
)
def test_what_does_not_fit_is_one_line(option, message, file, capsys):
    capsys.readouterr()
    assert run(stored(file), option, name="x") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    assert message in line
    assert not Path("runs/x").exists()


def test_a_file_of_other_images_is_refused(capsys):
    held_out = ["data.val_fraction=0.25", "data_seed=1"]
    assert run(*held_out, extra=["--save-outputs", "part.safetensors"]) == 0
    options = [stored("part.safetensors"), "trainer.epochs=1"]
    assert run(*options, *held_out, name="same") == 0
    assert run(*options, *held_out[:1], "data_seed=2") == 2
    assert "made from other training images" in capsys.readouterr().err


def test_a_file_in_another_order_is_refused(capsys):
    np.save("moved.npy", 9 * np.eye(3, dtype=np.float32)[np.arange(24) % 3 - 1])
    options = [stored("moved.npy"), "trainer.allow_weak_teacher=False", "trainer.epochs=1"]
    assert run(*options) == 2
    assert "are they in the order of the images" in " ".join(capsys.readouterr().err.split())


def test_a_config_of_several_teachers_has_no_file(capsys):
    node = "{'network': {'type': 'kd_cls.models.build_model', 'name': 'tiny'}, 'weights': 't.pth'}"
    options = ["teacher=None", f"teachers={{'a': {node}, 'b': {node}}}"]
    assert run(*options, extra=["--save-outputs", "x.safetensors"]) == 2
    assert "wants a config with one teacher; here are a, b" in capsys.readouterr().err


def test_the_demo_writes_no_file(capsys):
    assert train.main(["--save-outputs", "x.safetensors"]) == 2
    assert "--save-outputs" in capsys.readouterr().err


def test_training_images_come_once_each_and_as_they_are(folder):
    from kd_cls.data import synthetic
    from kd_cls.data.augment import CropFlip

    data = synthetic(num_train=7, num_test=2, num_classes=3, copies=2, augment=[CropFlip()])
    batches = list(in_order(data).epoch(0))
    assert torch.equal(torch.cat([batch["index"] for batch in batches]), torch.arange(7))
    assert torch.equal(torch.cat([batch["image"] for batch in batches]), data.train.images)
    assert data.train.copies == 2
