"""Exported files give the embeddings that the search takes, and nothing of the training."""

import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from kd_core.config.trusted import trusting
from kd_core.experiment.deploy.exporting import export
from kd_core.files import checkpoint
from kd_core.files.artifacts import FILE
from kd_reid.deploy.deployment import _place
from kd_reid.deploy.exporting import ExportedEmbedder, exportable
from kd_reid.embedder import Embedder
from kd_reid.export import main
from kd_reid.models import build_model
from kd_reid.neck import attach, neck_of
from kd_reid.student import facts_of, load_student
from kd_reid.teacher_features import FeatureEmbedder
from torch import Tensor
from torch.nn.functional import normalize

SIZE, IDENTITIES = (64, 32), 751
QUICK = ["--batch-sizes", "1", "3", "--repeats", "2", "--threads", "1"]
OWN = """
import timm
import torch
import torch.nn.functional as F
from torch import nn


class Own(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 4), nn.BatchNorm2d(6), nn.ReLU())
        self.fc = nn.Linear(6, num_classes)
        self.neck = nn.BatchNorm1d(6)
        self.p = nn.Parameter(torch.tensor(3.0))

    def pooled(self, image):  # GeM, as AGW has it
        return self.body(image).clamp(min=1e-6).pow(self.p).mean((2, 3)).pow(1 / self.p)

    def forward(self, image):
        found = self.pooled(image)
        return (self.fc(found), found) if self.training else self.given(found)

    def given(self, found):
        return found


class BehindItsNeck(Own):
    def given(self, found):
        return self.neck(found)


class Pair(Own):  # with a cosine classifier, in evaluation too
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.fc = nn.Identity()
        self.centres = nn.Parameter(torch.randn(num_classes, 6))

    def forward(self, image):
        found = self.pooled(image)
        return F.linear(F.normalize(found), F.normalize(self.centres)), found


class Parts(Own):
    def forward(self, image):
        found = [self.pooled(image[:, :, :32]), self.pooled(image[:, :, 32:])]
        return [self.fc(one) for one in found], found


class Transformer(Own):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        sides = dict(img_size=(64, 32), patch_size=16)
        self.body = timm.models.VisionTransformer(
            **sides, embed_dim=6, depth=1, num_heads=2, num_classes=0
        )

    def pooled(self, image):
        return self.body(image)


class Dict(Own):
    def given(self, found):
        return {"embedding": found}


class Noisy(Own):
    def given(self, found):
        return found + torch.rand(1)


class PooledBySize(Own):  # as HACNN does; ONNX wants the size of a window as a constant
    def pooled(self, image):
        found = self.body(image)
        return F.avg_pool2d(found, found.size()[2:]).flatten(1)


class Rigid(Own):
    def given(self, found):
        return found.reshape(int(found.shape[0]), 6) * torch.ones(int(found.shape[0]), 1)
"""
GOOD = ("Own", "BehindItsNeck", "Pair", "Parts", "Transformer")
BAD = ("Dict", "Noisy", "Rigid", "PooledBySize")
pytest.importorskip("onnxruntime")


def crops(count):
    generator = torch.Generator().manual_seed(count)
    return torch.randint(256, (count, 3, *SIZE), dtype=torch.uint8, generator=generator)


def write_run(folder, network, node, size=SIZE):
    """Leave what a run leaves whose images have statistics of their own."""
    folder.mkdir(exist_ok=True)
    network.eval()
    embedder = Embedder(network, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), size=size)
    facts = facts_of(node, IDENTITIES, embedder, size)
    checkpoint.export(embedder.products()["student"], folder / "student", facts)
    if "neck" in embedder.products():
        checkpoint.save(embedder.products()["neck"], folder / "neck.pth")
    return folder


def prepared(pixels, facts):
    """Return crops as the facts of a file say that it takes them."""
    image = pixels / 255
    if facts["with_normalization"]:
        return image
    mean, std = (torch.tensor(facts[name])[:, None, None] for name in ("mean", "std"))
    return (image - mean) / std


class Opened(NamedTuple):
    """What an exported file is, read once."""

    run: Callable[[Tensor], Tensor]
    facts: dict[str, Any]
    shapes: list[tuple[int, ...]]  # of its weights

    def __call__(self, pixels):
        return self.run(prepared(pixels, self.facts))


def opened(path):
    if path.suffix == ".pt2":
        files = {"metadata.json": ""}
        program = torch.export.load(path, extra_files=files)
        shapes = [tuple(value.shape) for value in program.state_dict.values()]
        return Opened(program.module(), json.loads(files["metadata.json"]), shapes)
    import onnx
    import onnxruntime

    model = onnx.load_model(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return Opened(
        lambda image: torch.from_numpy(session.run(["embedding"], {"image": image.numpy()})[0]),
        {prop.key: json.loads(prop.value) for prop in model.metadata_props},
        [tuple(one.dims) for one in model.graph.initializer],
    )


def check(file, embedder):
    """Compare a file with the network, for batches of three sizes; return its embeddings."""
    for count in (1, 2, 7):
        with torch.no_grad():
            expected = embedder({"image": crops(count)}).embedding
        found = file(crops(count))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-5)
    assert not [shape for shape in file.shapes if IDENTITIES in shape]
    return found


@pytest.fixture(scope="module")
def with_neck(tmp_path_factory):
    """A run with a neck, and a file of torchreid's zoo."""
    folder = tmp_path_factory.mktemp("neck")
    torch.manual_seed(0)
    state = build_model("osnet_tiny", IDENTITIES).state_dict()
    state = {f"module.{name}": value for name, value in state.items()}
    torch.save({"state_dict": state}, folder / "osnet_tiny_market1501.pth")
    network = build_model("osnet_tiny", IDENTITIES)
    attach(network)
    for value in neck_of(network).bn.state_dict().values():
        if value.dim():
            value.uniform_(0.5, 2)
    node = {"type": "kd_reid.models.build_model", "name": "osnet_tiny"}
    return write_run(folder / "run", network, node)


def test_a_run_with_a_neck_is_exported_with_all_that_a_tracker_must_know(with_neck, capsys):
    assert main([str(with_neck), *QUICK]) == 0
    shown = capsys.readouterr().out
    for name in ("student.onnx", "student.pt2"):
        path = with_neck / name
        file = opened(path)
        found, facts = check(file, load_student(with_neck)), file.facts
        assert facts["image_size"] == list(SIZE)
        assert facts["embedding_size"] == found.shape[1] == 512
        assert facts["mean"] == pytest.approx([0.4, 0.5, 0.6])
        assert facts["std"] == pytest.approx([0.2, 0.3, 0.4])
        assert (facts["channels"], facts["normalized_embeddings"]) == ("RGB", False)
        beside = json.loads((with_neck / f"{name}.json").read_text())
        assert beside.items() >= facts.items()
        assert (beside["file"], beside["bytes"]) == (name, path.stat().st_size)
        assert beside["input"]["layout"] == "[N, 3, 64, 32]"
        assert f"{path}: {path.stat().st_size / 1e6:.2f} MB" in shown
    figures = json.loads((with_neck / "export.json").read_text())
    assert set(figures["latency"]["ms"]) == {"PyTorch", "ONNX Runtime"}
    assert all(list(sizes) == ["1", "3"] for sizes in figures["latency"]["ms"].values())
    assert "p50, ms" in shown


def test_a_file_of_the_zoo_keeps_its_name_and_may_give_unit_lengths(with_neck, tmp_path):
    file = with_neck.parent / "osnet_tiny_market1501.pth"
    options = ["--size", "64", "32", "--format", "onnx", "--no-latency"]
    given = [str(file), "--output", str(tmp_path), "--normalized-embeddings", "--flip"]
    assert main([*given, *options]) == 0
    file_name = "osnet_tiny_market1501"
    exported = opened(tmp_path / f"{file_name}.onnx")
    network = build_model("osnet_tiny", IDENTITIES).eval()
    state = torch.load(file, weights_only=True)["state_dict"]
    network.load_state_dict({name[7:]: value for name, value in state.items()})
    embedder = Embedder(network).eval()  # of ImageNet's statistics
    for count in (1, 2, 7):
        with torch.no_grad():
            both = [embedder({"image": x}).embedding for x in (crops(count), crops(count).flip(-1))]
        found = exported(crops(count))
        expected = normalize((both[0] + both[1]) / 2)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    facts = exported.facts
    assert facts["normalized_embeddings"] is facts["flip"] is True
    assert facts["mean"] == pytest.approx([0.485, 0.456, 0.406])
    names = {f"{file_name}.onnx", f"{file_name}.onnx.json", f"{file_name}.export.json"}
    assert {one.name for one in tmp_path.iterdir()} == names


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("osnet_lr0.0015_ep50.pth", "osnet_lr0.0015_ep50"),
        ("model.pth.tar-60", "model-60"),
        ("net.pth.tar", "net"),
        ("model.safetensors", "model"),
        ("lr0.0015", "lr0.0015"),
    ],
)
def test_files_are_named_after_the_weights(file, name, tmp_path):
    (tmp_path / file).touch()
    assert _place(str(tmp_path / file)) == (tmp_path, name)


class TestOwnNetworks:
    @pytest.fixture(autouse=True)
    def _trusted(self, tmp_path, monkeypatch):
        pytest.importorskip("timm")
        (tmp_path / "reid_networks_to_export.py").write_text(OWN)
        monkeypatch.syspath_prepend(tmp_path)
        with trusting(*(f"reid_networks_to_export.{name}" for name in (*GOOD, *BAD))):
            yield

    def run_of(self, name, folder):
        torch.manual_seed(0)
        network = runpy.run_path(str(folder / "reid_networks_to_export.py"))[name](IDENTITIES)
        network.neck.running_mean.uniform_(0, 1)
        return write_run(folder / "run", network, {"type": f"reid_networks_to_export.{name}"})

    @pytest.mark.parametrize(
        ("name", "kind"),
        [*((name, "onnx") for name in GOOD), ("Pair", "pt2"), ("Transformer", "pt2")],
    )
    def test_each_gives_what_it_is_searched_by(self, name, kind, tmp_path):
        run = self.run_of(name, tmp_path)
        assert main([str(run), "--format", kind, "--no-latency", "--with-normalization"]) == 0
        file = opened(run / f"student.{kind}")
        found = check(file, load_student(run))
        assert file.facts["embedding_size"] == found.shape[1] == (12 if name == "Parts" else 6)

    @pytest.mark.parametrize(
        ("name", "kind", "text"),
        [
            ("Dict", "onnx", "returned a dict in evaluation"),
            ("Noisy", "pt2", "embeddings differ from PyTorch's"),
            ("PooledBySize", "onnx", "cannot be exported as .onnx: .*; name another --format"),
            ("Rigid", "onnx", "fails with a batch of 1|it gives"),
        ],
    )
    def test_what_would_mislead_is_refused_and_earlier_files_stay(
        self, name, kind, text, tmp_path, capfd
    ):
        run = self.run_of(name, tmp_path)
        (run / f"student.{kind}").write_text("earlier")
        before = sorted(run.iterdir())
        assert main([str(run), "--format", kind, "--no-latency"]) == 2
        shown = capfd.readouterr()
        (line,) = shown.err.splitlines()
        assert re.search(text, line)
        assert not shown.out  # such as PyTorch's graph
        assert sorted(run.iterdir()) == before
        assert (run / f"student.{kind}").read_text() == "earlier"

    def test_a_size_that_a_transformer_cannot_take_is_one_line(self, tmp_path, capsys):
        run = self.run_of("Transformer", tmp_path)
        assert main([str(run), "--size", "48", "48", "--format", "pt2"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "fed [2, 3, 48, 48]" in line
        assert "--size HEIGHT WIDTH" in line

    def test_an_evaluation_by_mirror_images_is_remembered(self, tmp_path, capsys, monkeypatch):
        from kd_reid.deploy import deployment

        run = self.run_of("Own", tmp_path)
        found = deployment.measured_model

        def flipped(args):
            measured = found(args)
            measured.evaluation = {"flip": True}
            return measured

        monkeypatch.setattr(deployment, "measured_model", flipped)
        assert main([str(run), "--format", "onnx", "--no-latency"]) == 0
        assert "--flip writes one that does" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_what_ends_in_features_is_exported_too(kind, tmp_path):
    vit = pytest.importorskip("timm").models.VisionTransformer
    torch.manual_seed(0)
    network = vit(img_size=SIZE, patch_size=16, embed_dim=6, depth=1, num_heads=2).eval()
    roles = {"embedding": "norm:cls"}
    embedder = FeatureEmbedder(network, size=SIZE, roles=roles).eval()
    what = exportable(ExportedEmbedder(embedder).eval(), SIZE)
    export(what, tmp_path / f"vit.{kind}")
    file = opened(tmp_path / f"vit.{kind}")
    assert check(file, embedder).shape == (7, 6)
    assert (1000, 6) not in file.shapes  # its classifier


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--format", "tflite"], "invalid choice: 'tflite'"),
        (["--batch-sizes", "0"], "wanted a whole number, 1 or more"),
        (["--output", f"{FILE}/inside"], "a part of the path is a file"),
        (["--network", "osnet_tiny"], "says it already"),
        (["--size", "0", "32"], "size"),
    ],
)
def test_wrong_options_are_one_line_and_write_nothing(
    options, text, with_neck, capsys, monkeypatch
):
    monkeypatch.chdir(with_neck)
    before = sorted(with_neck.iterdir())
    assert main([".", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert text in line
    assert sorted(with_neck.iterdir()) == before


def test_other_files_are_one_line(with_neck, tmp_path, capsys):
    zoo = with_neck.parent / "osnet_tiny_market1501.pth"
    (tmp_path / "f.npy").touch()
    for line, text in (
        ([str(zoo), "--network", "osnet_x0_5"], "does not fit OSNet"),
        ([str(tmp_path / "f.npy")], "features have no network"),
        ([str(tmp_path / "nowhere.pth")], "there is no finished run or file of weights"),
    ):
        capsys.readouterr()
        assert main([*line, "--output", str(tmp_path / "new")]) == 2
        assert text in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_missing_packages_are_told_before_any_work(missing, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    Path(tmp_path / "osnet_tiny.pth").write_text("not read")
    assert main([str(tmp_path / "osnet_tiny.pth")]) == 2
    said = capsys.readouterr().err
    assert "pip install 'kd-reid[export]'" in said
    assert "--format pt2" in said
