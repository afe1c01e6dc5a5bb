"""Evaluation measures whole sets, however they are batched."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_cls.classifier import Classifier
from kd_cls.data import synthetic
from kd_cls.evaluation import evaluate, evaluator, measure, predict
from torch import nn


class Linear(nn.Module):
    """A linear classifier with dropout and BatchNorm, which evaluation must not disturb."""

    def __init__(self, classes=6):
        super().__init__()
        torch.manual_seed(classes)
        self.norm, self.drop = nn.BatchNorm2d(3), nn.Dropout(0.5)
        self.head = nn.Linear(48, classes)

    def forward(self, image):
        return self.head(self.drop(self.norm(image).flatten(1)))


def some_images(batch_size=4):
    return synthetic(image_size=4, num_classes=6, num_test=10, batch_size=batch_size).test


def test_all_images_are_predicted_in_order():
    classifier, loader = Classifier(Linear()), some_images()
    logits, label = predict(classifier, loader)
    assert label.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]
    with torch.no_grad():
        expected = classifier.eval()({"image": loader.images})
    torch.testing.assert_close(logits, expected)
    assert not logits.requires_grad


def test_the_network_and_its_statistics_are_left_alone():
    classifier = Classifier(Linear()).train()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    evaluate(classifier, some_images(), {"teacher": Classifier(Linear())})
    after = classifier.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_measures_do_not_depend_on_the_size_of_batches():
    classifier = Classifier(Linear())
    whole = evaluator(some_images(10))(classifier)
    assert evaluator(some_images(3))(classifier) == pytest.approx(whole, abs=1e-5)


def test_measures_are_percentages_the_cross_entropy_and_a_fraction():
    label = torch.tensor([0, 0, 0, 5])
    logits = torch.tensor([[6.0, 5, 4, 3, 2, 1]] * 3 + [[5.0, 5, 4, 3, 2, 1]])
    values = measure(logits, label)
    assert values["top1"] == 75.0
    assert values["top5"] == 75.0
    assert values["cross_entropy"] == pytest.approx(F.cross_entropy(logits, label).item(), 1e-5)
    confidence = logits.softmax(1).max(1).values
    expected = ((1 - confidence[0]) * 3 + confidence[3]) / 4  # they fall into different bins
    assert values["ece"] == pytest.approx(expected.item(), abs=1e-5)
    assert list(values) == ["top1", "top5", "cross_entropy", "ece", "ece_10"]


def test_calibration_is_told_for_fifteen_and_for_ten_bins():
    # Confidences 0.59 (right) and 0.51 (wrong) are two of fifteen bins, but one of ten.
    logits = torch.tensor([[0.59, 0.41], [0.51, 0.49]]).log()
    values = measure(logits, torch.tensor([0, 1]))
    assert values["ece"] == pytest.approx((0.41 + 0.51) / 2, abs=1e-5)
    assert values["ece_10"] == pytest.approx((0.51 - 0.41) / 2, abs=1e-5)


def test_top5_of_three_classes_is_everything():
    assert measure(torch.eye(3), torch.tensor([1, 1, 1]))["top5"] == 100.0


def test_agreement_is_told_for_every_teacher_that_knows_the_classes():
    student = Classifier(Linear())
    teachers = {"same": Classifier(Linear()), "other": Classifier(Linear(classes=4))}
    scores = evaluate(student, some_images(), teachers)
    assert scores["agreement_same"] == 100.0
    assert "agreement_other" not in scores


def test_agreement_counts_equal_predictions():
    student, teacher = Classifier(Linear()), Classifier(Linear())
    with torch.no_grad():
        teacher.network.head.bias[0] += 100  # now it always says 0
    predicted = predict(student, some_images())[0].argmax(1)
    share = 100 * (predicted == 0).float().mean().item()
    assert 0 < share < 100
    scores = evaluate(student, some_images(), {"teacher": teacher})
    assert scores["agreement_teacher"] == pytest.approx(share, abs=1e-3)
