"""Class-activation maps add up to the logits; Grad-CAM does for every network."""

import pytest
import torch
from kd_cls.analysis.cam import MOST_IMAGES, Grid, Heat, analyse, as_heat, draw
from kd_cls.analysis.class_maps import activation_maps, class_maps, gradient_maps
from kd_cls.analysis.subject import Subject
from kd_cls.classifier import Classifier
from kd_cls.data import synthetic
from kd_cls.models import build_model
from kd_cls.roles import network_roles
from kd_core.errors import UserError
from kd_core.experiment.tables.plots import save_png
from torch import nn


class Flattened(nn.Module):
    """A classifier of a whole map, which class-activation maps do not suit."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(2), nn.Linear(16, 4)
        nn.init.uniform_(self.fc.weight, -0.2, 0.5)  # so that something speaks for every class

    def forward(self, image):
        return self.fc(self.avgpool(self.relu(self.conv(image))).flatten(1))


class Squared(nn.Module):
    """Averages a map and applies a linear layer, but not to the average itself."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)

    def forward(self, image):
        return self.fc(self.conv(image).mean((2, 3)).square())


class Pixels(nn.Module):
    """Has no map at all."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, image):
        return self.fc(image.mean((2, 3)))


def classifier(network, **roles):
    return Classifier(network, roles={**network_roles(network), **roles}).eval()


@pytest.fixture(scope="module")
def zoo():
    torch.manual_seed(0)
    return classifier(build_model("resnet8", num_classes=4))


@pytest.fixture(scope="module")
def images():
    return synthetic(image_size=32, num_classes=4, num_test=5).test.images


class TestActivationMaps:
    @pytest.mark.parametrize("name", ["resnet8", "vgg8", "MobileNetV2", "ShuffleV2"])
    def test_their_average_and_the_bias_are_the_logit(self, images, name):
        torch.manual_seed(0)
        model = classifier(build_model(name, num_classes=4))
        bias = [m for m in model.modules() if isinstance(m, nn.Linear)][-1].bias
        target = torch.tensor([0, 1, 2, 3, 0])
        maps, logits = class_maps(model, images, target, method="cam")
        expected = logits.gather(1, target[:, None])[:, 0]
        found = maps.mean((1, 2)) + bias[target]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)

    def test_they_weigh_channels(self):
        maps, weight = torch.randn(2, 3, 2, 2), torch.randn(5, 3)
        found = activation_maps(maps, weight)
        expected = sum(weight[4, d] * maps[1, d, 0, 1] for d in range(3))
        torch.testing.assert_close(found[1, 4, 0, 1], expected)

    def test_the_predicted_class_is_looked_for(self, zoo, images):
        maps, logits = class_maps(zoo, images)
        torch.testing.assert_close(maps, class_maps(zoo, images, logits.argmax(1))[0])
        assert not torch.equal(maps, class_maps(zoo, images, logits.argmin(1))[0])

    @pytest.mark.parametrize("network", [Flattened(), Squared()])
    def test_a_network_that_they_do_not_suit_is_refused(self, images, network):
        model = classifier(network, map="conv")
        with pytest.raises(UserError, match="use --method gradcam"):
            class_maps(model, images, method="cam")
        maps, _ = class_maps(model, images, method="auto")
        torch.testing.assert_close(maps, class_maps(model, images, method="gradcam")[0])


class TestGradCam:
    def test_behind_averaging_it_is_what_is_positive_of_the_activation_map(self, zoo, images):
        maps, _ = class_maps(zoo, images, method="cam")
        gradient, _ = class_maps(zoo, images, method="gradcam")
        positions = maps[0].numel()
        torch.testing.assert_close(gradient * positions, maps.relu(), rtol=1e-3, atol=1e-4)

    def test_it_equals_its_definition(self, images):
        network = Flattened().eval()
        target = torch.tensor([3, 2, 1, 0, 0])
        found, logits = gradient_maps(classifier(network), images, target, "relu")
        kept = network.relu(network.conv(images.float() / 255)).detach().requires_grad_()
        again = network.fc(network.avgpool(kept).flatten(1))
        torch.testing.assert_close(logits, again.detach())
        again[range(5), target].sum().backward()
        for n in range(5):
            weight = kept.grad[n].mean((1, 2))
            expected = sum(weight[d] * kept[n, d] for d in range(4)).relu()
            torch.testing.assert_close(found[n], expected.detach())
            assert found[n].max() > 0

    def test_a_map_that_is_overwritten_is_the_later_layer_s(self, images):
        model = classifier(Flattened())
        before, after = (gradient_maps(model, images, None, tap)[0] for tap in ("conv", "relu"))
        torch.testing.assert_close(before, after)
        assert after.max() > 0

    def test_the_last_map_is_taken_where_none_is_known(self, images):
        model = classifier(Flattened())
        found = class_maps(model, images)[0]
        torch.testing.assert_close(found, gradient_maps(model, images, None, "avgpool")[0])

    def test_frozen_networks_and_inference_mode_do_not_matter(self, zoo, images):
        expected = class_maps(zoo, images, method="gradcam")[0]
        frozen = classifier(build_model("resnet8", num_classes=4))
        frozen.load_state_dict(zoo.state_dict())
        frozen.requires_grad_(False)
        with torch.inference_mode():
            found, _ = class_maps(frozen, images.clone(), method="gradcam")
        torch.testing.assert_close(found, expected)
        assert all(parameter.grad is None for parameter in zoo.parameters())

    def test_what_gives_no_map_is_refused(self, zoo, images):
        with pytest.raises(UserError, match="no layer of Pixels gives a map"):
            class_maps(classifier(Pixels()), images)
        with pytest.raises(UserError, match="tap 'fc' gives"):
            class_maps(zoo, images, layer="fc")


class TestGrid:
    def test_heat_is_in_the_size_of_the_images_from_none_to_most(self):
        maps = torch.tensor([[[-1.0, 0.0], [2.0, 4.0]], [[-1.0, -2.0], [-3.0, -4.0]]])
        heat = as_heat(maps, (8, 6))
        assert heat.shape == (2, 8, 6)
        assert heat[0].min() == 0
        assert heat[0].max() == heat[0, -1, -1] == 1
        assert heat[1].eq(0).all()  # evidence against the class is not shown

    def test_true_classes_are_those_of_the_set(self, zoo, tmp_path):
        data = synthetic(image_size=32, num_classes=4, num_test=8)
        subject = Subject(data, {"a": zoo})
        found = analyse(subject, tmp_path / "a.png", limit=4, target="true")["a"]
        assert [row["class"] for row in found] == ["class 0", "class 2", "class 0", "class 2"]
        assert [row["image"] for row in found] == [row["class"] for row in found]
        logits = zoo({"image": data.test.images[[0, 2, 4, 6]]}).softmax(1)
        expected = [logits[row, label].item() for row, label in enumerate((0, 2, 0, 2))]
        assert [row["probability"] for row in found] == pytest.approx(expected, abs=1e-4)

    def test_headers_and_titles_are_as_wide_as_their_panels_and_never_overlap(
        self, monkeypatch, tmp_path
    ):
        figures = []

        def keep(figure, path):
            figures.append(figure)
            save_png(figure, path)

        monkeypatch.setattr("kd_cls.analysis.cam.save_png", keep)
        long = "tench, Tinca tinca, of the family Cyprinidae " * 4
        names = [long, "cat", "W" * 60]
        images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
        seen = Heat(torch.rand(3, 8, 8), names, [0.25] * 3)
        labels = ["resnet32x4 distilled with KD from resnet110, seed 0", "$_\\frac$", "M" * 50]
        draw(Grid(images, names, None), dict.fromkeys(labels, seen), tmp_path / "a.png")
        (figure,) = figures
        titles = [panel.title for panel in figure.axes]
        boxes = [title.get_window_extent() for title in titles]
        for number, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[number + 1 :])
            assert box.width <= 1.5 * figure.dpi
            assert box.y0 >= 0
            assert box.y1 <= figure.bbox.height
        assert titles[0].get_text() == "image"
        assert titles[1].get_text().split() == labels[0].split()
        assert titles[5].get_text().endswith("…\n0.25")  # the number is never cut
        sides = [panel.get_window_extent().height for panel in figure.axes[4:]]
        assert min(sides) > 0.8 * max(sides) > 100

    def test_too_many_images_are_refused(self, zoo, tmp_path):
        data = synthetic(image_size=32, num_classes=4, num_test=MOST_IMAGES + 1)
        with pytest.raises(UserError, match="41 images are too many"):
            analyse(Subject(data, {"a": zoo}), tmp_path / "a.png", limit=None)
