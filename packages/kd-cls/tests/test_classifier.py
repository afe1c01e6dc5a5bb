"""The classifier: what a network is shown, what it is asked, what it may answer."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_cls.classifier import Classifier
from kd_cls.data.augment import RICAP, CutMix, Mixup
from kd_core.data.sampling import Sampling
from kd_core.errors import UserError
from kd_core.testing import NoHostReads
from torch import nn

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


class Pooled(nn.Module):
    """Gives the mean of each channel as the logits of three classes."""

    def forward(self, image):
        return image.mean((2, 3))


class Answers(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, image):
        return self.answer


def images(size=4):
    return torch.randint(256, (5, 3, size, size), dtype=torch.uint8)


class TestImages:
    def test_bytes_and_floats_in_0_to_1_are_the_same_images(self):
        classifier = Classifier(Pooled(), mean=MEAN, std=STD).eval()
        image = images()
        assert torch.equal(
            classifier({"image": image}), classifier({"image": image.float().div(255)})
        )

    def test_each_channel_is_normalised_by_its_own_statistics(self):
        image = torch.tensor(MEAN).view(1, 3, 1, 1) + torch.tensor(STD).view(1, 3, 1, 1)
        shown = Classifier(Pooled(), mean=MEAN, std=STD).prepare(image)
        torch.testing.assert_close(shown, torch.ones(1, 3, 1, 1))

    def test_without_statistics_floats_stay_as_they_are(self):
        image = torch.rand(2, 3, 4, 4)
        assert torch.equal(Classifier(Pooled()).prepare(image), image)

    @pytest.mark.parametrize("size", [4, 8, 12])
    def test_images_are_resized_for_the_network(self, size):
        shown = Classifier(Pooled(), size=8).prepare(images(size))
        assert shown.shape == (5, 3, 8, 8)

    def test_images_of_the_right_size_are_not_touched(self):
        image = images()
        assert torch.equal(
            Classifier(Pooled(), size=4).prepare(image), Classifier(Pooled()).prepare(image)
        )

    def test_no_image_is_a_batch_too(self):
        classifier = Classifier(Pooled(), size=8).eval()
        assert classifier({"image": images()[:0]}).shape == (0, 3)

    def test_channels_last_reaches_the_images(self):
        classifier = Classifier(Pooled())
        classifier.use_channels_last()
        assert classifier.prepare(images()).is_contiguous(memory_format=torch.channels_last)

    def test_statistics_are_in_no_checkpoint(self):
        assert Classifier(Pooled(), mean=MEAN, std=STD).state_dict().keys() == {"correct", "seen"}


class TestLoss:
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_is_the_cross_entropy_with_label_smoothing(self, smoothing):
        classifier = Classifier(Pooled(), label_smoothing=smoothing)
        batch = {"image": images(), "label": torch.tensor([0, 1, 2, 1, 0])}
        target = F.one_hot(batch["label"], 3) * (1 - smoothing) + smoothing / 3
        log_probability = batch["image"].float().div(255).mean((2, 3)).log_softmax(1)
        expected = -(target * log_probability).sum(1).mean()
        losses = classifier(batch)
        assert losses.keys() == {"ce"}
        torch.testing.assert_close(losses["ce"], expected)

    def test_sees_the_first_views_only_where_that_is_wanted(self):
        image, label = images().float() / 255, torch.tensor([0, 1, 2, 0, 1])
        batch = {"image": image.repeat(3, 1, 1, 1), "label": label.repeat(3), "num_views": 3}
        batch["image"][5:] = 1 - batch["image"][5:]
        first = Classifier(Pooled(), task_views=1).train()(batch)["ce"]
        torch.testing.assert_close(first, F.cross_entropy(image.mean((2, 3)), label))
        whole = Classifier(Pooled()).train()(batch)["ce"]
        assert not torch.isclose(first, whole)

    @pytest.mark.parametrize("apart", [True, False])
    def test_views_apart_are_seen_one_after_the_other_as_two_calls_would(self, apart):
        torch.manual_seed(0)
        network = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), Pooled(), nn.Linear(3, 3))
        classifier, alone = Classifier(copy.deepcopy(network), views_apart=apart), network.train()
        views = [images().float() / 255, images().float() / 100 - 1]
        label = torch.tensor([0, 1, 2, 0, 1])
        batch = {"image": torch.cat(views), "label": label.repeat(2), "num_views": 2}
        with NoHostReads():
            loss = classifier.train()(batch)["ce"]
            loss.backward()
        losses = [F.cross_entropy(alone(view), label) for view in views]
        assert torch.allclose(loss, torch.stack(losses).mean()) == apart
        buffers = alone.buffers(), classifier.network.buffers()
        same = [torch.equal(*pair) for pair in zip(*buffers, strict=True)]
        assert all(same) == apart
        assert classifier.passes(batch) == (2 if apart else 1)
        assert classifier.eval().passes(batch) == 1
        assert classifier(batch).shape == (10, 3)

    def test_no_image_of_several_views_is_a_batch_too(self):
        batch = {"image": images()[:0], "label": torch.zeros(0).long(), "num_views": 2}
        classifier = Classifier(Pooled(), views_apart=True).train()
        assert classifier(batch)["ce"].isnan()  # as of no image at all

    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_of_mixed_images_is_that_with_their_labels_by_weight(self, smoothing):
        labels = torch.tensor([[0, 1], [1, 1], [2, 0], [1, 2], [0, 2]])
        weights = torch.tensor([[0.7, 0.3], [0.2, 0.8], [1.0, 0.0], [0.5, 0.5], [0.1, 0.9]])
        batch = {"image": images(), "label": torch.tensor([2, 2, 2, 2, 2])}
        batch |= {"mixed_labels": labels, "mixed_weights": weights}
        loss = Classifier(Pooled(), label_smoothing=smoothing)(batch)["ce"]
        logits = batch["image"].float().div(255).mean((2, 3)).tolist()
        expected = 0.0
        for row, pair, shares in zip(logits, labels.tolist(), weights.tolist(), strict=True):
            target = [smoothing / 3] * 3
            for label, share in zip(pair, shares, strict=True):
                target[label] += (1 - smoothing) * share
            total = math.log(sum(math.exp(value) for value in row))
            expected += sum(t * (total - v) for t, v in zip(target, row, strict=True)) / 5
        assert loss.item() == pytest.approx(expected, rel=1e-5)

    def test_of_images_mixed_from_one_class_is_the_usual_one(self):
        label = torch.tensor([0, 1, 2, 1, 0])
        batch = {"image": images(), "label": label}
        shares = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).expand(5, -1)
        mixed = {**batch, "mixed_labels": label[:, None].expand(-1, 4), "mixed_weights": shares}
        classifier = Classifier(Pooled())
        torch.testing.assert_close(classifier(mixed)["ce"], classifier(batch)["ce"])

    @pytest.mark.parametrize("mix", [Mixup(), CutMix(), RICAP()], ids=lambda m: type(m).__name__)
    def test_of_mixed_images_reads_nothing_back(self, mix):
        label = torch.tensor([0, 1, 2, 1, 0])
        batch = mix({"image": images(), "label": label}, Sampling(torch.arange(5), 0, 0))
        classifier = Classifier(nn.Sequential(Pooled(), nn.Linear(3, 3)), mean=MEAN, std=STD)
        with NoHostReads():
            classifier(batch)["ce"].backward()

    def test_is_float32_where_the_network_computes_in_bfloat16(self):
        classifier = Classifier(Answers(torch.randn(5, 3, dtype=torch.bfloat16)))
        loss = classifier({"image": images(), "label": torch.zeros(5, dtype=torch.int64)})
        assert loss["ce"].dtype == torch.float32


class TestTrainingAccuracy:
    def test_counts_the_images_since_the_last_call(self):
        classifier = Classifier(Answers(torch.eye(3)))
        image = images()[:3]
        classifier({"image": image, "label": torch.tensor([0, 1, 2])})
        classifier({"image": image, "label": torch.tensor([0, 0, 0])})
        assert classifier.training_metrics() == {"train_top1": round(400 / 6, 4)}
        classifier({"image": image, "label": torch.tensor([0, 2, 1])})
        assert classifier.training_metrics() == {"train_top1": round(100 / 3, 4)}

    def test_of_mixed_images_counts_the_class_of_the_largest_weight(self):
        classifier = Classifier(Answers(torch.eye(3)))
        labels = torch.tensor([[1, 0, 2], [1, 0, 2], [0, 1, 2]])
        weights = torch.tensor([[0.2, 0.7, 0.1], [0.3, 0.5, 0.2], [0.1, 0.2, 0.7]])
        batch = {"image": images()[:3], "label": torch.tensor([1, 1, 1])}
        classifier({**batch, "mixed_labels": labels, "mixed_weights": weights})
        assert classifier.training_metrics() == {"train_top1": round(200 / 3, 4)}

    def test_is_absent_when_nothing_was_trained(self):
        assert Classifier(Pooled()).training_metrics() == {}

    def test_evaluation_does_not_count(self):
        classifier = Classifier(Answers(torch.eye(3))).eval()
        classifier({"image": images()[:3], "label": torch.tensor([0, 1, 2])})
        assert classifier.training_metrics() == {}


class TestErrors:
    @pytest.mark.parametrize(
        ("answer", "described"),
        [
            (torch.zeros(5, 3, 2, 2), r"\(5, 3, 2, 2\).*wrap the network"),
            ((torch.zeros(5, 3), torch.zeros(5, 3)), "a tuple.*such as output='0'"),
            ({"out": torch.zeros(5, 3)}, "a dict.*such as output='out'"),
        ],
    )
    @pytest.mark.parametrize("training", [True, False])
    def test_anything_but_logits_is_refused(self, answer, described, training):
        classifier = Classifier(Answers(answer)).train(training)
        with pytest.raises(UserError, match=f"Answers returned {described}"):
            classifier({"image": images(), "label": torch.zeros(5, dtype=torch.int64)})

    @pytest.mark.parametrize("given", [{"mean": MEAN}, {"std": STD}])
    def test_half_of_the_statistics_is_refused(self, given):
        with pytest.raises(UserError, match="mean and std"):
            Classifier(Pooled(), **given)

    @pytest.mark.parametrize(
        ("std", "message"),
        [
            (0.5, r"std: wanted a list, got 0\.5"),
            ([0.5, 0.5], r"std: wanted at least 3 values or at most 1 value, got \[0\.5, 0\.5\]"),
            ([0.5], "mean has 3 numbers and std 1"),
        ],
    )
    def test_statistics_that_are_not_one_number_a_channel_are_refused(self, std, message):
        with pytest.raises(UserError, match=message):
            Classifier(Pooled(), mean=MEAN, std=std)

    def test_impossible_label_smoothing_is_refused(self):
        with pytest.raises(
            UserError, match=r"label_smoothing: wanted a number of at most 1, got 1\.5"
        ):
            Classifier(Pooled(), label_smoothing=1.5)
