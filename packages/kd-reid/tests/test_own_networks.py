"""Networks of users are searched as they search themselves, and trained by their own heads."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.errors import UserError
from kd_core.networks.image_channels import input_channels
from kd_core.networks.taps import FeatureTap
from kd_reid.data import synthetic
from kd_reid.embedder import Embedder
from kd_reid.heads import batch_of, find_heads
from kd_reid.networks import build_embedder, check_identities, parse_embedder
from torch import nn

LABEL = torch.tensor([0, 0, 1, 1])


class Own(nn.Module):
    """The strong baseline by hand: features, a BatchNorm behind them, a head of another name."""

    def __init__(self, num_classes=5, *, ends="normed"):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.scale = nn.Parameter(torch.ones(8))  # at the root
        self.bottleneck = nn.BatchNorm1d(8)
        self.bottleneck.bias.requires_grad_(False)
        self.fc = nn.Linear(8, num_classes, bias=False)
        self.ends = ends

    def forward(self, images):
        features = F.dropout(self.body(images).flatten(1) * self.scale, 0.5, self.training)
        normed = self.bottleneck(features)
        if self.training:
            return self.fc(normed), features
        if self.ends == "logits":
            return self.fc(normed)
        if self.ends == "pair":
            return self.fc(normed), normed
        return normed if self.ends == "normed" else F.normalize(normed)


def own(ends="normed", **options):
    torch.manual_seed(0)
    network = Own(ends=ends)
    nn.init.uniform_(network.bottleneck.running_mean)
    nn.init.uniform_(network.bottleneck.running_var, 0.5, 2)
    heads = find_heads(network, batch_of(2, 3, (16, 8)))
    return Embedder(network, heads=heads, **options)


def batch():
    return {"image": batch_of(4, 3, (16, 8)), "label": LABEL}


@pytest.mark.parametrize("ends", ["normed", "normalised", "pair"])
@torch.no_grad()
def test_the_search_is_by_what_the_network_gives_in_evaluation(ends):
    embedder = own(ends).eval()
    given = embedder.network(embedder.prepare(batch()["image"]))
    expected = given[1] if ends == "pair" else given
    assert torch.equal(embedder(batch()).embedding, expected)
    assert torch.equal(embedder.embed(batch()["image"]).embedding, expected)
    assert not embedder.network.training


@torch.no_grad()
def test_its_logits_are_without_dropout_in_evaluation():
    embedder = own().eval()
    normed = embedder.network(embedder.prepare(batch()["image"]))
    for _ in range(2):
        found = embedder.embed(batch()["image"])
        assert torch.allclose(found.logits[0], embedder.network.fc(normed), atol=1e-6)
    assert torch.allclose(embedder.network.bottleneck(found.features[0]), normed, atol=1e-6)


@torch.no_grad()
def test_a_tap_of_its_head_sees_one_pass_and_the_search_stays_right():
    embedder = own("normalised").eval()
    expected = embedder(batch()).embedding
    with FeatureTap(embedder.network, ["fc", "body.0"]) as seen:
        found = embedder(batch())
    assert torch.equal(found.embedding, expected)
    assert torch.equal(seen["fc"], embedder.embed(batch()["image"]).logits[0])


def test_dropout_of_attention_at_the_root_is_off_too():
    class Attending(Own):
        def forward(self, images):
            rows = self.body(images).flatten(1)[:, None, None]
            off = 0.5 if self.training else 0.0
            seen = F.scaled_dot_product_attention(rows, rows, rows, None, off)
            seen = F.batch_norm(
                seen[:, 0, 0],
                self.scale.detach() * 0,
                self.scale.detach(),
                None,
                None,
                self.training,
            )
            return (self.fc(seen), seen) if self.training else seen

    embedder = Embedder(Attending()).eval()
    with torch.no_grad():
        found, plain = embedder.embed(batch()["image"]), embedder(batch()).embedding
        assert torch.equal(found.features[0], plain)


def test_its_heads_are_found_by_what_gives_the_logits():
    network = Own()
    heads = find_heads(network, batch_of(2, 3, (16, 8)))
    assert heads.paths == ("fc",)
    assert set(heads.new) == {"fc", "bottleneck"}
    assert all(p.grad is None for p in network.parameters())


class TestFixedBase:
    def test_a_head_of_another_name_is_trained_and_the_root_is_not(self):
        embedder = own(fixed_base_epochs=1).train()
        embedder.begin_epoch(0)
        before = {k: v.clone() for k, v in embedder.network.state_dict().items()}
        optimizer = torch.optim.Adam(embedder.parameters(), weight_decay=0.1)
        sum(embedder(batch()).values()).backward()
        optimizer.step()
        changed = {k for k, v in embedder.network.state_dict().items() if not v.equal(before[k])}
        assert "fc.weight" in changed
        assert all(name.startswith(("fc", "bottleneck")) for name in changed)

    def test_what_its_author_froze_stays_frozen(self):
        embedder = own(fixed_base_epochs=1).train()
        embedder.begin_epoch(0)
        embedder.begin_epoch(1)
        frozen = [n for n, p in embedder.network.named_parameters() if not p.requires_grad]
        assert frozen == ["bottleneck.bias"]

    def test_a_network_whose_head_is_not_found_is_refused(self):
        with pytest.raises(UserError, match="which layer of Own gives the logits"):
            Embedder(Own(), fixed_base_epochs=1)


@pytest.fixture(scope="module")
def data():
    return synthetic(num_ids=5, image_size=(16, 8), batch_size=8, instances=2)


def student(data, **node):
    call = parse_embedder({"network": {"type": Own, **node.pop("network", {})}, **node}, "student")
    return build_embedder(data, "student", **call)


def check(data, **node):
    embedder = student(data, **node)
    check_identities(embedder, data.train.sample(2), data, "student")
    return embedder


def test_a_node_finds_the_head_and_names_its_taps(data):
    embedder = check(data, fixed_base_epochs=1)
    assert embedder.heads.paths == ("fc",)
    assert embedder.roles["logits"] == ("fc",)
    assert input_channels(embedder.network) == 3


def test_a_backbone_needs_neither_the_head_nor_what_is_behind_the_features(data, tmp_path):
    network = Own(7)
    body = {k: v for k, v in network.state_dict().items() if not k.startswith("bottleneck")}
    torch.save(body, tmp_path / "w.pth")
    embedder = student(data, backbone_weights=str(tmp_path / "w.pth"))
    assert torch.equal(embedder.network.body[0].weight, network.body[0].weight)
    del body["body.0.weight"]
    torch.save(body, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"body\.0\.weight"):
        student(data, backbone_weights=str(tmp_path / "w.pth"))


def test_a_network_that_gives_its_logits_in_evaluation_is_refused(data):
    with pytest.raises(UserError, match="student: Own returns its logits in evaluation"):
        check(data, network={"ends": "logits"})


@pytest.mark.parametrize(("size", "instances"), [(4, 4), (4, 1)])
def test_batches_without_pairs_are_refused_before_training(size, instances):
    data = synthetic(num_ids=5, image_size=(16, 8), batch_size=size, instances=instances)
    with pytest.raises(UserError, match=r"metric_losses: a batch has .* at least two of both"):
        check(data, metric_losses="triplet")


def test_batches_by_chance_are_told(capsys):
    check(synthetic(num_ids=5, image_size=(16, 8), batch_size=8), metric_losses="triplet")
    assert "data.instances is not set" in capsys.readouterr().err
