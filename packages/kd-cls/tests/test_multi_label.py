"""Images with any number of classes: trained, measured, exported and predicted as such."""

import json

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_cls.analyse import main as analyse
from kd_cls.classifier import Classifier
from kd_cls.data import digit_mosaics, synthetic
from kd_cls.data.augment import CutMix, Mixup
from kd_cls.data.label_sets import check_label_sets
from kd_cls.data.options import Options
from kd_cls.data.splits import make_splits
from kd_cls.evaluation import evaluate, evaluator, measure
from kd_cls.models.label_wise import LabelWise
from kd_cls.prediction import predict
from kd_cls.roles import network_roles
from kd_cls.student import load_student
from kd_cls.train import main
from kd_core.data.device_loader import DeviceLoader
from kd_core.data.sampling import Sampling
from kd_core.errors import UserError
from kd_core.files.checkpoint import load_safetensors
from kd_core.testing import NoHostReads
from PIL import Image
from torch import nn
from torchvision.models import resnet18


class Pooled(nn.Module):
    """Gives the mean of each channel, less one half, as the logits of three classes."""

    def forward(self, image):
        return image.mean((2, 3)) - 0.5


LABEL = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]])


def batch(label=LABEL):
    generator = torch.Generator().manual_seed(0)
    return {"image": torch.rand(4, 3, 4, 4, generator=generator), "label": label}


class TestLoss:
    def test_is_the_mean_of_the_binary_cross_entropies(self):
        given = batch()
        classifier = Classifier(Pooled(), multi_label=True)
        with NoHostReads():
            losses = classifier(given)
        expected = F.binary_cross_entropy_with_logits(Pooled()(given["image"]), LABEL)
        assert losses.keys() == {"bce"}
        torch.testing.assert_close(losses["bce"], expected)

    @pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8, torch.float64])
    def test_takes_yes_and_no_of_any_type(self, dtype):
        losses = [
            Classifier(Pooled(), multi_label=True)(batch(x)) for x in (LABEL, LABEL.to(dtype))
        ]
        torch.testing.assert_close(losses[0]["bce"], losses[1]["bce"])

    @pytest.mark.parametrize("unknown", [-1.0, torch.nan])
    def test_leaves_unknown_labels_out(self, unknown):
        known = torch.tensor([[True, False, True]] * 4)
        given = batch(torch.where(known, LABEL, unknown))
        loss = Classifier(Pooled(), multi_label=True)(given)["bce"]
        logits = Pooled()(given["image"])[known]
        torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, LABEL[known]))
        nothing = batch(torch.full_like(LABEL, unknown))
        assert Classifier(Pooled(), multi_label=True)(nothing)["bce"] == 0

    def test_smoothing_is_over_yes_and_no(self):
        loss = Classifier(Pooled(), multi_label=True, label_smoothing=0.2)(batch())["bce"]
        target = LABEL * 0.8 + 0.1
        logits = Pooled()(batch()["image"])
        torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, target))

    @pytest.mark.parametrize("mixing", [Mixup(), CutMix()])
    def test_of_mixed_images_is_that_of_their_parts_by_share(self, mixing):
        given = {**batch(), "index": torch.arange(4)}
        mixed = mixing(given, Sampling(torch.arange(4), 0, 0, torch.device("cpu")))
        assert mixed["mixed_labels"].shape == (4, 2, 3)
        loss = Classifier(Pooled(), multi_label=True)(mixed)["bce"]
        logits = Pooled()(mixed["image"])
        parts = [
            F.binary_cross_entropy_with_logits(
                logits, mixed["mixed_labels"][:, k], reduction="none"
            )
            for k in range(2)
        ]
        expected = (torch.stack(parts, 1) * mixed["mixed_weights"].unsqueeze(2)).sum(1).mean()
        torch.testing.assert_close(loss, expected)

    def test_a_label_unknown_in_one_part_is_unknown_in_the_mixed_image(self):
        parts = torch.tensor([[[1.0, -1, 0], [0, 1, torch.nan]]])
        given = {"image": torch.rand(1, 3, 4, 4), "label": LABEL[:1], "mixed_labels": parts}
        given["mixed_weights"] = torch.tensor([[0.25, 0.75]])
        loss = Classifier(Pooled(), multi_label=True)(given)["bce"]
        logit = Pooled()(given["image"])[:, :1]
        expected = F.binary_cross_entropy_with_logits(logit, torch.tensor([[0.25]]))
        torch.testing.assert_close(loss, expected)

    def test_a_logit_that_is_not_a_number_is_seen(self):
        given = batch(torch.full_like(LABEL, -1))
        given["image"][0, 0, 0, 0] = torch.nan
        assert Classifier(Pooled(), multi_label=True)(given)["bce"].isnan()

    def test_overall_f1_is_counted_in_training(self):
        classifier = Classifier(Pooled(), multi_label=True)
        given = batch()
        classifier(given)
        predicted = Pooled()(given["image"]) > 0
        both = (predicted & (LABEL > 0)).sum()
        expected = 200 * both / (predicted.sum() + LABEL.sum())
        assert classifier.training_metrics() == {
            "train_OF1": pytest.approx(expected.item(), abs=1e-3)
        }


class TestLabelsThatDoNotFit:
    @pytest.mark.parametrize("label", [LABEL[:3], LABEL[:3].long(), torch.rand(3)])
    def test_several_labels_or_numbers_are_refused_by_a_plain_classifier(self, label):
        given = {"image": torch.rand(3, 3, 4, 4), "label": label}
        with pytest.raises(UserError, match=r"wanted class numbers, int64 \[N\].*own_task"):
            Classifier(Pooled())(given)

    @pytest.mark.parametrize("label", [torch.zeros(4).long(), torch.zeros(4, 2), torch.zeros(4, 1)])
    def test_one_class_or_other_classes_are_refused_by_the_other(self, label):
        with pytest.raises(UserError, match=r"wanted floats \[N, C\], 0 or 1 for each of the 3"):
            Classifier(Pooled(), multi_label=True)(batch(label))

    def test_no_label_is_refused_only_where_the_loss_is_wanted(self):
        classifier, given = Classifier(Pooled()), {"image": torch.rand(2, 3, 4, 4)}
        with pytest.raises(UserError, match=r"no 'label' \(it has image\).*task_weight=0"):
            classifier(given)
        classifier.run_for_taps(given)
        assert classifier.eval()(given).shape == (2, 3)

    def test_hugging_faces_names_are_understood(self):
        given = batch(torch.tensor([0, 1, 2, 0]))
        theirs = {"pixel_values": given["image"], "labels": given["label"]}
        assert torch.equal(Classifier(Pooled())(theirs)["ce"], Classifier(Pooled())(given)["ce"])


class TestMeasures:
    def test_are_of_several_labels_and_never_top1(self):
        logits = torch.tensor([[2.0, -1, 1], [1, 2, -1]])
        label = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
        found = measure(logits, label, ["cat", "dog", "bird"])
        names = ["mAP", "CF1", "OF1", "binary_cross_entropy", "AP/cat", "AP/dog"]
        assert list(found) == names  # no bird
        assert found["mAP"] == (found["AP/cat"] + found["AP/dog"]) / 2 == 100
        expected = F.binary_cross_entropy_with_logits(logits, label).item()
        assert found["binary_cross_entropy"] == pytest.approx(expected, abs=1e-5)

    def test_a_set_without_any_class_is_refused(self):
        with pytest.raises(UserError, match="mAP cannot be measured"):
            measure(torch.zeros(2, 3), torch.zeros(2, 3))

    def test_agreement_is_that_of_every_yes_and_no(self):
        data = digit_mosaics(num_train=4, num_test=8)
        models = [
            Classifier(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), multi_label=True)
            for _ in range(2)
        ]
        found = evaluate(
            models[0], data.test, {"other": models[1], "same": models[0]}, data.classes
        )
        assert found["agreement_same"] == 100
        with torch.no_grad():
            pair = [model({"image": data.test.images}) > 0 for model in models]
        share = 100 * (pair[0] == pair[1]).float().mean().item()
        assert found["agreement_other"] == pytest.approx(share, abs=1e-3)
        assert "AP/0" in found

    def test_without_labels_only_agreement_is_measured_and_the_rest_is_told(self, capsys):
        class Unlabelled(DeviceLoader):
            def epoch(self, epoch, start=0):
                for each in super().epoch(epoch, start):
                    yield {"image": each["image"], "index": each["index"]}

        loader = Unlabelled(torch.zeros(6, 3, 4, 4).byte(), torch.zeros(6).long(), batch_size=4)
        model = Classifier(Pooled())
        assert evaluate(model, loader, {"same": model}) == {"agreement_same": 100.0}
        assert "no 'label': accuracy" in capsys.readouterr().err
        with pytest.raises(UserError, match=r"no 'label': accuracy.*add labels"):
            evaluator(loader)(model)


class TestData:
    def test_labels_name_the_digits_of_a_picture(self):
        data = digit_mosaics(num_train=200, num_test=20, augment=[], batch_size=200)
        whole = data.train.sample(200)
        assert whole["label"].shape == (200, 10)
        assert set(whole["label"].unique().tolist()) == {0, 1}
        empty = whole["label"].sum(1) == 0
        assert torch.equal(whole["image"].flatten(1).amax(1) == 0, empty)
        scaled = whole["image"] / 255
        assert torch.allclose(scaled.mean((0, 2, 3)), torch.tensor(data.mean), atol=0.02)
        assert torch.allclose(scaled.std((0, 2, 3)), torch.tensor(data.std), atol=0.02)
        again = digit_mosaics(num_train=200, num_test=20, data_seed=5)
        assert torch.equal(again.train.images, data.train.images)

    def test_a_part_is_held_out_and_classes_are_limited(self):
        data = digit_mosaics(num_train=50, num_test=8, val_fraction=0.2)
        assert (len(data.train.labels), len(data.val.labels)) == (40, 10)
        few = digit_mosaics(num_train=50, num_test=8, limit_per_class=1)
        assert 0 < len(few.labels) <= 10
        assert (few.labels.sum(0) >= 1).all()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"random_labels": True}, "random_labels: needs one class"),
            ({"balanced": True}, "balanced: needs one class"),
        ],
    )
    def test_options_for_one_class_an_image_are_refused(self, options, message):
        with pytest.raises(UserError, match=message):
            digit_mosaics(num_train=8, num_test=8, **options)

    def test_labels_that_are_not_0_1_or_unknown_are_refused_by_place(self):
        names = ["cat", "dog"]
        check_label_sets(torch.tensor([[0, 1], [-1, torch.nan]]), names, "the list")
        for label, message in (
            ([[0, 1], [2, 0]], "the list: label 2 of sample 1, class 'cat'; wanted 0, 1, or -1"),
            ([[0.5, 1]], "label 0.5 of sample 0, class 'cat'"),
            ([[0, 0]], "no image has any of the classes"),
            ([[0, 1, 1]], "labels of 3 classes, but there are 2 names"),
        ):
            with pytest.raises(UserError, match=message):
                check_label_sets(torch.tensor(label), names, "the list")

    def test_one_part_with_other_labels_is_refused(self):
        train, test = (torch.zeros(2), torch.eye(2)), (torch.zeros(2), torch.tensor([0, 1]))
        half = (0.5, 0.5, 0.5)
        with pytest.raises(UserError, match=r"the test set: wanted labels \[N, C\]"):
            make_splits(
                *(train, test, None, Options()), classes="ab", mean=half, std=half, image_size=1
            )


class TestLabelWise:
    def test_gives_logits_from_one_embedding_a_class(self):
        network = LabelWise(resnet18(num_classes=4), 4, width=6)
        seen = []
        network.decoder.register_forward_hook(lambda *given: seen.append(given[2]))
        logits = network(torch.rand(2, 3, 32, 32))
        assert (logits.shape, seen[0].shape) == ((2, 4), (2, 4, 6))
        roles = network_roles(network)
        assert roles["label_embeddings"] == ("decoder",)
        assert roles["stages"][-1] == "network.layer4"
        logits.sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())

    def test_a_network_whose_map_is_not_known_is_refused_with_a_way(self):
        def network():
            return nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(180, 4))

        with pytest.raises(UserError, match="last map of Sequential is not known; name its path"):
            LabelWise(network(), 4)
        found = LabelWise(network(), 4, tap="0", channels=5)
        assert found(torch.rand(1, 3, 8, 8)).shape == (1, 4)
        wrong = LabelWise(network(), 4, tap="0")
        with pytest.raises(UserError, match=r"tap '0' gives \[1, 5, 6, 6\]; wanted .*180"):
            wrong(torch.rand(1, 3, 8, 8))


DATA = """
data = dict(type="kd_cls.data.digit_mosaics", num_train=24, num_test=12, batch_size=8)
optimizer = dict(type="torch.optim.Adam", lr=0.001)
schedule = dict(type="kd_core.training.schedule.constant")
trainer = dict(epochs=1, loggers=[])
_network = dict(type="kd_cls.models.build_model", name="resnet8")
student = dict(network=dict(type="kd_cls.models.label_wise.LabelWise", network=_network))
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a run on several labels, and its config."""
    folder = tmp_path_factory.mktemp("several")
    (folder / "config.py").write_text(DATA)
    assert main([str(folder / "config.py"), "--work-dir", str(folder / "run")]) == 0
    return folder / "run", folder / "config.py"


class TestRun:
    def test_is_judged_by_map(self, finished):
        result = json.loads((finished[0] / "result.json").read_text())
        assert result["metric"] == "mAP"
        assert {"mAP", "CF1", "OF1", "AP/3"} <= result["last"].keys()
        assert not {"top1", "ece"} & result["last"].keys()

    def test_exports_what_prediction_needs(self, finished, tmp_path):
        file = finished[0] / "student.safetensors"
        assert json.loads(load_safetensors(file)[1]["multi_label"]) is True
        assert load_student(file).multi_label
        Image.new("RGB", (32, 32), "white").save(tmp_path / "white.png")
        found = predict(file, [str(tmp_path / "white.png")], top=10)[str(tmp_path / "white.png")]
        image = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
        with torch.no_grad():
            expected = load_student(file)({"image": image})[0].sigmoid()
        assert {int(one.name): one.probability for one in found} == pytest.approx(
            dict(enumerate(expected.tolist())), abs=1e-6
        )

    def test_learns_from_its_like_by_labels_but_not_by_a_softmax(self, finished, tmp_path, capsys):
        terms = tmp_path / "terms.py"
        common = f"teacher = dict(weights={str(finished[0] / 'student.pth')!r}, network=dict(\n"
        common += "    type='kd_cls.models.label_wise.LabelWise',\n"
        common += "    network=dict(type='kd_cls.models.build_model', name='resnet8')))\n"
        term = "distiller = dict(task_weight=0, terms=dict(t=dict(criterion=dict(type={!r}))))\n"
        place = ["--work-dir", str(tmp_path / "run")]
        terms.write_text(common + term.format("kd_core.criteria.kd.KD"))
        assert main([str(finished[1]), str(terms), *place]) == 2
        assert "KD takes the logits as those of one class" in capsys.readouterr().err
        terms.write_text(common + term.format("kd_core.criteria.l2d.MLD"))
        assert main([str(finished[1]), str(terms), *place]) == 0
        out, err = capsys.readouterr()
        assert "teacher 'teacher': mAP" in err
        assert "OF1" in out
        assert "AP/" not in out + err  # those of single classes are in the files

    def test_is_not_analysed_as_one_class_an_image(self, finished, capsys):
        run, config = finished
        assert analyse(["evaluate", str(config), str(run)]) == 2
        assert "evaluate is for one class an image" in capsys.readouterr().err


def test_one_class_an_image_is_measured_as_before():
    data = synthetic(num_classes=3, num_test=6, image_size=4)
    assert "top1" in evaluator(data.test)(Classifier(Pooled()))
