"""A student that keeps its head gives embeddings in its teacher's space, wherever it goes."""

import pytest
import torch
from kd_cls.classifier import Classifier
from kd_cls.exporting import export
from kd_cls.models import build_model
from kd_cls.predict import main as predict
from kd_cls.student import load_student
from kd_cls.train import main
from kd_core.config.build import build
from kd_core.criteria.kept_heads import EmbeddingNetwork, MLPHead, node_of
from kd_core.criteria.queue_kl import QueueKL
from kd_core.criteria.rkd import RKD
from kd_core.criteria.unic import UNIC, UNICTokens, UNICVectors
from kd_core.criteria.vkd import VkD
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.files.checkpoint import load
from kd_core.networks.taps import FeatureTap
from PIL import Image
from safetensors.torch import load_file

CONFIG = """
data = dict(type="kd_cls.data.synthetic", image_size=32, num_train=8, num_test=4, num_classes=3,
    batch_size=4)
student = dict(network={student})
teacher = dict(network=dict(type="kd_cls.models.build_model", name="tiny"), weights="random")
distiller = dict(task_weight=0, terms=dict(
    queue=dict(
        criterion=dict(type="kd_core.criteria.queue_kl.QueueKL", queue_size=None,
            keep_head={keep}),
        student={tap!r}, teacher="@pooled"),
    {more}
))
optimizer = dict(type="torch.optim.SGD", lr=0.05)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=1, loggers=[])
"""
RESNET = {"type": "kd_cls.models.build_model", "name": "tiny"}
VIT = {
    **{"type": "timm.create_model", "model_name": "vit_tiny_patch16_224", "img_size": 32},
    **{"patch_size": 8, "embed_dim": 16, "depth": 4, "num_heads": 2},
}
IMAGES = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)


def train(folder, *, student=RESNET, tap="@pooled", keep=True, more="", options=()):
    text = CONFIG.format(student=student, tap=tap, keep=keep, more=more)
    (folder / "config.py").write_text(text)
    return main([str(folder / "config.py"), "--work-dir", str(folder / "run"), *options])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    assert train(folder) == 0
    return folder / "run"


def embedded(run, student):
    """Return the trained head of the criterion on the student's own vectors."""
    head = torch.nn.Linear(32, 32)
    head.load_state_dict(
        {
            name.removeprefix("head."): value
            for name, value in load(run / "criteria/queue.pth").items()
            if name.startswith("head.")
        }
    )
    network = student.network.network
    with torch.no_grad(), FeatureTap(network, "fc:in") as seen:
        logits = network(student.prepare(IMAGES))
    return logits, head(seen["fc:in"])


def test_it_is_read_again_without_trust_and_gives_logits_and_embeddings(run):
    student = load_student(run)
    assert isinstance(student.network, EmbeddingNetwork)
    logits, embedding = embedded(run, student)
    with torch.no_grad():
        torch.testing.assert_close(student({"image": IMAGES}), logits)
        torch.testing.assert_close(student.embed({"image": IMAGES}), embedding)
    assert student.roles["embedding"] == ("head",)
    assert student.roles["pooled"] == ("network.fc:in",)


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_exported_files_give_both(run, kind, tmp_path):
    path = tmp_path / f"student.{kind}"
    if kind == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
    export(run, path, with_normalization=True)
    student, images = load_student(run), IMAGES.float() / 255
    if kind == "onnx":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        found = session.run(["embedding", "logits"], {"image": images.numpy()})
        embedding, logits = map(torch.from_numpy, found)
    else:
        logits, embedding = torch.export.load(path).module()(images)
    with torch.no_grad():
        expected = student({"image": images}), student.embed({"image": images})
    torch.testing.assert_close((logits, embedding), expected, rtol=1e-3, atol=1e-4)


def test_classes_are_predicted_as_before(run, tmp_path, capsys):
    Image.new("RGB", (40, 30), (9, 80, 50)).save(tmp_path / "a.png")
    assert predict([str(run), str(tmp_path / "a.png"), "--top", "3"]) == 0
    assert "a.png" in capsys.readouterr().out


def test_it_teaches_in_its_embedding(run):
    term = Term(RKD(), student="@pooled", teacher="@embedding")
    student = Classifier(build_model("tiny", num_classes=3), roles={"pooled": "fc:in"})
    batch = {"image": IMAGES, "label": torch.tensor([0, 1, 2])}
    distiller = Distiller(student, load_student(run), {"rkd": term}, sample=batch)
    assert distiller.tap_shapes["teacher"] == {"head": (32,)}
    distiller.train()(batch)["rkd"].backward()
    assert student.network.conv1.weight.grad.any()


def test_without_it_the_student_alone_is_exported(tmp_path):
    assert train(tmp_path, keep=False) == 0
    names = load_file(tmp_path / "run/student.safetensors")
    assert not [name for name in names if name.startswith(("head.", "network."))]
    with pytest.raises(UserError, match="gives no embeddings in a teacher's space"):
        load_student(tmp_path / "run").embed({"image": IMAGES})


@pytest.mark.parametrize(("tap", "path"), [("@cls", "norm:cls"), ("@map:mean", "norm:mean")])
def test_one_vector_of_tokens_may_be_what_the_head_gets(tap, path, tmp_path):
    assert train(tmp_path, student=VIT, tap=tap) == 0
    student = load_student(tmp_path / "run")
    assert student.network.tap == path
    assert student.embed({"image": IMAGES}).shape == (3, 32)


def test_two_heads_are_refused_before_training(tmp_path, capsys):
    more = """again=dict(criterion=dict(type="kd_core.criteria.queue_kl.SEED", queue_size=None,
        keep_head=True), student="@pooled", teacher="@pooled")"""
    assert train(tmp_path, more=more) == 2
    assert "terms 'queue', 'again' each export more than the student" in capsys.readouterr().err


def test_the_average_of_the_student_is_what_embeds(tmp_path):
    options = ["--cfg-options", "trainer.ema=0.5"]
    assert train(tmp_path, options=options) == 0
    assert load_student(tmp_path / "run").embed({"image": IMAGES}).isfinite().all()


def test_what_a_features_network_returns_is_embedded_too():
    criterion = QueueKL(((4,),), ((5,),), keep_head=True)
    criterion.bind(torch.nn.Identity(), torch.nn.Identity(), (["output"], ["output"]))
    network = criterion.deploy(torch.nn.Identity())
    assert network.with_embedding(torch.ones(2, 4))[1].shape == (2, 5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: UNICVectors(((4,),), ((5,),), hidden=3, keep_head=True),
        lambda: UNIC(((4,), (9, 4)), ((5,), (9, 5)), hidden=3, keep_head=True),
        lambda: VkD(((4,),), ((5,),), keep_head=True),
        lambda: VkD(((5,),), ((4,),), keep_head=True),
    ],
)
def test_what_stays_predicts_what_the_criterion_compares(make):
    criterion = make().eval()
    criterion.bind(torch.nn.Identity(), torch.nn.Identity(), (["output"], ["output"]))
    inputs = 5 if isinstance(criterion, VkD) and criterion.projector.in_features == 5 else 4
    vector, teacher = torch.randn(2, inputs), torch.randn(2, 9 - inputs)
    sides = vector, teacher
    if type(criterion) is UNIC:
        sides = (vector, torch.randn(2, 9, 4)), (teacher, torch.randn(2, 9, 5))
    embedding = criterion.deploy(torch.nn.Identity()).with_embedding(vector)[1]
    torch.testing.assert_close(embedding, criterion.compared(*sides)[0][0])
    kept = criterion.kept_head()
    built = build(node_of(kept))
    built.load_state_dict(kept.state_dict())
    assert torch.equal(built(vector), embedding)


def test_a_head_of_balanced_features_or_of_tokens_does_not_stay():
    with pytest.raises(UserError, match="balance is 'standardize'"):
        UNICVectors(((4,),), ((5,),), hidden=3, keep_head=True, balance="standardize")
    with pytest.raises(UserError, match="UNICTokens: keep_head needs a vector"):
        UNICTokens(((9, 4),), ((9, 5),), hidden=3, keep_head=True)


def test_a_student_of_features_keeps_its_head_too(tmp_path):
    for place in range(6):
        Image.new("RGB", (32, 32), (40 * place, 80, 50)).save(tmp_path / f"{place}.png")
    text = CONFIG.format(student=RESNET, tap="@pooled", keep=True, more="")
    data = f'kd_cls.data.unlabelled", root={str(tmp_path)!r}, image_size=32, batch_size=4)'
    start, end = text.index("kd_cls.data.synthetic"), text.index("student =")
    (tmp_path / "config.py").write_text(f"{text[:start]}{data}\n{text[end:]}")
    assert main([str(tmp_path / "config.py"), "--work-dir", str(tmp_path / "run")]) == 0
    student = load_student(tmp_path / "run")
    assert student({"image": IMAGES}).shape == (3, 32)
    assert student.embed({"image": IMAGES}).shape == (3, 32)
    export(tmp_path / "run", tmp_path / "student.pt2")
    assert len(torch.export.load(tmp_path / "student.pt2").module()(torch.zeros(1, 3, 32, 32))) == 2


def test_a_head_that_no_file_can_describe_is_refused():
    with pytest.raises(UserError, match="a Bilinear cannot stay with the student"):
        node_of(torch.nn.Bilinear(2, 2, 2))


@pytest.mark.parametrize("head", [MLPHead(3, 4, 5, "gelu"), torch.nn.Linear(3, 5, bias=False)])
def test_a_head_is_built_again_from_its_node(head):
    built = build(node_of(head))
    built.load_state_dict(head.state_dict())
    assert torch.equal(built(torch.ones(1, 3)), head(torch.ones(1, 3)))
