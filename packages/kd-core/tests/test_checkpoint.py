"""Files that are whole or absent, and what is exported."""

import json
import pickle
import stat

import pytest
import torch
from kd_core.errors import UserError
from kd_core.files import checkpoint
from kd_core.testing.damage import refusal
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
    checkpoint.export({"weight": torch.zeros(2)}, tmp_path / "student", {})
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def json_file(folder, value=None):
    path = folder / "x.json"
    checkpoint.save_json(RESULT if value is None else value, path)
    return path


RESULT = {
    "metric": "top1",
    "last": {"top1": 71.25, "n": [1, 2.0, -0.0, None, "é"]},
    3: (True, 1e22),
}
"""What JSON changes, too: a key that is not a text, a tuple."""


def test_json_comes_back_as_it_was_and_people_can_read_it(tmp_path):
    path = json_file(tmp_path)
    assert checkpoint.load_json(path) == json.loads(json.dumps(RESULT))
    assert list(json.loads(path.read_text())) == ["metric", "last", "3", "sha256"]
    assert '\n    "top1": 71.25,' in path.read_text()


def test_json_without_a_checksum_is_read_only_where_the_caller_says_so(tmp_path):
    path = tmp_path / "x.json"
    checkpoint.save_json({"n": 1}, path, sealed=False)
    assert json.loads(path.read_text()) == {"n": 1} == checkpoint.load_json(path, unsealed=True)
    with pytest.raises(UserError, match=r"damaged \(it has no checksum"):
        checkpoint.load_json(path)


@pytest.mark.parametrize("unsealed", [False, True])
def test_no_flipped_bit_gives_other_json(tmp_path, unsealed):
    path = json_file(tmp_path)
    whole, before = path.read_bytes(), checkpoint.load_json(path)
    found = []
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        if not refusal(lambda: found.append(checkpoint.load_json(path, unsealed=unsealed)), path):
            assert repr(found[-1]) == repr(before)
    assert len(found) < 0.02 * 8 * len(whole)  # one blank for another


@pytest.mark.parametrize("unsealed", [False, True])
def test_json_cut_anywhere_is_refused(tmp_path, unsealed):
    path = json_file(tmp_path)
    whole = path.read_bytes()
    for length in range(len(whole) - 1):  # all but the last line's end
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="damaged"):
            checkpoint.load_json(path, unsealed=unsealed)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("null", "wanted a JSON object, got 'null'"),
        ("[1, 2]", "wanted a JSON object"),
        ("{}", "it has no checksum"),
        ('{"sha256": 3}', "its checksum does not match"),
        ("[" * 100_000, "not JSON"),
        ('{"n": ' + "1" * 5000 + "}", "not JSON"),
        ("\xff", "not a text in UTF-8"),
    ],
)
def test_what_is_not_our_json_is_told_in_one_line_with_a_remedy(tmp_path, content, problem):
    path = tmp_path / "x.json"
    path.write_bytes(content.encode("latin1"))
    with pytest.raises(UserError, match=problem) as error:
        checkpoint.load_json(path, remedy="do this")
    assert str(error.value).startswith(f"{path}: damaged (")
    assert str(error.value).endswith("; do this")
    assert "\n" not in str(error.value)


def test_json_that_is_missing_or_a_folder_is_told_with_the_remedy(tmp_path):
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(UserError, match="there is no such file; do this"):
            checkpoint.load_json(path, remedy="do this")


def test_an_entry_cannot_have_the_name_of_the_checksum(tmp_path):
    with pytest.raises(UserError, match="an entry is called 'sha256'"):
        checkpoint.save_json({"sha256": 1}, tmp_path / "x.json")


def test_a_file_that_would_run_code_is_refused(tmp_path):
    checkpoint.save({"x": NeedsCode()}, tmp_path / "x.pth")  # the checksum helps it nothing
    with pytest.raises(UserError, match=r"x\.pth is not a readable checkpoint \(UnpicklingError\)"):
        checkpoint.load(tmp_path / "x.pth")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_an_unreadable_file_is_the_user_s_error(tmp_path, content):
    path = tmp_path / "x.pth"
    checkpoint.save({"weight": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    with pytest.raises(UserError, match=r"x\.pth: damaged \(it has no checksum"):
        checkpoint.load(path)
    with pytest.raises(UserError, match=r"x\.pth is not a readable checkpoint"):
        checkpoint.load(path, unsealed=True)


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
        metadata = file.metadata()
    assert len(metadata.pop("sha256")) == 64
    assert metadata == {"classes": '["a", "b"]', "format": "pt"}
