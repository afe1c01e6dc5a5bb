"""Analyses give the numbers of their definitions."""

import math

import numpy as np
import pytest
import torch
from kd_cls.analysis import cka, correlation, reliability, tables
from kd_cls.analysis.choices import MATRICES
from kd_cls.analysis.features import choose, collect, progress
from kd_cls.analysis.subject import Subject
from kd_cls.classifier import Classifier
from kd_cls.data import synthetic
from kd_cls.models import build_model
from kd_cls.roles import network_roles
from kd_core.errors import UserError
from kd_core.metrics import agreement, calibration_bins, expected_calibration_error


def model(seed, classes=4):
    torch.manual_seed(seed)
    network = build_model("resnet8", num_classes=classes)
    return Classifier(network, roles=network_roles(network)).eval()


@pytest.fixture(scope="module")
def subject():
    data = synthetic(image_size=32, num_classes=4, num_test=24, batch_size=10)
    teacher = model(0)
    return Subject(data, {"same": teacher, "other": model(1)}, ("teacher", teacher))


def random_logits():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    return logits, torch.randint(4, (30,), generator=generator)


class TestTables:
    def test_agreement_is_with_the_teacher(self, subject):
        numbers = tables.evaluate(subject)
        shown, given = (
            collect(m, choose(subject.test)).logits
            for m in (subject.teacher[1], subject.models["other"])
        )
        assert "agreement" not in numbers["teacher"]
        assert numbers["same"]["agreement"] == 100
        assert numbers["other"]["agreement"] == pytest.approx(
            100 * agreement(given, shown).item(), abs=1e-3
        )
        assert {**numbers["teacher"], "agreement": 100.0} == numbers["same"]

    def test_without_teacher_there_is_no_agreement(self, subject):
        alone = Subject(subject.data, subject.models)
        assert "agreement" not in tables.evaluate(alone, 8)["same"]
        with pytest.raises(UserError, match="--teacher"):
            alone.require_teacher()

    def test_noise_is_that_of_the_probabilities(self, subject):
        given = collect(subject.models["other"], choose(subject.test)).logits.softmax(1)
        expected = 0.0
        for row in given.tolist():
            largest = row.index(max(row))
            even = (1 - row[largest]) / 3
            expected += sum(abs(p - even) for c, p in enumerate(row) if c != largest) / len(given)
        assert tables.noise(subject)["other"]["noise"] == pytest.approx(expected, rel=1e-4)


class TestCorrelation:
    def test_it_equals_numpy_s(self):
        logits, _ = random_logits()
        expected = np.corrcoef(logits.numpy().T)
        np.testing.assert_allclose(correlation.class_correlation(logits), expected)

    def test_a_constant_logit_goes_with_none(self):
        logits, _ = random_logits()
        logits[:, 2] = 7
        found = correlation.class_correlation(logits)
        assert found[2].tolist() == [0, 0, 0, 0]
        assert found[0, 0] == pytest.approx(1)

    def test_means_are_those_of_each_true_class(self):
        logits, label = random_logits()
        label[label == 3] = 0  # a class without samples
        found = correlation.class_means(logits, label)
        for row, column in [(0, 1), (1, 0), (2, 3)]:
            values = [logits[n, column].item() for n in range(30) if label[n] == row]
            assert found[row, column].item() == pytest.approx(sum(values) / len(values))
        assert found.diagonal().eq(0).all()
        assert found[3].eq(0).all()

    @pytest.mark.parametrize("matrix", MATRICES)
    def test_a_model_differs_from_others_alone(self, subject, tmp_path, matrix):
        found = correlation.analyse(subject, tmp_path / "a.png", matrix=matrix)
        assert found["same"] == {"mean": 0, "max": 0}
        assert found["other"]["max"] > found["other"]["mean"] > 0


class TestCka:
    def test_a_layer_is_like_itself(self, subject, tmp_path):
        found = cka.analyse(subject, tmp_path / "a.png")
        assert found["same"]["layers"] == ["layer1", "layer2", "layer3", "pooled"]
        same, other = (np.array(found[label]["cka"]) for label in ("same", "other"))
        np.testing.assert_allclose(same.diagonal(), 1, rtol=1e-6)
        np.testing.assert_allclose(same, same.T, rtol=1e-6)
        assert abs(other.diagonal() - 1).max() > 1e-3

    def test_the_averaged_last_map_is_the_pooled_vector(self, subject, tmp_path):
        values = np.array(cka.analyse(subject, tmp_path / "a.png")["other"]["cka"])
        np.testing.assert_allclose(values[2], values[3], rtol=1e-4)
        unpooled = np.array(cka.analyse(subject, tmp_path / "a.png", pool="none")["other"]["cka"])
        assert abs(unpooled[2] - unpooled[3]).max() > 1e-3

    def test_batches_are_random_parts_of_a_sorted_set(self, subject, tmp_path, monkeypatch):
        by_class = subject.test.labels.argsort(stable=True)
        data = synthetic(image_size=32, num_classes=4, num_test=24, batch_size=6)
        data.test.images, data.test.labels = data.test.images[by_class], data.test.labels[by_class]
        labels = []

        def watched(loader, title):
            for batch in progress(loader, title):
                labels.append(batch["label"].tolist())
                yield batch

        monkeypatch.setattr(cka, "progress", watched)
        models = {"same": subject.models["same"]}
        cka.analyse(Subject(data, models, subject.teacher), tmp_path / "a.png")
        assert [len(batch) for batch in labels] == [6] * 4
        assert all(len(set(batch)) > 1 for batch in labels)

    def test_layers_may_be_named(self, subject, tmp_path):
        found = cka.analyse(
            subject, tmp_path / "a.png", layers=["relu"], teacher_layers=["layer1", "@pooled"]
        )["other"]
        assert (found["layers"], found["teacher_layers"]) == (["relu"], ["layer1", "pooled"])
        assert np.shape(found["cka"]) == (1, 2)


class TestReliability:
    @pytest.mark.parametrize("bins", [3, 10, 15])
    def test_gaps_weighed_by_share_are_the_calibration_error(self, bins):
        logits, label = random_logits()
        found = reliability.diagram(calibration_bins(logits, label, bins))
        columns = (found["share"], found["confidence"], found["accuracy"])
        total = sum(
            share * abs(confidence - accuracy)
            for share, confidence, accuracy in zip(*columns, strict=True)
            if share
        )
        expected = expected_calibration_error(logits, label, bins).item()
        assert total == pytest.approx(expected)
        assert found["ece"] == pytest.approx(expected)
        assert math.fsum(found["share"]) == pytest.approx(1)

    def test_an_empty_bin_has_no_accuracy(self):
        found = reliability.diagram(calibration_bins(torch.tensor([[9.0, 0]]), torch.tensor([0])))
        assert found["accuracy"] == [None] * 14 + [1.0]
        assert found["confidence"][:14] == [None] * 14

    def test_there_is_a_bin(self, subject, tmp_path):
        with pytest.raises(UserError, match="--bins 0"):
            reliability.analyse(subject, tmp_path / "a.png", bins=0)
