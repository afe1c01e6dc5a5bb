"""Embedders give embeddings and logits in both modes, whatever network of torchreid is inside."""

import pytest
import torch
from kd_core.errors import UserError
from kd_core.networks.roles import tap_list
from kd_core.networks.taps import FeatureTap
from kd_core.training.host_reads import NoHostReads
from kd_reid import torchreid
from kd_reid.embedder import Embedder
from kd_reid.losses import BatchHardTriplet
from kd_reid.models import build_model, model_names
from kd_reid.neck import BNNeck, attach, with_neck
from kd_reid.roles import network_roles
from torch import nn

LARGE = ["nasnsetmobile", "inceptionv4", "inceptionresnetv2", "xception", "resnet152"]
FEW = ["osnet_x0_25", "resnet18", "mobilenetv2_x1_0"]
HEADS = ["pcb_p4", "hacnn"]
LABEL = torch.tensor([0, 0, 1, 1])


def images(name="", count=4):
    size = (160, 64) if name == "hacnn" else (64, 32)
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))


def batch(name=""):
    return {"image": images(name), "label": LABEL}


@pytest.fixture(scope="module")
def osnet():
    torch.manual_seed(0)
    return build_model("osnet_x0_25", 5)


@pytest.mark.parametrize("name", [*FEW, pytest.param("densenet121", marks=pytest.mark.slow)])
def test_logits_and_embedding_are_those_of_the_plain_network(name):
    embedder = Embedder(build_model(name, 5)).eval()
    with torch.no_grad():
        found = embedder({"image": images()})
        plain = embedder.network(embedder.prepare(images()))
        assert torch.equal(found.embedding, plain)
        assert torch.allclose(found.logits[0], embedder.network.classifier(plain), atol=1e-6)
    assert found.features == (found.embedding,)
    assert not embedder.network.training


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in model_names() if n not in (*FEW, *LARGE)])
def test_every_network_of_torchreid_searches_as_it_does_itself(name):
    embedder = Embedder(build_model(name, 5)).eval()
    size = (160, 64) if name == "hacnn" else (256, 128)
    image = torch.rand(2, 3, *size)
    with torch.no_grad():
        found = embedder({"image": image})
        plain = embedder.network(embedder.prepare(image))
    assert torch.allclose(found.embedding, plain, atol=1e-5)
    assert all(logits.shape == (2, 5) for logits in found.logits)


@pytest.mark.parametrize("name", HEADS)
def test_networks_with_several_heads_are_trained_by_all_of_them(name):
    embedder = Embedder(build_model(name, 5), metric_losses={"triplet": BatchHardTriplet()})
    given = batch(name)
    if name == "pcb_p4":
        given["image"] = nn.functional.interpolate(given["image"], (128, 64))
    losses = embedder(given)
    assert losses.keys() == {"id", "triplet"}
    sum(losses.values()).backward()
    heads = [m for n, m in embedder.network.named_modules() if n.startswith("classifier")]
    linear = [m for m in heads if isinstance(m, nn.Linear)]
    assert len(linear) > 1
    assert all(m.weight.grad.abs().sum() > 0 for m in linear)


def test_in_training_it_gives_the_weighted_parts_and_counts_right_answers(osnet):
    embedder = Embedder(
        osnet, label_smoothing=0.1, metric_losses={"triplet": BatchHardTriplet(margin=0.5)}
    ).train()
    losses = embedder(batch())
    found = embedder.embed(images())
    expected = nn.functional.cross_entropy(found.logits[0], LABEL, label_smoothing=0.1)
    assert losses["id"].item() == pytest.approx(expected.item(), rel=1e-4)
    triplet = BatchHardTriplet(margin=0.5)(found.features[0], LABEL)
    assert losses["triplet"].item() == pytest.approx(triplet.item(), rel=1e-4)
    right = (found.logits[0].argmax(1) == LABEL).float().mean().item()
    assert embedder.training_metrics() == {"train_top1": 100 * right}
    assert embedder.training_metrics() == {}


def test_metric_losses_compute_in_full_precision_under_autocast(osnet):
    class Products(nn.Module):
        def forward(self, rows, label):
            self.dtype = (rows @ rows.T).dtype
            return rows.sum()

    loss = Products()
    with torch.autocast("cpu", torch.bfloat16):
        Embedder(osnet, metric_losses={"products": loss}).train()(batch())
    assert loss.dtype == torch.float32


def test_a_step_reads_nothing_from_the_device():
    network = build_model("osnet_x0_25", 5)
    attach(network)
    embedder = Embedder(network, metric_losses={"triplet": BatchHardTriplet()}).train()
    with NoHostReads():
        sum(embedder(batch()).values()).backward()


def test_the_map_is_what_is_pooled():
    network = build_model("densenet121", 5).eval()
    embedder = Embedder(network, roles=network_roles(network))
    with torch.no_grad(), FeatureTap(network, tap_list("@map", embedder)) as seen:
        embedding = embedder.eval()(batch()).embedding
    (maps,) = seen.values()
    assert torch.allclose(maps.mean((2, 3)), embedding, rtol=1e-4, atol=1e-4)


def test_hacnn_makes_its_tensors_where_its_images_are():
    network = build_model("hacnn", 5)
    network.use_gpu = True  # as it is left by images on a GPU
    with torch.no_grad():
        assert len(Embedder(network).eval()(batch("hacnn")).logits) == 2


def test_images_are_resized_and_normalised_on_the_device(osnet):
    embedder = Embedder(osnet, mean=(0.5,) * 3, std=(0.25,) * 3, size=(32, 16))
    prepared = embedder.prepare(torch.full((1, 3, 64, 32), 255, dtype=torch.uint8))
    assert prepared.shape == (1, 3, 32, 16)
    assert torch.allclose(prepared, torch.tensor(2.0))


class TestFixedBase:
    def test_only_the_classifier_is_trained_at_first(self):
        embedder = Embedder(build_model("osnet_x0_25", 5), fixed_base_epochs=1).train()
        embedder.begin_epoch(0)
        before = {k: v.clone() for k, v in embedder.network.state_dict().items()}
        optimizer = torch.optim.Adam(embedder.parameters(), weight_decay=0.1)
        sum(embedder(batch()).values()).backward()
        optimizer.step()
        changed = {k for k, v in embedder.network.state_dict().items() if not v.equal(before[k])}
        assert changed == {"classifier.weight", "classifier.bias"}

    def test_then_everything_is(self):
        embedder = Embedder(build_model("osnet_x0_25", 5), fixed_base_epochs=1).train()
        embedder.begin_epoch(0)
        embedder.train()
        embedder.begin_epoch(1)
        sum(embedder(batch()).values()).backward()
        assert all(p.grad is not None for p in embedder.parameters())
        assert all(module.training for module in embedder.modules())


class TestNeck:
    @pytest.fixture
    def embedder(self):
        torch.manual_seed(0)
        network = build_model("osnet_x0_25", 5)
        attach(network)
        embedder = Embedder(network, metric_losses={"triplet": BatchHardTriplet()}).train()
        with torch.no_grad():
            network.classifier.bn.weight.uniform_(0.5, 2)
            network.classifier.linear.weight.normal_()
        for _ in range(3):
            embedder(batch())  # moves the running statistics
        return embedder.eval()

    def test_search_uses_the_embedding_behind_it_and_metric_losses_the_one_before(self, embedder):
        with torch.no_grad():
            found = embedder(batch())
            neck = embedder.network.classifier
            assert torch.equal(found.embedding, neck.bn(found.features[0]))
            assert torch.allclose(found.logits[0], neck.linear(found.embedding))
            features = embedder.train().embed(images()).features[0]
            triplet = BatchHardTriplet()(features, LABEL).item()
            assert embedder(batch())["triplet"].item() == pytest.approx(triplet, rel=1e-3)

    def test_its_shift_is_not_trained(self, embedder):
        assert not embedder.network.classifier.bn.bias.requires_grad
        assert embedder.network.classifier.linear.bias is None

    def test_the_plain_network_of_torchreid_loads_the_student_and_gives_its_logits(self, embedder):
        products = embedder.products()
        plain = torchreid.models.build_model(
            "osnet_x0_25", 5, loss="triplet", pretrained=False, use_gpu=False
        )
        plain.load_state_dict(products["student"])
        with torch.no_grad():
            found, prepared = embedder(batch()), embedder.prepare(images())
            embedding = plain.eval()(prepared)
            assert torch.allclose(embedding, found.features[0], atol=1e-6)
            assert torch.allclose(plain.classifier(embedding), found.logits[0], atol=1e-4)

    def test_both_files_together_are_the_whole(self, embedder):
        products = embedder.products()
        whole = with_neck(products["student"], products["neck"])
        state = embedder.network.state_dict()
        assert whole.keys() == state.keys()
        assert all(torch.equal(whole[name], state[name]) for name in state)

    def test_networks_without_a_single_head_are_refused(self):
        with pytest.raises(UserError, match="wanted a linear layer 'classifier' in PCB"):
            attach(build_model("pcb_p4", 5))

    def test_it_classifies_without_a_bias(self):
        neck = BNNeck(4, 3).eval()
        assert neck(torch.zeros(2, 4)).abs().sum() == 0


class TestBadInput:
    def test_names_are_checked(self):
        with pytest.raises(UserError, match=r"no network 'osnet_x025'.*osnet_x0_25"):
            build_model("osnet_x025", 5)

    @pytest.mark.parametrize("name", ["resnet18", "resnet50_fc512", "se_resnet50"])
    def test_the_last_stride_is_set_in_resnets_only(self, name):
        shapes = []
        for stride in (2, 1):
            network = build_model(name, 5, last_stride=stride)
            shapes.append(network.featuremaps(images()).shape[-2:])
        assert shapes == [(2, 1), (4, 2)]
        with pytest.raises(UserError, match="last_stride is for ResNets"):
            build_model("osnet_x0_25", 5, last_stride=1)

    def test_a_network_without_embedding_is_refused(self):
        plain = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
        with pytest.raises(UserError, match=r"Sequential returned a Tensor.*loss='triplet'"):
            Embedder(plain)(batch())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"mean": (0.5, 0.5)}, "mean: wanted at least 3 values"),
            ({"size": (256,)}, "size: wanted at least 2 values"),
            ({"label_smoothing": 2}, "label_smoothing: wanted a number of at most 1"),
            ({"fixed_base_epochs": -1}, "fixed_base_epochs: wanted a number of at least 0"),
            ({"metric_losses": {"id": BatchHardTriplet()}}, "choose another"),
        ],
    )
    def test_settings_are_checked(self, osnet, options, message):
        with pytest.raises(UserError, match=message):
            Embedder(osnet, **options)

    def test_a_network_of_one_size_only_says_what_to_set(self):
        with pytest.raises(UserError, match=r"HACNN: .*\(160, 64\).*size=\[height, width\]"):
            Embedder(build_model("hacnn", 5)).eval()({"image": images()})

    def test_a_failed_download_says_what_to_do(self, monkeypatch):
        def fail(*args, **kwargs):
            raise OSError("no network")

        monkeypatch.setattr(torchreid.models, "build_model", fail)
        with pytest.raises(UserError, match=r"could not download.*pretrained=False"):
            build_model("resnet18", 5, pretrained=True)
