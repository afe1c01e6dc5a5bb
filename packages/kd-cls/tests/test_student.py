"""A finished student is rebuilt from its file, whatever network it is, without a download."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from kd_cls.adapter import ADAPTER
from kd_cls.classifier import Classifier
from kd_cls.data import synthetic
from kd_cls.libraries.fitting import Fitting
from kd_cls.models import build_model
from kd_cls.student import find_student, load_student, read_facts
from kd_core.config.trusted import trusting
from kd_core.errors import UserError
from kd_core.files import checkpoint
from kd_core.files.weight_files import main_file
from torch import nn
from torchvision.models import shufflenet_v2_x0_5

ZOO = {"type": "kd_cls.models.build_model", "name": "resnet8"}
SHUFFLENET = {"type": "torchvision.models.shufflenet_v2_x0_5"}


def write_student(folder: Path, network: nn.Module, node: dict[str, Any]) -> Classifier:
    """Leave what a run on three classes of 8 pixels leaves, and return its student."""
    data = synthetic(image_size=8, num_classes=3)
    student = Classifier(network, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)).eval()
    facts = ADAPTER.metadata(node, data, student)
    checkpoint.export(network.state_dict(), folder / "student", facts)
    return student


def write_metadata(folder: Path, **facts: Any) -> Path:
    texts = {name: json.dumps(value) for name, value in facts.items()}
    checkpoint.export({"weight": torch.zeros(1)}, folder / "student", texts)
    return folder / "student.safetensors"


def new_head(network: nn.Module) -> nn.Module:
    return Fitting(3, torch.zeros(2, 3, 8, 8), new_head=True).fit(network)


def same_logits(one: nn.Module, other: nn.Module) -> bool:
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        return torch.equal(one({"image": images}), other({"image": images}))


def test_the_rebuilt_student_gives_the_logits_of_the_trained_one(tmp_path):
    trained = write_student(tmp_path, build_model("resnet8", num_classes=3), ZOO)
    rebuilt = load_student(tmp_path)
    assert not rebuilt.training
    assert same_logits(rebuilt, trained)


def test_images_of_any_size_and_type_are_brought_to_the_student_s(tmp_path):
    write_student(tmp_path, build_model("resnet8", num_classes=3), ZOO)
    student = load_student(tmp_path)
    images = torch.randint(256, (2, 3, 20, 16), dtype=torch.uint8)
    assert student.prepare(images).shape == (2, 3, 8, 8)
    assert student({"image": images}).shape == (2, 3)


def test_a_network_on_the_user_s_path_is_rebuilt(tmp_path, monkeypatch):
    source = "from torch import nn\ndef net(num_classes):\n    return nn.Sequential(\n"
    source += "        nn.Flatten(), nn.Linear(192, num_classes))\n"
    (tmp_path / "nets_of_a_user.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    trained = write_student(tmp_path, network, {"type": "nets_of_a_user.net"})
    with pytest.raises(UserError, match=r"trust the author .*, add --trust nets_of_a_user\.net$"):
        load_student(tmp_path)
    assert "nets_of_a_user" not in sys.modules
    with trusting("nets_of_a_user.net"):
        assert same_logits(load_student(tmp_path), trained)


class TestPretrained:
    @pytest.fixture(autouse=True)
    def refuse_downloads(self, monkeypatch):
        def refuse(*args, **kwargs):
            raise AssertionError("a download was tried")

        monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
        monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)

    def test_pretrained_weights_are_not_downloaded_again(self, tmp_path):
        node = {**SHUFFLENET, "weights": "IMAGENET1K_V1"}
        trained = write_student(tmp_path, shufflenet_v2_x0_5(num_classes=3), node)
        assert same_logits(load_student(tmp_path), trained)

    def test_a_new_head_takes_the_place_of_a_pretrained_one(self, tmp_path):
        network = shufflenet_v2_x0_5(num_classes=7)
        network = new_head(network)
        trained = write_student(tmp_path, network, {**SHUFFLENET, "num_classes": 7})
        assert same_logits(load_student(tmp_path), trained)

    def test_a_new_head_may_have_a_bias_that_the_old_one_had_not(self, tmp_path, monkeypatch):
        def net(num_classes=1000):
            return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes, bias=False))

        module = types.SimpleNamespace(net=net)
        monkeypatch.setitem(sys.modules, "nets_without_bias", module)
        network = net()
        network = new_head(network)
        trained = write_student(tmp_path, network, {"type": "nets_without_bias.net"})
        with trusting("nets_without_bias.net"):
            assert same_logits(load_student(tmp_path), trained)


class TestErrors:
    def test_a_folder_without_a_student_names_those_inside(self, tmp_path):
        for seed in (0, 1):
            write_metadata(tmp_path / f"seed-{seed}")
        with pytest.raises(UserError, match=r"has no student\.safetensors.*seed-0, .*seed-1"):
            find_student(tmp_path)

    def test_an_unfinished_run_is_named(self, tmp_path):
        with pytest.raises(UserError, match=r"has no student\.safetensors; a run writes it"):
            find_student(tmp_path)

    def test_a_run_that_has_not_ended_is_told_how_to_continue_it(self, tmp_path):
        for name in ("config.json", "config.py", "best.pth"):
            (tmp_path / name).write_bytes(b"")
        for path in (tmp_path, tmp_path / "best.pth"):
            with pytest.raises(UserError, match=r"student\.safetensors .*yet: .*--resume"):
                find_student(path)
        with pytest.raises(UserError, match="not finished; the same command with --resume"):
            main_file(tmp_path)
        (tmp_path / "result.json").write_bytes(b"")
        with pytest.raises(UserError, match=r"without student\.safetensors"):
            main_file(tmp_path)

    def test_a_missing_path_is_named(self, tmp_path):
        with pytest.raises(UserError, match=r"runs/x is neither"):
            find_student(tmp_path / "runs/x")

    def test_weights_that_say_nothing_are_refused(self, tmp_path):
        write_metadata(tmp_path)
        with pytest.raises(UserError, match=r"student\.pth: wanted a run's folder or"):
            find_student(tmp_path / "student.pth")
        with pytest.raises(UserError, match="does not name its network, classes"):
            load_student(tmp_path / "student.safetensors")

    def test_a_damaged_file_is_named(self, tmp_path):
        (tmp_path / "student.safetensors").write_bytes(b"{}")
        with pytest.raises(UserError, match=r"student\.safetensors: damaged"):
            read_facts(tmp_path / "student.safetensors")

    def test_a_network_that_cannot_be_found_is_named_with_the_file(self, tmp_path):
        facts = {"classes": ["a"], "mean": [0] * 3, "std": [1] * 3, "image_size": 8}
        write_metadata(tmp_path, network={"type": "kd_cls.models.build_modl"}, **facts)
        with pytest.raises(UserError, match=r"student\.safetensors: network.*build_model'"):
            load_student(tmp_path)

    def test_weights_of_another_network_are_refused(self, tmp_path):
        write_student(tmp_path, build_model("resnet14", num_classes=3), ZOO)
        with pytest.raises(UserError, match="does not fit"):
            load_student(tmp_path)
