"""A student of grey images learns from a teacher of colour, and is evaluated, exported, used."""

import json

import pytest
import torch
from kd_cls import predict
from kd_cls.data import synthetic
from kd_cls.exporting import export
from kd_cls.networks import build_classifier
from kd_cls.student import load_student, read_facts
from kd_cls.train import main
from kd_core.errors import UserError
from kd_core.files.artifacts import find_student
from kd_core.networks.probe import first_pass
from PIL import Image

GREY = {"type": "timm.create_model", "model_name": "test_resnet.r160_in1k", "in_chans": 1}
CONFIG = f"""
data = dict(type="kd_cls.data.synthetic", num_train=8, num_test=6, num_classes=3, image_size=32,
            batch_size=4)
student = dict(network={GREY!r})
teacher = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"), weights="random")
distiller = dict(terms=dict(kd=dict(criterion=dict(type="kd_core.criteria.kd.KD"))))
optimizer = dict(type="torch.optim.SGD", lr=0.05)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=1, loggers=[])
"""


def test_from_training_with_a_teacher_of_colour_to_a_prediction(tmp_path, capsys, monkeypatch):
    pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    config, run = tmp_path / "grey.py", tmp_path / "run"
    config.write_text(CONFIG)
    assert main([str(config), "--work-dir", str(run)]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "student: the network takes one channel, so images become grey" in told
    assert "mean 0.5 and std 0.5" in told
    facts = read_facts(find_student(run))
    assert (facts["mean"], facts["std"]) == ([0.5], [0.5])
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        assert load_student(run)({"image": images}).shape == (2, 3)
        assert load_student(run)({"image": images[:, :1]}).shape == (2, 3)
    export(run, tmp_path / "student.onnx", with_normalization=True)
    session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "student.onnx")
    assert session.get_inputs()[0].shape == ["batch", 1, 32, 32]
    Image.new("L", (40, 32), 90).save(tmp_path / "grey.jfif")
    Image.new("RGB", (40, 32), (90, 90, 90)).save(tmp_path / "colour.png")
    shown = ["--json", "--top", "3"]
    assert predict.main([str(run), "grey.jfif", "colour.png", *shown]) == 0
    grey, colour = json.loads(capsys.readouterr().out)
    for one, other in zip(grey["predictions"], colour["predictions"], strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_a_network_of_grey_images_with_statistics_of_colour_is_one_line():
    data = synthetic(image_size=32, num_classes=3)
    node = {"network": {"type": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 3}}
    node["network"]["kernel_size"] = 32
    grey = build_classifier(data, "student", **node)
    assert len(grey.mean) == 1
    colour = build_classifier(data, "student", **node, mean=[0.5] * 3, std=[0.5] * 3)
    with pytest.raises(UserError, match=r"1 channels?, but got 3.*one number"):
        first_pass(colour, data.train.sample(2))
