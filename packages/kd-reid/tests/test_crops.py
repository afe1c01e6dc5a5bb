"""Distillation on crops without identities: the demo's people as a detector's folder."""

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from kd_core.config.trusted import trusting
from kd_core.errors import UserError
from kd_core.files.artifacts import find_student
from kd_core.files.weights import read_state_dict
from kd_core.representations import effective_rank
from kd_reid import evaluate, train, unlabelled
from kd_reid.models import build_model
from kd_reid.student import facts_in, load_student
from kd_reid.synthetic.people import synthetic_people
from PIL import Image

CONFIG = """
data = dict(type="kd_reid.unlabelled.crops", root="crops", image_size=(32, 16), batch_size=8,
            held_out=0.2, workers=0)
student = dict(network=dict(type="own_crop_networks.Pair"))
teacher = dict(network=dict(type="own_crop_networks.Pair", width=6), weights="teacher.pth")
optimizer = dict(type="torch.optim.SGD", lr=0.01, momentum=0.9)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=1, loggers=[])
"""
OSNET = """
_base_ = "rkd.py"
student = dict(network=dict(_delete_=True, type="kd_reid.models.build_model", name="osnet_tiny"))
"""
PEOPLE = """
_base_ = "cosine.py"
data = dict(_delete_=True, type="kd_reid.data.market1501", root="people", image_size=(32, 16),
            batch_size=8)
"""
TERM = """
_base_ = "alone.py"
distiller = dict(terms=dict(term=dict(
    criterion=dict(type="{}"), student="{}", teacher="{}")))
"""
EMBEDDING = ("@embedding", "@embedding")
TERMS = {
    "rkd": ("kd_core.criteria.rkd.RKD", *EMBEDDING),
    "cosine": ("kd_reid.criteria.cosine.Cosine", *EMBEDDING),
    "kd": ("kd_core.criteria.kd.KD", "@logits", "@logits"),
    "crd": ("kd_core.criteria.crd.CRD", *EMBEDDING),
}


NETWORKS = """
from torch import nn

class Plain(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 2)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, images):
        return self.norm(self.conv(images)).relu().mean((2, 3))

class Pair(nn.Module):
    def __init__(self, num_classes, width=6):
        super().__init__()
        self.body, self.head = Plain(width), nn.Linear(width, num_classes)

    def forward(self, images):
        seen = self.body(images)
        return (self.head(seen), seen) if self.training else seen
"""
"""Networks of users, of which `Plain` gives an embedding alone."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Crops, labelled people, configs, and a finished run that was evaluated on these people."""
    root = tmp_path_factory.mktemp("crops")
    few = {"num_train_ids": 4, "num_test_ids": 4, "num_cameras": 2, "images_per_camera": 2}
    people = synthetic_people(root / "people", image_height=32, **few)
    for number, file in enumerate(sorted((people / "bounding_box_train").glob("*.*"))):
        place = root / "crops" / ("", "cam1", "cam2/day")[number % 3] / f"{number}{file.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    (root / "own_crop_networks.py").write_text(NETWORKS)
    (root / "alone.py").write_text(CONFIG)
    (root / "osnet.py").write_text(OSNET)
    (root / "people.py").write_text(PEOPLE)
    for name, term in TERMS.items():
        (root / f"{name}.py").write_text(TERM.format(*term))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.syspath_prepend(str(root))
        torch.manual_seed(0)
        torch.save(runpy.run_path("own_crop_networks.py")["Pair"](7).state_dict(), "teacher.pth")
        assert run("osnet", "osnet", "data.evaluate_on=people") == 0
        yield root


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def run(name, work_dir, *options):
    arguments = [f"{name}.py", "--work-dir", f"runs/{work_dir}"]
    return train.main([*arguments, *(["--cfg-options", *options] if options else [])])


def result(work_dir):
    return json.loads(Path(f"runs/{work_dir}/result.json").read_text())


def refused(capsys, name, *options):
    capsys.readouterr()
    assert run(name, "refused", *options) == 2
    lines = capsys.readouterr().err.splitlines()
    return lines[-1]


def made(root="crops", **options):
    return unlabelled.crops(str(root), **{"image_size": (32, 16), "batch_size": 4, **options})


def write(path, height=20, width=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


class TestARun:
    def test_measures_rank_1_on_labelled_people_and_embeddings_on_held_out_crops(self):
        found = result("osnet")
        assert found["metric"] == "rank1"
        assert {"rank1", "mAP", "cka", "effective_rank"} < set(found["last"])
        assert {"rank1", "mAP"} < set(found["teachers"]["teacher"])
        held = next(made(held_out=0.2).test.epoch(0))
        with torch.no_grad():
            rows = load_student("runs/osnet")(held).embedding
        assert found["last"]["effective_rank"] == pytest.approx(
            effective_rank(rows).item(), abs=1e-3
        )

    def test_exports_a_student_that_ends_in_its_embedding(self):
        file = find_student("runs/osnet")
        facts = facts_in(file)
        assert facts["features"] == 512
        assert "identities" not in facts
        assert not [name for name in read_state_dict(file) if name.startswith("classifier")]
        student = load_student(file)
        images = torch.rand(3, 3, 32, 16)
        whole = build_model("osnet_tiny", 5)
        whole.load_state_dict(read_state_dict(file), strict=False)
        with torch.no_grad():
            found = student({"image": images})
            assert torch.equal(found.embedding, whole.eval()(student.prepare(images)))
            assert found.logits == student.embed(images).logits == ()

    def test_gives_what_the_evaluation_tool_measures(self, capsys):
        assert evaluate.main(["runs/osnet", "--data", "people"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert f"{result('osnet')['last']['mAP']:.2f}" in shown

    def test_is_measured_again_from_its_file(self, capsys):
        arguments = [
            "osnet.py",
            "--work-dir",
            "runs/osnet",
            "--eval-only",
            "runs/osnet/student.safetensors",
        ]
        assert train.main([*arguments, "--cfg-options", "data.evaluate_on=people"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        for name in ("rank1", "effective_rank"):
            assert f"{name} {result('osnet')['last'][name]:.4f}" in shown

    def test_tells_cosine_and_error_of_what_predicts_the_teachers_embedding(self, capsys):
        assert run("cosine", "cosine", "evaluation.flip=True") == 0
        told = capsys.readouterr().err
        assert "evaluation has no effect: without data.evaluate_on" in told
        assert "the best epoch is that of the largest cosine" in told
        assert result("cosine")["best"]["chosen_on"] == "held-out images"
        last = result("cosine")["last"]
        assert set(last) == {"epoch", "cosine", "relative_error", "cka", "effective_rank"}
        # Of directions: the squared distance of unit vectors is 2 - 2 cosine.
        assert last["relative_error"] == pytest.approx((2 - 2 * last["cosine"]) ** 0.5, abs=1e-4)

    def test_becomes_a_teacher_and_the_start_of_a_run_with_labels(self):
        assert run("rkd", "rkd") == 0
        Path("again.py").write_text(
            "_base_ = 'people.py'\nteacher = dict(_delete_=True, config='rkd.py')\n"
        )
        options = ["student.backbone_weights=runs/rkd/student.safetensors"]
        assert run("again", "again", *options) == 0
        assert facts_in(find_student("runs/again"))["identities"] == 4


class TestWhatNeedsIdentities:
    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("kd", [], "it ends in its embedding: learn its @embedding, as rkd.py does"),
            ("crd", [], "CRD is made with labels of the training images"),
            ("alone", [], "nothing to learn"),
            (
                "rkd",
                ["student.label_smoothing=0.1"],
                "label_smoothing: is about identities",
            ),
            ("rkd", ["student.bnneck=True"], "student.bnneck: is about identities"),
            ("rkd", ["student.fixed_base_epochs=1"], "student.fixed_base_epochs: is about"),
            ("rkd", ["student.metric_losses=triplet"], "student.metric_losses: is about"),
            ("rkd", ["student.adaptation={}"], "set data.type to kd_reid.adaptation.unlabelled"),
            ("rkd", ["data.instances=4"], "instances: needs identities"),
            (
                "rkd",
                ["data.same_camera=True"],
                "same_camera: is for labelled images; set",
            ),
            ("rkd", ["data.allow_shared=True"], "allow_shared: no identities are trained on"),
            ("rkd", ["data.evaluate_on=nothing"], "evaluate_on: nothing: there is no such"),
        ],
    )
    def test_is_refused_in_one_line_before_training(self, name, options, message, capsys):
        assert message in refused(capsys, name, *options)


class TestTheFolder:
    def test_gives_batches_without_labels_of_crops_at_any_depth(self, capsys):
        splits = made(held_out=0.25)
        batch = next(splits.train.epoch(0))
        assert set(batch) - {"crop_id"} == {"image", "index"}
        assert batch["image"].shape == (4, 3, 32, 16)
        assert (splits.num_samples, len(splits.test.labels), splits.num_classes) == (12, 4, 0)
        assert "12 images to train on, 4 held out" in capsys.readouterr().err

    @pytest.mark.parametrize("resident", [True, False])
    def test_with_a_broken_crop_is_refused_by_name_or_left_out(self, tmp_path, resident, capsys):
        for number in range(6):
            write(tmp_path / f"{number}.png")
        (tmp_path / "a.jpg").write_bytes(b"no image")
        options = {"resident": resident, "workers": 0, "batch_size": 2}
        with pytest.raises(UserError, match=r"a\.jpg: cannot be decoded"):
            [list(loader.epoch(0)) for loader in made(tmp_path, **options).loaders]
        splits = made(tmp_path, skip_broken=True, **options)
        assert splits.num_samples + len(splits.test.labels) == 6
        assert "left out 1 broken images" in capsys.readouterr().err

    def test_with_small_crops_is_told_or_they_are_left_out(self, tmp_path, capsys):
        for number in range(6):
            write(tmp_path / f"{number}.png")
        write(tmp_path / "small.png", 3, 20)
        assert made(tmp_path, batch_size=2).num_samples == 4
        told = capsys.readouterr().err
        assert "1 of 7 crops are smaller than 4 x 2 pixels" in told
        assert "data.min_size=[4,2] leaves them out" in told
        assert made(tmp_path, batch_size=2, min_size=(20, 10)).num_samples == 3
        assert "small.png; they are left out" in capsys.readouterr().err
        with pytest.raises(UserError, match="all 7 crops are smaller than 50 x 1"):
            made(tmp_path, min_size=(50, 1))

    def test_that_is_missing_empty_or_has_too_few_crops_is_refused(self, tmp_path):
        with pytest.raises(UserError, match="there is no folder 'crop'"):
            made(tmp_path / "crop")
        with pytest.raises(UserError, match="no image in this folder"):
            made(tmp_path)
        write(tmp_path / "one.png")
        with pytest.raises(UserError, match="1 images are too few"):
            made(tmp_path)
        with pytest.raises(UserError, match="batch_size 64: no batch can be made of 13 samples"):
            made(batch_size=64)

    def test_that_has_images_of_the_labelled_set_is_told(self, folder, tmp_path, capsys):
        shutil.copytree("crops", tmp_path / "crops")
        made(tmp_path / "crops", evaluate_on="people")
        assert "evaluate_on" not in capsys.readouterr().err
        for file in sorted(Path("people/query").iterdir())[:2]:
            shutil.copy(file, tmp_path / "crops")
        made(tmp_path / "crops", evaluate_on="people")
        assert "query and gallery images (" in (told := capsys.readouterr().err), told
        assert "evaluate_on: 2 of its" in told


class TestAStudentOfFeaturesAlone:
    @pytest.fixture(autouse=True)
    def configs(self):
        for name in ("cosine", "people"):
            Path(f"{name}_plain.py").write_text(
                f"_base_ = '{name}.py'\n"
                "student = dict(network=dict(_delete_=True, type='own_crop_networks.Plain'))\n"
            )

    def test_learns_from_crops(self):
        assert run("cosine_plain", "plain") == 0
        file = find_student("runs/plain")
        assert facts_in(file)["embedding"] == "output"
        with trusting("own_crop_networks.Plain"):
            assert load_student(file)({"image": torch.rand(2, 3, 32, 16)}).embedding.shape == (2, 6)

    def test_learns_from_people_if_only_the_teacher_counts(self, capsys):
        message = refused(capsys, "people_plain")
        assert "student: Plain gives no logits of identities, so it has no loss" in message
        assert "distiller.task_weight=0" in message
        assert run("people_plain", "people_plain", "distiller.task_weight=0") == 0
        assert "rank1" in result("people_plain")["last"]
