"""Networks of timm and of the Hugging Face Hub by short names; nothing is fetched here."""

import json
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from kd_cls import predict, train
from kd_cls.data import synthetic
from kd_cls.networks import build_classifier, parse_classifier
from kd_cls.student import load_student, read_facts
from kd_core.errors import UserError
from PIL import Image
from safetensors.torch import save_file

CONFIG = """
data = dict(type="kd_cls.data.synthetic", num_train=8, num_test=4, num_classes=7, batch_size=4)
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"))
optimizer = dict(type="torch.optim.SGD", lr=0.01)
schedule = dict(type="kd_core.training.schedule.constant")
trainer = dict(epochs=1, loggers=[])
"""
MODEL = "test_byobnet"
ARGUMENTS = {"drop_rate": 0.25}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in an empty folder with a config, without the Hub."""
    monkeypatch.chdir(tmp_path)
    Path("config.py").write_text(CONFIG)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Return a trained model, in a folder as timm pushes it, in the Hub's cache as ORG/NAME too."""
    torch.manual_seed(3)
    network = timm.create_model(MODEL, num_classes=5, **ARGUMENTS)
    snapshot = tmp_path / "hub/models--org--name/snapshots/0a1b"
    snapshot.mkdir(parents=True)
    config = {
        "architecture": MODEL,
        "num_classes": 5,
        "num_features": network.num_features,
        "model_args": ARGUMENTS,
        "pretrained_cfg": {
            **{"num_classes": 5, "input_size": [3, 32, 32], "mean": [0.1, 0.2, 0.3]},
            **{"std": [0.4, 0.5, 0.6], "first_conv": "stem.conv", "classifier": "head.fc"},
        },
    }
    (snapshot / "config.json").write_text(json.dumps(config))
    save_file(network.state_dict(), snapshot / "model.safetensors")
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("0a1b")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return network


def parsed(network):
    return parse_classifier({"network": network}, "student")["network"]


def run(*options):
    return train.main(["config.py", "--work-dir", "run", "--cfg-options", *options])


class TestNames:
    @pytest.mark.parametrize(
        "written",
        [
            "timm:test_vit",
            {"type": "timm:test_vit"},
            {"type": "timm.create_model", "model_name": "test_vit"},
        ],
    )
    def test_a_name_is_what_the_import_path_is(self, written):
        assert parsed(written) == {"type": "timm.create_model", "model_name": "test_vit"}

    def test_arguments_stand_beside_the_name(self):
        node = parsed({"type": "timm:test_vit", "img_size": 32, "depth": 3})
        assert (node["model_name"], node["img_size"], node["depth"]) == ("test_vit", 32, 3)

    @pytest.mark.parametrize(
        ("network", "message"),
        [
            (
                "timm:resnet81",
                r"student\.network: timm has no model 'resnet81'; did you .*resnet18",
            ),
            ("timm:qqqqqqqq", r"no model 'qqqqqqqq'; timm\.list_models\(\) lists them"),
            ("timm:resnet18.a1_in1", r"no pretrained weights 'a1_in1'; did you mean 'a1_in1k'"),
            ("tim:resnet18", r"student\.network: 'tim:resnet18' begins .* did you mean 'timm'"),
            ({"type": "tim:resnet18"}, r"student\.network\.type: .* did you mean 'timm'"),
            ("timm:", r"'timm:' lacks a name"),
            ({"type": "timm:resnet18", "model_name": "x"}, "has the name already"),
            (
                {"type": "timm:test_vit", "dpth": 3},
                r"\(VisionTransformer\) .* did you mean 'depth'",
            ),
            ({"type": "timm:poolformer_s12", "drop": 1}, "has no parameter 'drop'"),
            ({"type": "timm:test_byobnet", "stem_typ": "7x7"}, "has no parameter 'stem_typ'"),
            ({"type": "timm.create_model", "model_name": "resnet81"}, "no model 'resnet81'"),
            ({"type": "timm:focalnet_tiny_srf", "depths": 1}, "sets 'depths' itself; leave it out"),
        ],
    )
    def test_mistakes_are_found_before_anything_is_built(self, network, message):
        with pytest.raises(UserError, match=message):
            parsed(network)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"type": "timm:test_byobnet", "stem_type": "7x7"},  # a setting of its class
            {"type": "timm:test_vit", "pretrained": False, "in_chans": 3},
            {"type": "timm:ese_vovnet19b_slim_dw", "stem_chs": [8, 8, 8]},
        ],
    )
    def test_what_the_model_takes_is_let_through(self, arguments):
        assert len(parsed(arguments)) == len(arguments) + 1

    def test_a_network_inside_another_may_have_a_short_name(self):
        inner = {"type": "timm:test_vit", "dpth": 3}
        outer = {"type": "kd_cls.models.with_head.WithHead", "backbone": inner}
        sizes = {"in_features": 8, "num_classes": 7}
        with pytest.raises(UserError, match=r"student\.network\.backbone: .* 'dpth'"):
            parsed({**outer, **sizes})


def test_a_student_by_name_is_trained_and_its_file_is_read_back(capsys):
    assert run("student.network=timm:test_byobnet", "student.new_head=True") == 0
    network = read_facts(Path("run/student.safetensors"))["network"]
    assert network == {"type": "timm.create_model", "model_name": MODEL}
    Image.new("RGB", (40, 40)).save("photo.png")
    capsys.readouterr()
    assert predict.main(["run", "photo.png", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)[0]["predictions"]) == 5


def test_a_teacher_by_name_teaches():
    options = ("teacher.network=timm:test_byobnet", "teacher.weights=random")
    with Path("config.py").open("a") as config:
        config.write("term = dict(criterion=dict(type='kd_core.criteria.KD'))\n")
        config.write("distiller = dict(terms=dict(kd=term))\ndel term\n")
    assert run(*options) == 0


class TestSources:
    @pytest.mark.parametrize("source", ["hf-hub:org/name", "local-dir"])
    def test_weights_arguments_and_statistics_are_those_that_were_saved(self, saved, source):
        if source == "local-dir":
            source = "local-dir:hub/models--org--name/snapshots/0a1b"
        data = synthetic(image_size=32, num_classes=7, num_train=8, num_test=4, batch_size=4)
        node = parse_classifier(
            {"network": {"type": source, "pretrained": True}, "new_head": True}, "student"
        )
        student = build_classifier(data, "student", **node)
        assert torch.equal(student.network.stem.conv.weight, saved.stem.conv.weight)
        assert student.network.drop_rate == ARGUMENTS["drop_rate"]
        assert student.network.head.fc.out_features == 7
        assert student.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])

    def test_a_finished_student_needs_neither_folder_nor_hub(self, saved, tmp_path):
        options = ("student.network.pretrained=True", "student.new_head=True")
        node = "student.network={'type': 'hf-hub:org/name', '_delete_': True}"
        assert run(node, *options) == 0
        (tmp_path / "hub").rename(tmp_path / "gone")
        student = load_student("run")
        assert student({"image": torch.zeros(2, 3, 32, 32)}).shape == (2, 7)
        assert student.network.drop_rate == ARGUMENTS["drop_rate"]
        named = read_facts(Path("run/student.safetensors"))["network"]
        assert named == {"type": "timm.create_model", "model_name": MODEL, **ARGUMENTS}

    @pytest.mark.parametrize(
        ("network", "message"),
        [
            ("hf-hub:org/other", r"hf-hub:org/other: its config\.json cannot be read .*HF_HUB"),
            ("local-dir:nowhere", r"local-dir:nowhere: its config\.json cannot be read"),
        ],
    )
    def test_what_is_not_there_is_told_before_anything_is_built(self, saved, network, message):
        with pytest.raises(UserError, match=message) as told:
            parsed(network)
        assert "\n" not in str(told.value)

    def test_pretrained_weights_that_cannot_be_fetched_are_one_line(self, capsys):
        network = "student.network={'type': 'timm:resnet18', 'pretrained': True, '_delete_': True}"
        assert run(network, "student.new_head=True") == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert lines[-1].startswith("error: student.network: ")
        assert "could not be downloaded (" in lines[-1]
        assert lines[-1].endswith("or name a file as well: student.weights=FILE")


class TestTransformers:
    @pytest.fixture
    def described(self, tmp_path):
        """Return a folder as transformers saves it."""
        folder = tmp_path / "vit"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
        return folder

    def test_where_it_is_not_installed_the_command_is_told(self, described, monkeypatch):
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(UserError, match=r"student\.network: .* pip install transformers$"):
            parsed(f"local-dir:{described}")

    def test_a_student_is_trained_on_it_and_read_back_without_it(self, described):
        transformers = pytest.importorskip("transformers")
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
        config = transformers.ViTConfig(
            **sizes, num_attention_heads=2, image_size=32, patch_size=16, num_labels=5
        )
        transformers.ViTForImageClassification(config).save_pretrained(described)
        statistics = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
        (described / "preprocessor_config.json").write_text(json.dumps(statistics))
        node = {"type": f"local-dir:{described}", "pretrained": True, "_delete_": True}
        assert run(f"student.network={node}", "student.new_head=True") == 0
        described.rename(described.with_name("gone"))
        student = load_student("run")
        assert student({"image": torch.zeros(2, 3, 32, 32)}).shape == (2, 7)
        assert student.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
        assert student.output == "logits"
