"""Files that are whole or absent, and what is exported."""

import pickle
import stat

import pytest
import torch
from kd_core import checkpoint
from kd_core.errors import UserError
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn


class NeedsCode:
    """Something that only a pickle could bring back."""


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded(tmp_path):
    value = {"a": {"b": torch.arange(3.0)}, "n": 3, "text": "x", "list": [1, None, (2.5, True)]}
    checkpoint.save(value, tmp_path / "new" / "folder" / "x.pth")
    loaded = checkpoint.load(tmp_path / "new" / "folder" / "x.pth")
    assert torch.equal(loaded["a"].pop("b"), value["a"].pop("b"))
    assert loaded == value
    assert files(tmp_path / "new" / "folder") == ["x.pth"]


def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "x.pth"
    checkpoint.save({"n": 1}, path)
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        checkpoint.save({"n": 2, "no": (part for part in ())}, path)
    assert checkpoint.load(path) == {"n": 1}
    assert files(tmp_path) == ["x.pth"]


def test_a_block_that_fails_half_way_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "x.txt"
    checkpoint.save_text("old", path)

    def write():
        with checkpoint.atomic_path(path) as temporary:
            temporary.write_text("half of the ne")
            assert path.read_text() == "old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "old"
    assert files(tmp_path) == ["x.txt"]


def test_a_file_has_the_permissions_that_the_user_gives_new_files(tmp_path):
    (tmp_path / "plain").touch()
    checkpoint.save_json({"n": 1}, tmp_path / "x.json")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"x": NeedsCode()}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth is not a readable checkpoint \(UnpicklingError\)"):
        checkpoint.load(tmp_path / "x.pth")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_an_unreadable_file_is_the_user_s_error(tmp_path, content):
    path = tmp_path / "x.pth"
    checkpoint.save({"weight": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    with pytest.raises(UserError, match=r"x\.pth is not a readable checkpoint"):
        checkpoint.load(path)


def test_a_missing_file_is_the_user_s_error(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint .*x\.pth"):
        checkpoint.load(tmp_path / "x.pth")


def test_exported_weights_load_in_plain_torch_and_safetensors(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(
        memory_format=torch.channels_last
    )
    network.add_module("again", network[0])  # shares its memory
    checkpoint.export(network.state_dict(), tmp_path / "student", {"classes": '["a", "b"]'})
    assert files(tmp_path) == ["student.pth", "student.safetensors"]
    plain = torch.load(tmp_path / "student.pth", weights_only=True)
    for state in (plain, load_file(tmp_path / "student.safetensors")):
        assert state.keys() == network.state_dict().keys()
        for name, tensor in network.state_dict().items():
            assert torch.equal(state[name], tensor)
            assert state[name].is_contiguous()
    with safe_open(tmp_path / "student.safetensors", framework="pt") as file:
        assert file.metadata() == {"classes": '["a", "b"]', "format": "pt"}
