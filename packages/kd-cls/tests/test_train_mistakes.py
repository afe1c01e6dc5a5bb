"""A user's mistake costs one line with the nearest valid name, and no training."""

import json
import re

import pytest
from kd_cls import train

DKD = """
data = dict(type="kd_cls.data.synthetic", num_classes=3, image_size=8)
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"))
teacher = dict(network=dict(type="kd_cls.models.build_model", name="resnet14"), weights="random")
distiller = dict(terms=dict(dkd=dict(criterion=dict(type="kd_core.criteria.dkd.DKD"))))
optimizer = dict(type="torch.optim.SGD", lr=0.05)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=1, loggers=[])
"""
IMAGES = """
_base_ = "dkd.py"
data = dict(_delete_=True, type="kd_cls.data.image_folder", root="images", image_size=32)
"""
MISSPELT = """
_base_ = "dkd.py"
optimiser = dict(lr=1)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in a folder with the configs and an empty folder of images."""
    for name, text in {"dkd": DKD, "images": IMAGES, "misspelt": MISSPELT}.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("config", "option", "message"),
    [
        ("dkd", "trainer.epoch=3", "trainer: .*'epoch'; did you mean 'epochs'"),
        ("dkd", "trianer.epochs=3", "no 'trianer'; did you mean 'trainer'"),
        ("dkd", "trainer.epochs", "option 'trainer.epochs': wanted KEY=VALUE"),
        ("dkd", "trainer.precision=bf61", "'bf61'; did you mean 'bf16'"),
        ("dkd", "student.network.name=resnet9", "student.network: .*resnet9.*'resnet8'"),
        ("dkd", "student.network.type=kd_cls.models.bild_model", "did you mean 'build_model'"),
        ("dkd", "teacher.weights=dkd.pt", "teacher: .*'dkd.pt'; did you mean 'dkd.py'"),
        ("dkd", "teacher.network.num_classes=5", "student has 3 classes, teacher 5"),
        ("dkd", "distiller.terms.dkd.student=layer9", "dkd.student: .*'layer9'.*'layer2'"),
        ("dkd", "distiller.terms.dkd.teacher=fcc", "dkd.teacher: .*'fcc'; did you mean 'fc'"),
        (
            "dkd",
            "distiller.terms.dkd.criterion.temperature=0",
            "dkd.criterion.temperature: wanted a number greater than 0",
        ),
        ("dkd", "student.network={'type':'torch.nn.Identity','_delete_':True}", "Identity"),
        (
            "dkd",
            "teacher.network={'type':'torchvision.models.vit_b_16','_delete_':True}",
            r"teacher: VisionTransformer failed in a first pass, .*\[2, 3, 8, 8\].*set size=224",
        ),
        ("images", "data.root=imges", "no folder 'imges' .*; did you mean 'images'"),
        ("images", "seed=0", "data: .*'train'"),
        ("misspelt", "seed=0", "misspelt.py: unknown name 'optimiser'; did you mean 'optimizer'"),
        ("dkkd", "seed=0", "no config file dkkd.py; did you mean 'dkd.py'"),
    ],
)
def test_a_mistake_costs_one_line(config, option, message, folder, capsys):
    assert train.main([f"{config}.py", "--cfg-options", option]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line), line
    assert not (folder / "runs").exists()


def test_a_student_that_is_not_trained_has_no_early_stop(capsys):
    options = ["distiller.train_student=False", "trainer.early_stop={'patience': 1}"]
    assert train.main(["dkd.py", "--cfg-options", *options]) == 2
    assert "student is not trained here" in capsys.readouterr().err


def test_a_traceback_is_for_debugging(capsys):
    assert train.main(["dkkd.py", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_misspelt_option_of_the_tool_names_its_neighbour(capsys):
    assert train.main(["dkd.py", "--sedes", "1"]) == 2
    assert "did you mean '--seeds'" in capsys.readouterr().err


NETS = """
from torch import nn

def one_vector(num_classes):
    pooled = (nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4))
    return nn.Sequential(*pooled, nn.Linear(4, num_classes))
"""
SINGLE = """
_base_ = "dkd.py"
data = dict(num_train=7, num_test=3, batch_size=3)
student = dict(network=dict(_delete_=True, type="tiny_net_of_one_vector.one_vector"))
"""


def steps(run):
    return json.loads((run / "log.jsonl").read_text())["step"]


class TestLastBatchOfOneImage:
    @pytest.fixture(autouse=True)
    def config(self, folder, monkeypatch):
        monkeypatch.syspath_prepend(folder)
        (folder / "tiny_net_of_one_vector.py").write_text(NETS)
        (folder / "single.py").write_text(SINGLE)

    def test_one_that_batchnorm_cannot_average_is_left_out_and_told_once(self, folder, capsys):
        assert train.main(["single.py"]) == 0
        text = " ".join(capsys.readouterr().err.split())
        assert len(re.findall("last batch .*?one image.*?1 value per channel", text)) == 1
        assert steps(folder / "runs/single") == 2

    def test_one_that_can_be_averaged_is_trained_on(self, folder, capsys):
        (folder / "small.py").write_text(SINGLE.partition("student")[0])
        assert train.main(["small.py"]) == 0
        assert "left out" not in capsys.readouterr().err
        assert steps(folder / "runs/small") == 3

    def test_where_all_are_such_it_is_one_line(self, capsys):
        assert train.main(["single.py", "--cfg-options", "data.batch_size=1"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search(r"one image a process.*1 value per channel.*batch_size \(now", line)
