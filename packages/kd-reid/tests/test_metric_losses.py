"""Losses on embeddings by name, by import path or by node; training by them is torchreid's."""

import copy

import pytest
import torch
from kd_core.config.folder import configs_folder
from kd_core.distill.distiller import Distiller
from kd_core.errors import UserError
from kd_core.experiment.builder import without_single
from kd_core.networks.probe import first_pass
from kd_reid import torchreid
from kd_reid.data import synthetic
from kd_reid.embedder import Embedder
from kd_reid.losses import BatchHardTriplet
from kd_reid.metric_losses import nodes_of
from kd_reid.models import build_model
from kd_reid.networks import build_embedder, check_identities, parse_embedder
from kd_reid.train import main
from pytorch_metric_learning import losses
from torch import nn

OSNET = {"type": "kd_reid.models.build_model", "name": "osnet_tiny"}
PLACE = "student.metric_losses"


class Small(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, num_classes)

    def forward(self, images):
        features = self.body(images).mean((2, 3))
        return (self.fc(features), features) if self.training else features


@pytest.fixture(scope="module")
def data():
    return synthetic(num_ids=5, image_size=(32, 16), batch_size=8, instances=2)


def student(data, written, network=None):
    node = {"network": network or {"type": Small}, "metric_losses": written}
    return build_embedder(data, "student", **parse_embedder(node, "student"))


@pytest.fixture
def doubles():
    """Compute in float64 by default: in float32 the steps of two part by rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("doubles")
def test_four_steps_are_those_of_torchreid():
    torch.manual_seed(0)
    network = build_model("osnet_tiny", 5)
    embedder = Embedder(
        copy.deepcopy(network), label_smoothing=0.1, metric_losses={"triplet": BatchHardTriplet()}
    )
    embedder.train()
    identity = torchreid.losses.CrossEntropyLoss(5, use_gpu=False, label_smooth=True)
    triplet = torchreid.losses.TripletLoss(margin=0.3)
    network.train()
    optimizers = [
        torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9) for model in (embedder, network)
    ]
    label = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    for _ in range(4):
        batch = {"image": torch.rand(8, 3, 64, 32), "label": label}
        mine = embedder(batch)
        logits, features = network(embedder.prepare(batch["image"]))
        theirs = {"id": identity(logits, label), "triplet": triplet(features, label)}
        for name, value in theirs.items():
            assert mine[name].item() == pytest.approx(value.item(), abs=1e-6)
        for optimizer, losses_ in zip(optimizers, (mine, theirs), strict=True):
            optimizer.zero_grad()
            sum(losses_.values()).backward()
            optimizer.step()


@pytest.mark.parametrize(
    ("written", "kinds"),
    [
        ("triplet", {"triplet": BatchHardTriplet}),
        ("[triplet,circle]", {"triplet": BatchHardTriplet, "circle": losses.CircleLoss}),
        (["arcface"], {"arcface": losses.ArcFaceLoss}),
        ({"mine": "multi_similarity"}, {"mine": losses.MultiSimilarityLoss}),
        ({"circle": {"m": 0.25}}, {"circle": losses.CircleLoss}),
        ({"circle": None}, {"circle": losses.CircleLoss}),
        ({"own": {"type": "ProxyAnchorLoss"}}, {"own": losses.ProxyAnchorLoss}),
        ("pytorch_metric_learning.losses.CosFaceLoss", {"CosFaceLoss": losses.CosFaceLoss}),
        ("kd_reid.losses.BatchHardTriplet", {"BatchHardTriplet": BatchHardTriplet}),
        ("p2sgrad", {"p2sgrad": losses.P2SGradLoss}),
    ],
)
def test_losses_are_named_in_any_way(data, written, kinds):
    embedder = student(data, written)
    assert {name: type(loss) for name, loss in embedder.metric_losses.items()} == kinds
    found = embedder.train()(data.train.sample(8))
    assert found.keys() == {"id", *kinds}
    assert all(value.isfinite() for value in found.values())


def test_numbers_of_identities_and_the_width_are_filled_in(data):
    arcface = student(data, "arcface").metric_losses["arcface"]
    assert arcface.W.shape == (6, 5)
    assert {"W"} == {name for name, _ in arcface.named_parameters()}
    said = {"arcface": {"num_classes": 9}}
    assert student(data, said).metric_losses["arcface"].W.shape == (6, 9)
    assert student(data, {"circle": {"m": 0.25}}).metric_losses["circle"].m == 0.25


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("triplt", r"student\.metric_losses\.triplt\.type: no loss .* 'triplt'; did you mean 'tri"),
        ({"trplet": {}}, r"no loss .* 'trplet'; did you mean 'triplet'"),
        ({"a": "pytorch_metric_learning.losses.CircelLoss"}, r"\.a\.type: .*mean 'CircleLoss'"),
        ({"circle": {"gama": 3}}, r"metric_losses\.circle"),
        ({"a.b": "triplet"}, "'a.b' is not a name"),
        (["triplet", "triplet"], "wanted a loss by name such as 'triplet', several, each once"),
        ({"type": "triplet"}, "a dict of nodes by name"),
        (3, "wanted a loss by name"),
        ("id", "no loss on embeddings is called 'id'"),
    ],
)
def test_wrong_names_are_refused_in_one_line(data, written, message):
    with pytest.raises(UserError, match=message) as caught:
        student(data, written)
    assert "\n" not in str(caught.value)


def test_without_the_other_package_its_losses_say_what_to_install(monkeypatch):
    monkeypatch.setattr("kd_reid.metric_losses._others", dict)
    with pytest.raises(UserError, match=r"'circle'.*pip install 'kd-reid\[metric\]'"):
        nodes_of("circle", PLACE)


def test_one_identity_alone_is_refused():
    data = synthetic(num_ids=1, image_size=(32, 16), batch_size=4)
    embedder = student(data, "triplet")
    with pytest.raises(UserError, match="the training set has one identity"):
        check_identities(embedder, data.train.sample(2), data, "student")


def test_images_too_small_for_the_network_are_refused_before_training():
    data = synthetic(num_ids=5, image_size=(8, 4), batch_size=4, instances=2)
    embedder = student(data, "triplet", OSNET)
    with pytest.raises(UserError, match=r"student: OSNet failed in a first pass.*\[2, 3, 8, 4\]"):
        check_identities(embedder, data.train.sample(2), data, "student")


def test_a_last_batch_of_one_is_left_out_and_told():
    data = synthetic(num_ids=3, images_per_id=3, image_size=(32, 16), batch_size=4, drop_last=False)
    distiller = Distiller(student(data, None, OSNET), {}, {}, sample=data.train.sample(2))
    loader, note = without_single(distiller, data.train)
    assert [len(batch["label"]) for batch in loader.epoch(0)] == [4, 4]
    assert "the last batch of an epoch has one image" in note
    assert first_pass(distiller.student, data.train.sample(1)).embedding.shape == (1, 512)


def test_the_command_line_names_them(capsys):
    config = str(configs_folder() / "demo/reid_student.py")
    options = ["student.metric_losses=[triplet,arcface]", "data.instances=4"]
    assert main([config, "--dry-run", "--cfg-options", *options]) == 0
    assert main([config, "--dry-run", "--cfg-options", "student.metric_losses=triplt"]) == 2
    assert "did you mean 'triplet'" in capsys.readouterr().err
