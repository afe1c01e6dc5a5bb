"""A run is put together so that methods compare: same start, same data, nothing left behind."""

import json
from pathlib import Path

import pytest
import torch
from kd_cls.adapter import ADAPTER
from kd_cls.classifier import Classifier
from kd_cls.data import image_folder, synthetic
from kd_cls.models import build_model
from kd_core.experiment.builder import build_data, build_experiment
from kd_core.experiment.parsing import parse_experiment
from kd_core.experiment.runner import Runner
from kd_core.networks.task import network_of
from PIL import Image

CPU = torch.device("cpu")
DATA = {"type": "kd_cls.data.synthetic"}
STUDENT = {"network": {"type": "kd_cls.models.build_model", "name": "resnet8"}}
FITNET = {
    "criterion": {"type": "kd_core.criteria.fitnet.FitNet"},
    "student": "layer2",
    "teacher": "layer3",
}


@pytest.fixture
def data():
    return synthetic(image_size=16, num_classes=3, num_train=10)


@pytest.fixture
def put_together(data):
    def with_terms(seed=0, **terms):
        teachers = {"teacher": Classifier(build_model("resnet14", num_classes=3))} if terms else {}
        config = {"data": DATA, "student": STUDENT, "distiller": {"terms": terms}}
        experiment = parse_experiment(ADAPTER, config, training=False)
        return build_experiment(ADAPTER, experiment, seed, CPU, data, teachers)

    return with_terms


def test_all_methods_start_from_the_same_student(put_together):
    alone, taught, other = put_together(), put_together(hint=FITNET), put_together(seed=1)
    weights = [network_of(built.distiller.student).conv1.weight for built in (alone, taught, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_all_methods_drop_the_same_units(put_together):
    put_together()
    first = torch.rand(3)
    put_together(hint=FITNET)
    assert torch.equal(torch.rand(3), first)


def test_shapes_are_those_that_the_networks_give(put_together):
    regressor = put_together(hint=FITNET).distiller.terms["hint"].criterion.regressors[0]
    assert isinstance(regressor[0], torch.nn.Conv2d)
    assert regressor[0].weight.shape == (64, 32, 3, 3)
    assert regressor[0].stride == (2, 2)


def test_the_data_s_seed_is_that_of_the_run_unless_it_has_its_own():
    node = {"type": "kd_cls.data.synthetic"}
    assert build_data(node, 5, CPU).train.data_seed == 5
    assert build_data({**node, "data_seed": 7}, 5, CPU).train.data_seed == 7
    config = {"data": node, "student": STUDENT}
    runner = Runner(ADAPTER, CPU, Path())
    for more, seed in (({}, 5), ({"data_seed": 6}, 6)):
        experiment = parse_experiment(ADAPTER, {**config, **more}, training=False)
        assert runner.build(experiment, 5).data.train.data_seed == seed


class TestSample:
    def test_is_two_training_images_whatever_the_batch_size(self, data):
        batch_size = data.train.batch_size
        assert data.train.sample(2)["image"].shape == (2, 3, 16, 16)
        assert data.train.batch_size == batch_size

    def test_leaves_no_worker_process_behind(self, tmp_path):
        for name in ("train/a", "train/b", "test/a", "test/b"):
            (tmp_path / name).mkdir(parents=True)
            Image.new("RGB", (16, 16)).save(tmp_path / name / "0.png")
        data = image_folder(str(tmp_path), image_size=16, workers=1, resident=False)
        assert data.train.sample(2)["image"].shape == (2, 3, 16, 16)
        assert data.train._loader is None
        assert torch.multiprocessing.active_children() == []


def test_exported_facts_are_those_of_the_student(put_together):
    facts = {name: json.loads(text) for name, text in put_together().parts.metadata.items()}
    assert facts["network"] == STUDENT["network"]
    assert facts["classes"] == ["class 0", "class 1", "class 2"]
    assert facts["mean"] == facts["std"] == [0.5, 0.5, 0.5]
    assert facts["image_size"] == 16
