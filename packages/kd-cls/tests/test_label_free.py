"""Training without labels: in this process, on tiny images."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from kd_cls import export, predict, train
from kd_cls.data import image_folder, unlabelled
from kd_cls.feature_network import FeatureNetwork
from kd_cls.models import build_model
from kd_cls.networks import build_classifier
from kd_cls.probes import knn_accuracy
from kd_cls.student import load_student, read_facts
from kd_core.distill.label_free import of_teachers
from kd_core.files.weights import read_state_dict
from kd_core.representations import effective_rank
from PIL import Image

CONFIG = """
data = dict(type="kd_cls.data.unlabelled", root="photos", image_size=8, batch_size=8,
            held_out=0.25)
student = dict(network=dict(type="kd_cls.models.build_model", name="tiny"))
teacher = dict(network=dict(type="kd_cls.models.build_model", name="tiny"), weights="random")
optimizer = dict(type="torch.optim.SGD", lr=0.01, momentum=0.9)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=2, loggers=[])
"""
TERMS = """
_base_ = "alone.py"
distiller = dict(task_weight=0.5, terms=dict(term=dict({})))
"""
CRITERIA = {
    "pkt": "criterion=dict(type='kd_core.criteria.pkt.PKT'), student='@pooled', teacher='@pooled'",
    "fitnet": "criterion=dict(type='kd_core.criteria.fitnet.FitNet'), "
    "student='@stages[-1]', teacher='@stages[-1]'",
    "kd": "criterion=dict(type='kd_core.criteria.kd.KD')",
    "crd": "criterion=dict(type='kd_core.criteria.crd.CRD'), student='@pooled', teacher='@pooled'",
    "ctkd": "criterion=dict(type='kd_core.criteria.dkd.DKD')",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos, a labelled folder, configs, and a finished run of features, evaluated on labels."""
    root = tmp_path_factory.mktemp("label_free")
    places = [f"photos/{'a/' * (number % 3)}{number}.png" for number in range(24)]
    for part in ("train", "test"):
        places += [f"labelled/{part}/{name}/{n}.png" for name in ("cat", "dog") for n in range(4)]
    for seed, place in enumerate(places):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (10, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / place)
    (root / "alone.py").write_text(CONFIG)
    for name, criterion in CRITERIA.items():
        (root / f"{name}.py").write_text(TERMS.format(criterion))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        options = ["data.evaluate_on=labelled", "data.shots=[1]"]
        assert train.main(["pkt.py", "--work-dir", "runs/pkt", "--cfg-options", *options]) == 0
    return root


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
    return capsys.readouterr().err.splitlines()[-1]


def test_a_folder_of_images_gives_a_student_whose_file_says_that_it_ends_in_features():
    facts = read_facts(file := Path("runs/pkt/student.safetensors"))
    assert facts["features"] == 32
    assert "classes" not in facts
    assert facts["network"]["type"] == "kd_core.criteria.headless.without_head"
    student = load_student(file)
    assert isinstance(student, FeatureNetwork)
    images = torch.rand(3, 3, 8, 8)
    whole = build_model("tiny", num_classes=5)
    whole.load_state_dict(read_state_dict(file), strict=False)
    whole.eval()
    whole.fc = torch.nn.Identity()
    with torch.no_grad():
        assert torch.allclose(student({"image": images}), whole(student.prepare(images)), atol=1e-6)
    assert not [name for name in read_state_dict(file) if name.startswith("fc.")]


def test_probes_choose_the_best_epoch_where_there_are_labelled_images():
    found = result("pkt")
    assert found["metric"] == "knn"
    assert found["best"]["chosen_on"] == "test data"
    wanted = {"epoch", "knn", "linear", "linear_1_shots", "cka", "effective_rank"}
    assert set(found["last"]) == wanted
    assert set(found["teachers"]["teacher"]) == {"knn", "linear", "linear_1_shots"}
    data = image_folder("labelled", image_size=8, augment=[])
    student = load_student("runs/pkt")

    def features(loader):
        loader.shuffle = False
        batches = list(loader.epoch(0))
        rows = torch.cat([student(batch) for batch in batches]).detach()
        return rows, torch.cat([batch["label"] for batch in batches])

    expected = 100 * knn_accuracy(features(data.train), features(data.test)).item()
    assert found["last"]["knn"] == pytest.approx(expected, abs=1e-3)


def test_a_run_without_labels_resumes_and_is_measured_again(capsys):
    arguments = ["pkt.py", "--work-dir", "runs/pkt"]
    options = ["--cfg-options", "data.evaluate_on=labelled", "data.shots=[1]"]
    assert train.main([*arguments, "--resume", *options]) == 0
    file = "runs/pkt/student.safetensors"
    assert train.main([*arguments, "--eval-only", file, *options]) == 0
    out = capsys.readouterr().out
    for name, value in result("pkt")["last"].items():
        if name != "epoch":
            assert f"{name} {value:.4f}" in " ".join(out.split())


def test_predicted_teacher_features_give_cosine_and_relative_error(capsys):
    options = ["trainer.ema=0.5", "trainer.epochs=3"]
    assert run("fitnet", "fitnet", *options) == 0
    found = result("fitnet")
    assert found["metric"] == "cosine"
    assert found["best"]["chosen_on"] == "held-out images"
    said = " ".join((shown := capsys.readouterr()).err.split())
    assert "the best epoch is that of the largest cosine" in said
    assert "its weights are random, so a score against it says nothing" in said
    assert "best on held-out images" in shown.out
    assert -1 <= found["last"]["cosine"] <= 1
    assert found["last"]["relative_error"] > 0
    assert {"cka", "effective_rank"} < set(found["last"])


def test_the_mean_and_each_teacher_are_told_where_there_are_several():
    assert of_teachers("cosine", {"a": 0.5}) == {"cosine": 0.5}
    wanted = {"cosine": 0.25, "cosine_a": 0.5, "cosine_b": 0.0}
    assert of_teachers("cosine", {"a": 0.5, "b": 0.0}) == wanted
    Path("two.py").write_text("""
_base_ = "alone.py"
hint = dict(type="kd_core.criteria.fitnet.FitNet")
taps = dict(student="@stages[-1]", teacher="@stages[-1]")
node = dict(network=dict(type="kd_cls.models.build_model", name="tiny"), weights="random")
teacher = None
teachers = dict(a=node, b=node)
distiller = dict(terms={name: dict(criterion=hint, source=name, **taps) for name in "ab"})
del hint, taps, node
""")
    assert run("two", "two") == 0
    last = result("two")["last"]
    assert last["cosine"] == pytest.approx((last["cosine_a"] + last["cosine_b"]) / 2, abs=1e-5)
    assert {"cka_a", "cka_b", "relative_error_a"} < set(last)


def test_logits_are_learned_where_the_data_names_their_classes(capsys):
    assert run("kd", "kd", "data.classes=['cat','dog','owl']") == 0
    found = result("kd")
    assert found["metric"] == "agreement"
    assert 0 <= found["last"]["agreement"] <= 100
    assert read_facts(Path("runs/kd/student.safetensors"))["classes"] == ["cat", "dog", "owl"]
    capsys.readouterr()
    assert predict.main(["runs/kd", "photos/0.png"]) == 0
    assert "owl" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("kd", [], "ends in features. To learn the logits of a teacher, name their classes: data"),
        ("alone", [], "nothing to learn"),
        ("crd", [], "CRD is made with labels of the training images"),
        ("ctkd", ["data.classes=4"], "DKD reads 'label', which the batch lacks"),
        ("pkt", ["data.classes=4"], "classifier would stay untrained"),
        ("pkt", ["student.label_smoothing=0.1"], "student.label_smoothing: is about labels"),
        ("pkt", ["student.class_weights=balanced"], "student.class_weights: is about labels"),
        ("pkt", ["student.task_views=1"], "student.task_views: is about labels"),
        ("pkt", ["student.new_head=True"], "student.new_head: is about labels"),
        ("kd", ["data.classes=4", "student.label_smoothing=0.1"], "label_smoothing: is about"),
    ],
)
def test_what_needs_labels_is_refused_by_name_before_training(name, options, message, capsys):
    assert message in refused(capsys, name, *options)


def test_a_student_of_features_predicts_no_classes_and_is_exported_as_features(capsys):
    assert predict.main(["runs/pkt", "photos/0.png"]) == 2
    assert "ends in 32 features and has no classes" in capsys.readouterr().err
    assert export.main(["runs/pkt", "--format", "onnx", "--no-latency"]) == 0
    (output,) = onnx.load_model("runs/pkt/student.onnx").graph.output
    assert output.name == "features"


def test_a_head_is_trained_on_the_features_of_a_finished_student():
    data = image_folder("labelled", image_size=8)
    node = {"type": build_model, "name": "tiny"}
    file = "runs/pkt/student.safetensors"
    trained = read_state_dict(file)
    for how in ("new_head", "linear_probe"):
        made = build_classifier(data, "student", network=node, weights=file, **{how: True})
        state = made.network.state_dict()
        assert all(torch.equal(state[name], value) for name, value in trained.items())
        assert made.network.fc.out_features == 2


def test_the_dry_run_of_unlabelled_data_takes_a_step(capsys):
    assert train.main(["pkt.py", "--dry-run"]) == 0
    assert "one training step done" in capsys.readouterr().out
    assert train.main(["pkt.py", "--list-taps"]) == 0


def test_seeds_are_summarised_and_mixed_images_need_no_labels(capsys, folder):
    (folder / "mixed.py").write_text(
        "_base_ = 'pkt.py'\ndata = dict(augment=[dict(type='kd_core.data.mix.Mixup')])\n"
    )
    arguments = ["mixed.py", "--work-dir", "runs/mixed", "--seeds", "0", "1"]
    assert train.main([*arguments, "--cfg-options", "trainer.epochs=1"]) == 0
    summary = json.loads(Path("runs/mixed/summary.json").read_text())
    assert summary["metric"] == "cka"
    assert summary["last"]["effective_rank"]["n"] == 2


def test_the_effective_rank_is_that_of_the_exported_features_on_held_out_images():
    held = next(unlabelled("photos", image_size=8, held_out=0.25).test.epoch(0))
    features = load_student("runs/pkt")(held).detach()
    expected = effective_rank(features).item()
    assert result("pkt")["last"]["effective_rank"] == pytest.approx(expected, abs=1e-3)
