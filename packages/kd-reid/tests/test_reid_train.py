"""The training tool on few small images of people: what it does and what it leaves."""

import csv
import json
import re
import shutil
from contextlib import chdir
from pathlib import Path

import pytest
import torch
from kd_core.files.weights import read_state_dict
from kd_core.networks.latency import Plan, measure
from kd_reid import compare, evaluate, torchreid, train
from kd_reid.adapter import ADAPTER
from kd_reid.models import build_model
from kd_reid.student import load_student
from kd_reid.synthetic.people import synthetic_people
from kd_reid.weights import identities_in

ALONE = """
data = dict(type="kd_reid.data.market1501", root="set", image_size=(32, 16), batch_size=8)
student = dict(network=dict(type="kd_reid.models.build_model", name="osnet_tiny"))
optimizer = dict(type="torch.optim.Adam", lr=0.001)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=2, loggers=[])
"""
TRICKS = """
_base_ = "alone.py"
data = dict(instances=4, augment=[dict(type="kd_reid.data.augment.RandomErasing")])
student = dict(
    bnneck=True,
    label_smoothing=0.1,
    metric_losses=dict(triplet=dict(type="kd_reid.losses.BatchHardTriplet")),
)
evaluation = dict(distance="cosine", reranking=True)
"""
DISTILLED = """
_base_ = "alone.py"
teacher = dict(config="tricks.py")
distiller = dict(
    terms=dict(
        kd=dict(
            criterion=dict(type="kd_core.criteria.kd.KD"), student="@logits", teacher="@logits"
        ),
        rkd=dict(
            criterion=dict(type="kd_core.criteria.rkd.RKD"),
            student="@embedding",
            teacher="@embedding",
        ),
    ),
)
"""
FIXED = """
_base_ = "alone.py"
student = dict(fixed_base_epochs=1)
trainer = dict(keep_every=1)
"""
CONFIGS = {"alone": ALONE, "tricks": TRICKS, "distilled": DISTILLED, "fixed": FIXED}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    few = {"num_train_ids": 5, "num_test_ids": 4, "num_cameras": 2, "images_per_camera": 2}
    return synthetic_people(tmp_path_factory.mktemp("people") / "set", image_height=32, **few)


def furnish(folder, people):
    """Put the configs and the images into a folder."""
    for name, text in CONFIGS.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "set").symlink_to(people)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, people):
    """Work in a folder with the configs and the images."""
    furnish(tmp_path, people)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, people):
    """Train what several tests look at, once: one epoch with tricks, whole runs, two seeds."""
    folder = tmp_path_factory.mktemp("trained")
    furnish(folder, people)
    one, both = ["trainer.epochs=1"], ["trainer.epochs=2", "trainer.keep_every=1"]
    with chdir(folder):
        assert train.main(["tricks.py", "--cfg-options", *one]) == 0
        for name in ("tricks", "fixed"):
            place = ["--work-dir", f"runs/{name}-whole"]
            assert train.main([f"{name}.py", *place, "--cfg-options", *both]) == 0
        seeds = ["--seeds", "0", "1", "--work-dir", "runs/seeds"]
        assert train.main(["alone.py", *seeds, "--cfg-options", *one]) == 0
    return folder / "runs"


@pytest.fixture
def copied(trained, folder):
    """Return a function that copies a trained run into the folder; returns its path."""
    return lambda name: shutil.copytree(trained / name, folder / "runs" / name)


def read(path):
    return json.loads(Path(path).read_text())


def plain_network(identities=5):
    return torchreid.models.build_model(
        "osnet_tiny", identities, loss="softmax", pretrained=False, use_gpu=False
    )


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_a_run_ends_with_ranks_and_a_student_that_plain_torchreid_loads(capsys):
    assert train.main(["alone.py"]) == 0
    result = read("runs/alone/result.json")
    assert result["metric"] == "rank1"
    assert {"rank1", "rank5", "rank10", "rank20", "mAP", "mAP_trapezoid"} <= result["last"].keys()
    network = plain_network()
    network.load_state_dict(torch.load("runs/alone/student.pth", weights_only=True))
    assert same(network.state_dict(), read_state_dict("runs/alone/student.safetensors"))
    assert not Path("runs/alone/neck.pth").exists()
    assert "rank1" in capsys.readouterr().out


def test_the_tricks_are_trained_and_measured(trained):
    run = trained / "tricks-whole"
    record = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert {"loss_id", "loss_triplet", "reranked_rank1", "reranked_mAP"} <= record.keys()
    plain_network().load_state_dict(torch.load(run / "student.pth", weights_only=True))
    assert (run / "neck.pth").is_file()


def test_a_comparison_has_ranks_in_percent_and_the_latency_of_its_students(monkeypatch):
    few = Plan(batch_sizes=(1,), repeats=1)
    place = "kd_core.experiment.tables.students.measure"
    monkeypatch.setattr(place, lambda timed, plan: measure(timed, few))
    sweep = ["alone.py", "--sweep", "optimizer.lr", "0.001", "--seeds", "0", "--latency"]
    assert compare.main([*sweep, "--cfg-options", "trainer.epochs=1"]) == 0
    (head, row) = csv.reader(Path("runs/alone-table/table.csv").read_text().splitlines())
    cells = dict(zip(head, row, strict=True))
    (result,) = read("runs/alone-table/table.json")["optimizer.lr = 0.001"]
    assert float(cells["rank-1 %, last: mean"]) == result["last"]["rank1"]
    assert float(cells["PyTorch, batch 1: p50, ms"]) > 0
    assert Path("runs/alone-table/curves.png").is_file()


class TestCheckpoints:
    @pytest.mark.parametrize("file", ["last.pth", "best.pth", "student.pth", "student.safetensors"])
    def test_every_file_of_a_run_can_be_evaluated(self, file, copied, capsys):
        last = read(copied("tricks") / "result.json")["last"]
        capsys.readouterr()
        assert train.main(["tricks.py", "--eval-only", f"runs/tricks/{file}"]) == 0
        shown = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.strip())
        assert float(shown["mAP"]) == pytest.approx(last["mAP"], abs=1e-3)
        assert float(shown["reranked_mAP"]) == pytest.approx(last["reranked_mAP"], abs=1e-3)

    @pytest.mark.parametrize(
        ("config", "file"),
        [
            ("tricks", "last.pth"),
            ("tricks", "student.pth"),
            ("fixed-whole", "student.safetensors"),
        ],
    )
    def test_a_run_is_evaluated_on_data_of_other_training_people(
        self, config, file, copied, capsys
    ):
        folder = copied(config)
        last = read(folder / "result.json")["last"]
        Path("fewer/bounding_box_train").mkdir(parents=True)
        for name in ("query", "bounding_box_test"):
            Path("fewer", name).symlink_to(Path("set", name).resolve())
        for image in Path("set/bounding_box_train").iterdir():
            if not image.name.startswith("0001"):
                Path("fewer/bounding_box_train", image.name).symlink_to(image.resolve())
        capsys.readouterr()
        line = [f"{config.split('-')[0]}.py", "--eval-only", f"{folder}/{file}"]
        assert train.main([*line, "--cfg-options", "data.root=fewer"]) == 0
        said = capsys.readouterr()
        assert "trained on 5 people, the data has 4" in said.err
        found = dict(line.split() for line in said.out.splitlines() if line.strip())
        assert float(found["mAP"]) == pytest.approx(last["mAP"], abs=1e-3)

    @pytest.mark.parametrize("file", ["", "last.pth", "student.pth"])
    def test_a_run_is_measured_as_it_measured_itself(self, file, copied):
        folder = copied("tricks")
        last = read(folder / "result.json")["last"]
        assert evaluate.main([str(folder / file), "--data", "set", "--out", "out.json"]) == 0
        found = read("out.json")
        assert found["evaluation"]["distance"] == "cosine"  # its config's
        assert found["sets"]["set"]["metrics"].items() <= last.items()

    @pytest.mark.parametrize("file", ["best.pth", "student.pth"])
    def test_every_file_of_a_run_with_a_neck_is_a_teacher_s(self, file, copied, capsys):
        taught = read(copied("tricks") / "result.json")["last"]["mAP"]
        options = [f"teacher.weights=runs/tricks/{file}", "trainer.epochs=1"]
        same_data = ["data.instances=4", "evaluation.distance=cosine"]
        assert train.main(["distilled.py", "--cfg-options", *options, *same_data]) == 0
        found = read("runs/distilled/result.json")["teachers"]["teacher"]["mAP"]
        assert found == pytest.approx(taught, abs=1e-3)

    def test_a_neck_of_other_people_is_refused(self, copied, capsys):
        copied("tricks")
        neck = torch.load("runs/tricks/neck.pth", weights_only=True)
        neck["linear.weight"] = torch.zeros(9, 512)
        torch.save(neck, "runs/tricks/neck.pth")
        assert train.main(["tricks.py", "--eval-only", "runs/tricks/student.pth"]) == 2
        assert "classifier.linear.weight is [9, 512] in the file" in capsys.readouterr().err

    def test_evaluating_a_file_downloads_nothing(self, monkeypatch):
        torch.save(plain_network().state_dict(), "plain.pth")
        build, asked = torchreid.models.build_model, []

        def without_download(*args, pretrained, **options):
            asked.append(pretrained)
            return build(*args, pretrained=False, **options)

        monkeypatch.setattr(torchreid.models, "build_model", without_download)
        options = ["--cfg-options", "student.network.pretrained=True"]
        assert train.main(["alone.py", "--eval-only", "plain.pth", *options]) == 0
        assert asked == [False]

    def test_plain_weights_need_the_neck_beside_them(self, copied, capsys):
        (copied("tricks") / "neck.pth").unlink()
        assert train.main(["tricks.py", "--eval-only", "runs/tricks/student.pth"]) == 2
        assert "neck.pth" in capsys.readouterr().err

    def test_a_finished_student_is_rebuilt_from_its_folder(self, trained):
        embedder = load_student(trained / "tricks-whole")
        images = torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8)
        found = embedder({"image": images})
        assert found.embedding.shape == (2, 512)
        assert not torch.equal(found.embedding, found.features[0])  # the neck is there


@pytest.mark.parametrize("name", ["tricks", "fixed"])
def test_a_resumed_run_ends_as_if_it_had_not_stopped(name, trained, capsys):
    options = ["--cfg-options", "trainer.epochs=2", "trainer.keep_every=1"]
    whole = trained / f"{name}-whole"
    Path("runs/stopped").mkdir(parents=True)
    shutil.copy(whole / "epoch_0001.pth", "runs/stopped/last.pth")
    shutil.copy(whole / "config.json", "runs/stopped/config.json")
    assert train.main([f"{name}.py", *options, "--work-dir", "runs/stopped", "--resume"]) == 0
    assert "after 1 epochs" in capsys.readouterr().err
    for file in ("student.pth", "last.pth"):
        runs = (whole, Path("runs/stopped"))
        ends = [torch.load(run / file, weights_only=True) for run in runs]
        states = [end.get("distiller", end) for end in ends]
        assert same(*states)


def test_the_base_is_fixed_for_its_epochs_only(trained):
    files = [trained / f"fixed-whole/epoch_000{number}.pth" for number in (1, 2)]
    start, end = (torch.load(file, weights_only=True)["distiller"] for file in files)
    changed = {k for k in start if not torch.equal(start[k], end[k])}
    assert "student.network.conv1.conv.weight" in changed
    config = ["fixed.py", "--cfg-options", "trainer.epochs=1", "optimizer.lr=0"]
    assert train.main([*config, "--work-dir", "runs/still"]) == 0
    still = torch.load("runs/still/last.pth", weights_only=True)["distiller"]
    body = [k for k in start if k.startswith("student.network.") and "classifier" not in k]
    assert all(torch.equal(start[k], still[k]) for k in body)
    assert not torch.equal(*(s["student.network.classifier.weight"] for s in (start, still)))


class TestDistillation:
    def test_the_teacher_is_trained_by_its_recipe_first_and_measured(self, capsys):
        assert train.main(["distilled.py"]) == 0
        captured = capsys.readouterr()
        assert "teacher 'teacher': rank1" in captured.err
        (made,) = Path("runs/teachers").iterdir()
        assert (made / "neck.pth").is_file()
        record = json.loads(Path("runs/distilled/log.jsonl").read_text().splitlines()[-1])
        assert {"loss_id", "loss_kd", "loss_rkd"} <= record.keys()
        assert read("runs/distilled/result.json")["teachers"]["teacher"]["mAP"] > 0

    def test_a_run_of_another_config_is_neither_resumed_nor_summarised(self, copied, capsys):
        copied("seeds")
        arguments = ["alone.py", "--seeds", "0", "1", "--work-dir", "runs/seeds", "--resume"]
        epochs = ["--cfg-options", "trainer.epochs=1"]
        assert train.main([*arguments, *epochs, "evaluation.distance=cosine"]) == 2
        assert "evaluation.distance is not set there and 'cosine'" in capsys.readouterr().err
        assert train.main([*arguments, *epochs, "data.image_size=[64,16]"]) == 2
        assert "data.image_size.0 is" in capsys.readouterr().err
        assert train.main([*arguments, "--cfg-options", "trainer.epochs=2"]) == 0
        assert read("runs/seeds/seed-1/result.json")["epochs"] == 2

    def test_seeds_are_summarised(self, trained):
        summary = read(trained / "seeds/summary.json")
        assert summary["last"]["rank1"]["n"] == 2
        assert {"mean", "sd"} <= summary["last"]["mAP"].keys()

    def test_a_teacher_of_other_people_teaches_by_embeddings_only(self, capsys):
        node = "teacher = dict(weights='random', network=dict("
        node += "type='kd_reid.models.build_model', name='osnet_tiny', num_classes=9))"
        both = DISTILLED.replace('teacher = dict(config="tricks.py")', node)
        Path("both.py").write_text(both)
        assert train.main(["both.py", "--cfg-options", "trainer.epochs=1"]) == 2
        assert "term 'kd'" in capsys.readouterr().err
        kd = both[both.index("        kd=dict(") : both.index("        rkd=dict(")]
        Path("relational.py").write_text(both.replace(kd, ""))
        assert train.main(["relational.py", "--cfg-options", "trainer.epochs=1"]) == 0
        assert read("runs/relational/result.json")["teachers"]["teacher"]["rank1"] >= 0

    def test_how_many_people_a_teacher_knows_is_in_its_file(self, capsys):
        torch.save(plain_network(identities=9).state_dict(), "other.pth")
        options = ["--cfg-options", "teacher.weights=other.pth", "trainer.epochs=1"]
        plain = DISTILLED.replace("tricks.py", "alone.py")
        kd = plain[plain.index("        kd=dict(") : plain.index("        rkd=dict(")]
        Path("plain.py").write_text(plain.replace(kd, ""))
        assert train.main(["plain.py", *options]) == 0
        assert not Path("runs/teachers").exists()
        assert train.main(["alone.py", "--cfg-options", "student.weights=other.pth"]) == 2
        assert "backbone_weights" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["hacnn", "pcb_p4", "osnet_x0_25"])
    def test_so_it_is_for_networks_with_several_heads(self, name):
        torch.save(build_model(name, 9).state_dict(), "other.pth")
        assert identities_in("other.pth") == 9

    def test_a_recipe_for_other_people_is_refused_before_it_is_run(self, capsys):
        people = "data = dict(_delete_=True, type='kd_reid.data.synthetic', num_ids=9, "
        text = f"_base_ = 'alone.py'\n{people}image_size=(32, 16), batch_size=8)\n"
        Path("others.py").write_text(text)
        Path("mixed.py").write_text(DISTILLED.replace("tricks.py", "others.py"))
        assert train.main(["mixed.py"]) == 2
        assert "5 classes, teacher 9" in capsys.readouterr().err
        assert not Path("runs/teachers").exists()

    def test_a_student_that_is_not_trained_stays_as_it_is(self):
        stage = "train_student=False, terms=dict(fit=dict(student='@map', teacher='@map', "
        stage += "criterion=dict(type='kd_core.criteria.fitnet.FitNet'))))"
        node = "dict(weights='random', network=dict(type='kd_reid.models.build_model', "
        node += "name='osnet_tiny'))"
        text = f"_base_ = 'fixed.py'\nteacher = {node}\ndistiller = dict({stage}\n"
        Path("criteria.py").write_text(text)
        assert train.main(["criteria.py"]) == 0
        state = torch.load("runs/criteria/student.pth", weights_only=True)
        assert all(not v for k, v in state.items() if k.endswith("num_batches_tracked"))


def test_a_loss_of_pytorch_metric_learning_is_named_by_its_path():
    pytest.importorskip("pytorch_metric_learning")
    node = "dict(type='pytorch_metric_learning.losses.CircleLoss', gamma=64)"
    student = f"student = dict(metric_losses=dict(circle={node}))"
    Path("circle.py").write_text(f"_base_ = 'alone.py'\ndata = dict(instances=4)\n{student}\n")
    assert train.main(["circle.py", "--cfg-options", "trainer.epochs=1"]) == 0
    assert json.loads(Path("runs/circle/log.jsonl").read_text())["loss_circle"] > 0


def test_two_networks_teach_one_another():
    Path("mutual.py").write_text("_base_ = 'alone.py'\npeers = dict(peer=dict())\n")
    assert train.main(["mutual.py", "--cfg-options", "trainer.epochs=1"]) == 0
    record = json.loads(Path("runs/mutual/log.jsonl").read_text())
    assert {"loss_id", "loss_id_peer", "loss_dml", "loss_dml_peer"} <= record.keys()
    assert read("runs/mutual/result.json")["peers"]["peer"]["rank1"] >= 0


def test_what_the_readme_does_with_a_run_works(copied):
    readme = Path(__file__).parents[1] / "README.md"
    text = readme.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    copied("tricks").rename("runs/NAME")
    for block in blocks:
        scope = {"images": torch.zeros(2, 3, 32, 16, dtype=torch.uint8)}
        exec(block.replace("751", "5").replace("osnet_x0_25", "osnet_tiny"), scope)
        assert "mean_ap" in scope or "network" in scope or scope["embeddings"].shape == (2, 512)


class TestMistakes:
    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("evaluation.distanc=cosine", "'distanc'"),
            ("evaluation.distance=manhattan", "'euclidean' or 'cosine', got 'manhattan'"),
            ("student.bnnec=True", "did you mean 'bnneck'"),
            ("student.network.name=osnet", "no network 'osnet'"),
            ("data.root=nowhere", "nowhere"),
            ("data.instances=3", "instances=3 must divide batch_size=8"),
            ("student.network.colour=7", "'colour'"),
            ("student.network.num_classes=7", "the data has 5 identities"),
            ("student.metric_losses=[{'type': 'torch.nn.Identity'}]", "a dict of nodes by name"),
        ],
    )
    def test_it_is_told_in_one_line(self, option, message, capsys):
        assert train.main(["alone.py", "--cfg-options", option]) == 2
        shown = capsys.readouterr().err
        assert message in shown
        assert shown.count("\n") == 1
        assert not Path("runs").exists()

    def test_backbone_weights_are_everything_but_the_classifier(self, capsys):
        network = plain_network(identities=1000)
        torch.save(network.state_dict(), "imagenet.pth")
        options = ["student.backbone_weights=imagenet.pth", "trainer.epochs=1", "optimizer.lr=0"]
        assert train.main(["alone.py", "--cfg-options", *options]) == 0
        student = read_state_dict("runs/alone/student.pth")
        assert torch.equal(student["conv1.conv.weight"], network.conv1.conv.weight)
        assert student["classifier.weight"].shape[0] == 5
        other = torchreid.models.build_model("osnet_x0_5", 9, pretrained=False, use_gpu=False)
        torch.save(other.state_dict(), "imagenet.pth")
        assert train.main(["alone.py", "--cfg-options", *options]) == 2
        assert "imagenet.pth: does not fit OSNet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "shown"), [("--dry-run", "step done"), ("--list-taps", "conv5")]
)
def test_it_can_be_looked_at(option, shown, capsys):
    assert train.main(["distilled.py", option]) == 0
    assert shown in capsys.readouterr().out
    assert not Path("runs").exists()


def test_a_teacher_keeps_what_it_was_trained_with_unless_its_node_says_otherwise(trained):
    run = trained / "tricks"
    kept = ADAPTER.load_finished(run, {})
    changed = ADAPTER.load_finished(run, {"size": [64, 32], "roles": {"own": "conv1"}})
    assert tuple(kept.size) == (32, 16)
    assert tuple(changed.size) == (64, 32)
    assert changed.roles["own"] == "conv1"
    assert changed.roles["logits"] == kept.roles["logits"] == ("classifier",)
