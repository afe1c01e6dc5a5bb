"""A text names a model; a wrong one is told its nearest neighbour."""

import pytest
import torch
from kd_cls.adapter import ADAPTER
from kd_cls.analysis.models import labels_of, load_model
from kd_cls.classifier import Classifier
from kd_cls.data import synthetic
from kd_cls.models import build_model
from kd_core.errors import UserError
from kd_core.files import checkpoint

IMAGENET_MEAN = [0.485, 0.456, 0.406]


@pytest.fixture(scope="module")
def data():
    return synthetic(image_size=32, num_classes=4, num_test=8, batch_size=4)


@pytest.fixture
def run(tmp_path, data):
    """The folder of a finished run."""
    network = build_model("resnet8", num_classes=4)
    node = {"type": "kd_cls.models.build_model", "name": "resnet8"}
    facts = ADAPTER.metadata(node, data, Classifier(network, mean=(0.1,) * 3, std=(0.2,) * 3))
    checkpoint.export(network.state_dict(), tmp_path / "runs/dkd-0/student", facts)
    return tmp_path / "runs" / "dkd-0", network.eval()


@pytest.fixture
def networks(tmp_path):
    folder = tmp_path / "networks"
    folder.mkdir()
    (folder / "own_net.py").write_text(
        'student = dict(network=dict(type="torchvision.models.resnet18", weights="DEFAULT"), '
        "new_head=True, size=48)\n"
    )
    (folder / "empty.py").write_text("trainer = dict(epochs=1)\n")
    return folder


def logits(classifier, data):
    with torch.no_grad():
        return classifier(data.test.sample(3))


@pytest.mark.parametrize("file", ["", "student.safetensors"])
def test_a_finished_run_is_a_model_with_roles(run, data, file):
    folder, network = run
    loaded = load_model(str(folder / file), data)
    expected = Classifier(network, mean=(0.1,) * 3, std=(0.2,) * 3).eval()
    torch.testing.assert_close(logits(loaded, data), logits(expected, data))
    assert not loaded.training
    assert {"stages", "pooled", "map"} <= loaded.roles.keys()


@pytest.mark.parametrize("wrapper", ["model", "state_dict", None])
def test_a_network_of_the_zoo_reads_any_checkpoint(run, data, tmp_path, wrapper):
    state = run[1].state_dict()
    torch.save({wrapper: state, "accuracy": 1.0} if wrapper else state, tmp_path / "a=b.pth")
    loaded = load_model(f"resnet8={tmp_path / 'a=b.pth'}", data)
    expected = Classifier(run[1], mean=data.mean, std=data.std).eval()
    torch.testing.assert_close(logits(loaded, data), logits(expected, data))


def test_random_weights_are_always_alike_and_leave_the_generator_alone(data):
    state = torch.get_rng_state()
    one = load_model("resnet8=random", data)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(1)
    torch.testing.assert_close(logits(one, data), logits(load_model("resnet8=random", data), data))


def test_a_file_of_the_networks_keeps_size_and_pretrained_statistics(data, networks):
    loaded = load_model("own_net=random", data, networks=networks)
    assert loaded.size == 48
    assert loaded.mean.flatten().tolist() == pytest.approx(IMAGENET_MEAN)
    assert logits(loaded, data).shape == (3, 4)


NET = """
from torch import nn

class Net(nn.Module):
    pretrained_cfg = {"mean": (0.3, 0.3, 0.3), "std": (0.2, 0.2, 0.2)}

    def __init__(self, num_classes, pretrained=False):
        super().__init__()
        self.fc = nn.Linear(3, num_classes)

    def forward(self, image):
        return {"out": self.fc(image.mean((2, 3)))}
"""


def test_a_network_with_pretrained_statistics_keeps_the_name_of_its_logits(
    data, networks, monkeypatch
):
    (networks / "net_of_dicts.py").write_text(NET)
    (networks / "named.py").write_text(
        'student = dict(network=dict(type="net_of_dicts.Net", num_classes=4, pretrained=True), '
        'output="out")\n'
    )
    monkeypatch.syspath_prepend(networks)
    loaded = load_model("named=random", data, networks=networks)
    assert loaded.mean.flatten().tolist() == pytest.approx([0.3] * 3)
    assert logits(loaded, data).shape == (3, 4)


def test_an_import_path_gets_the_number_of_classes(data):
    loaded = load_model("torchvision.models.squeezenet1_1=random", data)
    assert logits(loaded, data).shape == (3, 4)


def test_pretrained_weights_are_asked_for_with_their_own_head(data, networks, monkeypatch):
    asked = []

    def build(data, where, **node):
        asked.append(node)
        raise UserError("stop")

    monkeypatch.setattr("kd_cls.analysis.models.build_classifier", build)
    for spec in ("torchvision.models.resnet18=pretrained", "own_net=pretrained"):
        with pytest.raises(UserError, match="stop"):
            load_model(spec, data, networks=networks)
    network = {"type": "torchvision.models.resnet18", "weights": "DEFAULT"}
    assert asked == [{"network": network}, {"network": network, "size": 48}]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet9=random", "no network is called 'resnet9'; did you mean .*'resnet8'"),
        ("own_nett=random", "did you mean 'own_net'"),
        ("torchvision.models.resnet81=random", "did you mean .*'resnet18'"),
        ("empty=random", "empty.py: student.network: wanted a dict with `type`"),
        ("resnet8", "with which weights"),
        ("own_net", "with which weights"),
        ("resnet8=", "with which weights"),
        ("resnet8=pretrained", "has no pretrained weights"),
        ("resnet8=nowhere.pth", "no weights file 'nowhere.pth'"),
        ("{runs}/dkd-1", "did you mean 'dkd-0'"),
        ("{runs}", "no student.safetensors.*dkd-0"),
        ("{runs}/other.pth", "does not name its network; write NAME="),
    ],
)
def test_a_wrong_text_is_told_what_is_nearest(run, data, networks, spec, message):
    runs = run[0].parent
    (runs / "other.pth").touch()
    spec = spec.format(runs=runs)
    with pytest.raises(UserError, match=message) as caught:
        load_model(spec, data, networks=networks)
    assert str(caught.value).startswith(f"model {spec!r}: ")


def test_other_classes_are_refused(run, data):
    more = synthetic(image_size=32, num_classes=5)
    with pytest.raises(UserError, match="gives 4 logits, the data has 5 classes"):
        load_model(str(run[0]), more)


def test_other_names_of_classes_are_warned_of(run, data, capsys):
    renamed = synthetic(image_size=32, num_classes=4)
    renamed.classes = ("class 0", "[b]ant", "class 2", "class 3")
    load_model(str(run[0]), renamed)
    printed = " ".join(capsys.readouterr().err.split())
    assert "calls a class 'class 1' that the data calls '[b]ant' (1 differ)" in printed
    load_model(str(run[0]), data)
    assert capsys.readouterr().err == ""


class TestLabels:
    def test_runs_and_networks_give_the_names(self, run):
        specs = [str(run[0]), "resnet8=a.pth", "torchvision.models.resnet18=random"]
        assert labels_of(specs) == ["dkd-0", "resnet8", "resnet18 (random)"]
        assert labels_of([str(run[0] / "student.safetensors")]) == ["dkd-0"]

    def test_models_of_one_name_are_called_by_their_whole_text(self):
        assert labels_of(["resnet8=a.pth", "resnet8=b.pth"]) == ["resnet8=a.pth", "resnet8=b.pth"]

    def test_every_model_has_one_name(self):
        with pytest.raises(UserError, match="wanted 2 names"):
            labels_of(["a=x", "b=y"], ["a"])
        with pytest.raises(UserError, match="two models are called 'a'"):
            labels_of(["x=1", "y=2"], ["a", "a"])
