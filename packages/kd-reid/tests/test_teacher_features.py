"""Teachers without a classifier of identities: any network that gives an embedding or tokens."""

import pytest
import torch
from kd_core.errors import UserError
from kd_core.experiment.builder import build_distiller
from kd_core.networks.roles import tap_list
from kd_core.networks.taps import FeatureTap
from kd_reid.adapter import ADAPTER
from kd_reid.data import synthetic
from kd_reid.models import build_model
from kd_reid.networks import build_embedder, parse_embedder
from kd_reid.teacher_features import FeatureEmbedder
from torch import nn

VIT = {
    "type": "timm:vit_tiny_patch16_224",
    "img_size": [32, 16],
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
}
HUGGING_FACE = {
    "type": "transformers.ViTModel",
    "config": {
        "type": "transformers.ViTConfig",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": [32, 16],
        "patch_size": 8,
    },
}
OSNET = {"type": "kd_reid.models.build_model", "name": "osnet_tiny"}
TERMS = {
    "rkd": ("kd_core.criteria.rkd.RKD", "@embedding"),
    "similarity": ("kd_reid.criteria.similarity.Similarity", "@embedding"),
    "cosine": ("kd_reid.criteria.cosine.Cosine", "@embedding"),
    "pkt": ("kd_core.criteria.pkt.PKT", "@embedding"),
    "sp": ("kd_core.criteria.sp.SP", "@embedding"),
    "vectors": ("kd_core.criteria.unic.UNICVectors", "@pooled"),
    "queue": ("kd_core.criteria.queue_kl.QueueKL", "@pooled"),
    "seed": ("kd_core.criteria.queue_kl.SEED", "@pooled"),
}
QUEUE = {"queue": {"queue_size": 16}, "seed": {"queue_size": 16, "teacher_temperature": 0.05}}
ZERO_AT_IDENTITY = ["rkd", "similarity", "cosine", "pkt", "sp"]


class Small(nn.Module):
    """A student: its map has the grid of the teachers' tokens."""

    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 8, 8), nn.ReLU(), nn.Conv2d(16, 16, 1))
        self.fc = nn.Linear(16, num_classes)

    def forward(self, images):
        features = self.body(images).mean((2, 3))
        return (self.fc(features), features) if self.training else features


class Clip(nn.Module):
    """The image encoder of CLIP in small, with its names: it gives tokens, projected."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 8, 8, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(16))
        self.positional_embedding = nn.Parameter(torch.randn(9, 16))
        self.ln_pre = nn.LayerNorm(16)
        self.ln_post = nn.LayerNorm(16)
        self.proj = nn.Parameter(torch.randn(16, 8))

    def forward(self, images):
        patches = self.conv1(images).flatten(2).mT
        first = self.class_embedding.expand(len(patches), 1, -1)
        tokens = self.ln_pre(torch.cat([first, patches], 1) + self.positional_embedding)
        return self.ln_post(tokens) @ self.proj


class Swin(nn.Module):
    """SOLIDER's transformer in small, with its names: it gives the embedding and its maps."""

    def __init__(self):
        super().__init__()
        self.patch_embed = nn.ModuleDict({"projection": nn.Conv2d(3, 8, 4, 4)})
        self.semantic_embed_w = nn.ModuleList([nn.Linear(2, 8)])
        self.norm3 = nn.LayerNorm(8)

    def forward(self, images):
        maps = self.patch_embed["projection"](images)
        weight = self.semantic_embed_w[0](maps.new_tensor([[0.2, 0.8]]))
        maps = self.norm3((maps * weight[..., None, None]).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return maps.mean((2, 3)), [maps]


SMALL = {"type": Small}


@pytest.fixture(scope="module")
def data():
    return synthetic(num_ids=5, image_size=(32, 16), batch_size=8, instances=2)


def teacher(data, network, **node):
    call = parse_embedder({"network": network, **node}, "teacher")
    return build_embedder(data, "teacher", **call).eval()


def saved(tmp_path, state):
    torch.save(state, tmp_path / "w.pth")
    return str(tmp_path / "w.pth")


def clip_reid():
    """Return a state dict in the layout of CLIP-ReID's files, and its encoder."""
    encoder = Clip()
    state = {f"image_encoder.{k}": v for k, v in encoder.state_dict().items()}
    for name, width in {"bottleneck": 16, "bottleneck_proj": 8}.items():
        norm = nn.BatchNorm1d(width).state_dict().items()
        state |= {f"{name}.{key}": value for key, value in norm}
    state |= {"classifier.weight": torch.rand(7, 16), "classifier_proj.weight": torch.rand(7, 8)}
    state |= {"prompt_learner.cls_ctx": torch.rand(7, 4, 8), "text_encoder.proj": torch.rand(8, 8)}
    return state, encoder


def solider():
    """Return a state dict in the layout of SOLIDER-REID's files, and its backbone."""
    backbone = Swin()
    state = {f"base.{k}": v for k, v in backbone.state_dict().items()}
    norm = nn.BatchNorm1d(8).state_dict().items()
    state |= {f"bottleneck.{key}": value for key, value in norm}
    return {**state, "classifier.weight": torch.rand(7, 8)}, backbone


def without_classifier():
    torch.manual_seed(1)
    network = build_model("osnet_tiny", 7).eval()
    state = network.state_dict()
    return {k: v for k, v in state.items() if not k.startswith("classifier")}, network


MADE = {
    "timm": lambda data, tmp_path: teacher(data, VIT, weights="random"),
    "hugging_face": lambda data, tmp_path: teacher(data, HUGGING_FACE, weights="random"),
    "zoo": lambda data, tmp_path: teacher(
        data, OSNET, weights=saved(tmp_path, without_classifier()[0])
    ),
    "clip_reid": lambda data, tmp_path: teacher(
        data,
        {"type": Clip},
        weights=saved(tmp_path, clip_reid()[0]),
        roles={"embedding": "output:cls(prefix=1)", "tokens": "output:tokens(prefix=1,grid=4x2)"},
    ),
    "solider": lambda data, tmp_path: teacher(
        data, {"type": Swin}, weights=saved(tmp_path, solider()[0])
    ),
}


@pytest.fixture(scope="module", params=MADE)
def made(request, data, tmp_path_factory):
    torch.manual_seed(0)
    return MADE[request.param](data, tmp_path_factory.mktemp("teacher"))


def terms(*names):
    return {
        name: {
            "criterion": {"type": TERMS[name][0], **QUEUE.get(name, {})},
            "student": TERMS[name][1],
            "teacher": TERMS[name][1],
        }
        for name in names
    }


def falls(data, shown, term):
    """Return a term's loss on one batch before each of three steps; its queue stays as it is."""
    torch.manual_seed(0)
    sample = data.train.sample(8)
    student = build_embedder(data, "student", **parse_embedder({"network": SMALL}, "student"))
    distiller = build_distiller(
        data, student, {"teacher": shown}, sample, terms=term, task_weight=0
    )
    distiller.begin(1, 1)
    distiller.train()
    optimizer = torch.optim.Adam(distiller.parameters(), lr=1e-3)
    kept = {name: value.clone() for name, value in distiller.named_buffers()}
    seen = []
    for _ in range(3):
        for name, value in distiller.named_buffers():
            value.copy_(kept[name])
        (loss,) = distiller(sample).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    return seen


@pytest.mark.parametrize("name", TERMS)
def test_each_kind_of_teacher_lowers_every_loss_in_two_steps(made, data, name):
    seen = falls(data, made, terms(name))
    assert seen[2] < seen[1] < seen[0]


def test_tokens_are_learnt_one_by_one(made, data):
    if "tokens" not in made.roles:
        with pytest.raises(UserError, match="it gives no tokens: learn its @embedding"):
            tap_list("@tokens", made)
        return
    criterion = {"type": "kd_core.criteria.unic.UNICTokens"}
    term = {"criterion": criterion, "student": "body.0:nchw:tokens", "teacher": "@tokens"}
    seen = falls(data, made, {"tokens": term})
    assert seen[2] < seen[1] < seen[0]


@torch.no_grad()
def test_each_kind_of_teacher_can_be_searched_by(made, data):
    found = made(data.train.sample(3))
    assert isinstance(made, FeatureEmbedder)
    assert found.embedding.dim() == 2
    assert len(found.embedding) == 3
    assert found.logits == ()


@torch.no_grad()
def test_own_weights_as_teacher_give_zero(data, tmp_path):
    state, _ = without_classifier()
    student = build_embedder(
        data, "student", **parse_embedder({"network": OSNET, "weights": "random"}, "student")
    ).eval()
    student.network.load_state_dict(state, strict=False)
    shown = teacher(data, OSNET, weights=saved(tmp_path, state))
    sample = data.train.sample(8)
    values = []
    for model in (student, shown):
        (path,) = tap_list("@embedding", model)
        with FeatureTap(model.network, path) as seen:
            model.run_for_taps({"image": sample["image"]})
        values.append(seen[path])
    assert torch.equal(shown(sample).embedding, student(sample).embedding)
    distiller = build_distiller(
        data, student, {"teacher": shown}, sample, terms=terms(*ZERO_AT_IDENTITY), task_weight=0
    )
    for term in distiller.terms.values():
        assert abs(term.criterion(*values, sample).item()) < 1e-6


class TestWhatIsTaken:
    def test_a_classifier_of_timm_is_left_out(self, data, capsys):
        made = teacher(data, VIT, weights="random")
        assert isinstance(made.network.head, nn.Identity)
        assert made(data.train.sample(2)).embedding.shape == (2, 16)
        assert "teacher: head left out" in capsys.readouterr().err

    def test_an_embedding_of_so_many_values_as_there_are_people_is_kept(self, data):
        class Projected(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(3, 5)

            def forward(self, images):
                return self.fc(images.mean((2, 3)))

        made = teacher(data, {"type": Projected}, weights="random")
        assert isinstance(made.network.fc, nn.Linear)

    def test_a_file_with_another_number_of_classes_fits(self, data, tmp_path):
        timm = pytest.importorskip("timm")
        name = VIT["type"].partition(":")[2]
        options = {k: v for k, v in VIT.items() if k != "type"}
        network = timm.create_model(name, num_classes=9, **options).eval()
        made = teacher(data, VIT, weights=saved(tmp_path, network.state_dict()))
        images = made.prepare(data.train.sample(2)["image"])
        with torch.no_grad():
            expected = network.forward_head(network.forward_features(images), pre_logits=True)
            assert torch.allclose(made.network(images), expected, atol=1e-6)

    @pytest.mark.parametrize("make", [clip_reid, solider])
    def test_the_encoder_is_found_in_a_file_of_more_parts(self, make, data, tmp_path, capsys):
        state, network = make()
        roles = {"embedding": "output:cls(prefix=1)"} if make is clip_reid else {}
        made = teacher(data, {"type": type(network)}, weights=saved(tmp_path, state), roles=roles)
        images = made.prepare(data.train.sample(2)["image"])
        with torch.no_grad():
            given = network(images)
            expected = given[:, 0] if make is clip_reid else given[0]
            assert torch.equal(made(data.train.sample(2)).embedding, expected)
        assert "classifier (1)" in capsys.readouterr().err

    def test_a_file_that_lacks_a_part_is_refused(self, data, tmp_path):
        state, _ = solider()
        del state["base.norm3.weight"]
        with pytest.raises(UserError, match=r"teacher: .*missing \(norm3\.weight\)"):
            teacher(data, {"type": Swin}, weights=saved(tmp_path, state))

    def test_a_transformer_gets_images_of_its_own_size(self, data, capsys):
        made = teacher(data, {**VIT, "img_size": 32}, weights="random")
        assert made.size == (32, 32)
        assert "resized to 32 x 32" in capsys.readouterr().err
        assert made(data.train.sample(2)).embedding.shape == (2, 16)

    def test_its_size_and_statistics_may_be_said(self, data):
        said = {"size": (64, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3}
        made = teacher(data, {"type": Swin}, weights="random", **said)
        assert made.size == (64, 32)
        assert made.mean.flatten().tolist() == [0.5] * 3

    def test_weights_of_a_library_count_as_trained(self):
        assert ADAPTER.is_pretrained({"type": "timm.create_model", "pretrained": True})
        assert not ADAPTER.is_pretrained({**OSNET, "pretrained": True})


class TestRefusals:
    def test_there_are_no_logits(self, data):
        made = teacher(data, {"type": Swin}, weights="random")
        with pytest.raises(UserError, match=r"@logits.*no classifier of identities: learn its"):
            tap_list("@logits", made)

    def test_tokens_of_unknown_kind_are_to_be_named(self, data):
        with pytest.raises(UserError, match=r"gives output \[2, 9, 8\]; which is the embedding"):
            teacher(data, {"type": Clip}, weights="random")

    def test_an_output_that_is_not_there_is_refused(self, data):
        with pytest.raises(UserError, match=r"gives no 'output\[3\]'"):
            teacher(data, {"type": Swin}, weights="random", output=3)

    def test_a_student_needs_logits(self, data):
        with pytest.raises(UserError, match="must return logits"):
            ADAPTER.check_student(
                build_embedder(
                    data, "student", **parse_embedder({"network": {"type": Swin}}, "student")
                ),
                data.train.sample(2),
                data,
                "student",
            )
