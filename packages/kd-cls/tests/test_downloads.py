"""Without the internet, pretrained weights are told in one line, after one try."""

from pathlib import Path
from urllib.error import URLError

import pytest
from kd_cls.data import synthetic
from kd_cls.networks import build_classifier, parse_classifier
from kd_core.errors import UserError
from kd_core.files import checkpoint


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """No server is reached; returns what was asked for."""
    hub = pytest.importorskip("huggingface_hub")
    pytest.importorskip("timm")
    from timm.models import _hub

    class TransportError(Exception):  # httpx's
        pass

    given = []

    def fail(url, **_):
        given.append(url)
        raise TransportError("Name or service not known")

    def retry(*_, **__):
        given.append("six tries")
        raise TransportError("Name or service not known")

    monkeypatch.setattr(hub, "get_hf_file_metadata", fail)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(_hub, "hf_hub_download", retry)
    return given


def build(where="student", **node):
    data = synthetic(image_size=32, num_classes=3)
    return build_classifier(data, where, **parse_classifier(node, where).arguments)


def test_weights_of_timm_are_tried_once_and_the_line_says_what_to_do(asked):
    network = {"type": "timm:test_resnet", "pretrained": True}
    with pytest.raises(UserError) as told:
        build(network=network, new_head=True)
    assert str(told.value) == (
        "student.network: weights of timm:test_resnet could not be downloaded (Name or service "
        "not known); train from random weights with student.network.pretrained=False, or name a "
        "file as well: student.weights=FILE"
    )
    assert len(asked) == 1
    with pytest.raises(UserError, match=r"name a file: teacher\.network\.pretrained=False "):
        build("teacher", network=network)


def test_weights_that_were_downloaded_before_ask_no_server_first(asked, tmp_path):
    folder = tmp_path / "hub/models--timm--test_resnet.r160_in1k/snapshots/1"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="could not be downloaded"):
        build(network={"type": "timm:test_resnet", "pretrained": True}, new_head=True)
    assert asked == ["six tries"]


def test_a_repository_that_is_not_reached_is_asked_for_once(asked):
    with pytest.raises(UserError, match="is the Hub reached"):
        parse_classifier({"network": "hf-hub:timm/test_resnet.r160_in1k"}, "student")
    assert len(asked) == 1


def test_weights_of_torchvision_are_told_too(monkeypatch):
    import torch

    def fail(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(Path("nowhere").absolute()))
    monkeypatch.setattr(torch.hub.os, "makedirs", lambda *_, **__: None)
    node = {"type": "torchvision.models.shufflenet_v2_x0_5", "weights": "DEFAULT"}
    with pytest.raises(UserError, match=r"shufflenet_v2_x0_5 .*\(Name or.*network.weights=None"):
        build(network=node, new_head=True)


def test_a_file_is_loaded_without_a_download_and_the_statistics_stay(asked, tmp_path):
    import timm
    import torch

    state = timm.create_model("test_resnet", num_classes=3).state_dict()
    checkpoint.export(state, tmp_path / "own", {})
    network = {"type": "timm:test_resnet", "pretrained": True}
    made = build(network=network, weights=str(tmp_path / "own.pth"), new_head=True)
    assert not asked
    mean = timm.get_pretrained_cfg("test_resnet").mean
    assert made.mean.flatten().tolist() == pytest.approx(mean)
    torch.testing.assert_close(next(made.network.parameters()), next(iter(state.values())))
