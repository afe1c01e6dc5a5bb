"""Flipped bits and cut ends of checkpoints and weights: refused in a line, or of no effect."""

import os
import random
import shutil
import struct
import zipfile

import pytest
import torch
from kd_core.errors import UserError
from kd_core.files import checkpoint
from kd_core.files.artifacts import COUNT, NAMES, read_facts
from kd_core.files.weights import read_state_dict
from kd_core.testing.damage import cut, flip_bit, full_disk, refusal, restored
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

FACTS = {"classes": NAMES, "size": COUNT}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    facts = {"classes": '["cat", "dog"]', "size": "32"}
    checkpoint.export(network().state_dict(), folder / "student", facts)
    state = {"distiller": {"student.network.w": torch.arange(6.0)}, "average": None, "epoch": 3}
    checkpoint.save(state, folder / "last.pth")
    return folder


READERS = {
    "last.pth": [checkpoint.load, read_state_dict],
    "student.pth": [read_state_dict],
    "student.safetensors": [read_state_dict, lambda path: read_facts(path, FACTS)],
}
CASES = [(name, reader) for name, readers in READERS.items() for reader in readers]


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    return one == other


def check_damaged(path, read, before):
    """Read a damaged file: a line that names it, or the same contents."""
    found = []
    line = refusal(lambda: found.append(read(path)), path)
    assert line or same(found[0], before)
    return line


@pytest.fixture(params=CASES, ids=lambda case: case[0])
def case(request, made, tmp_path):
    name, read = request.param
    shutil.copy(made / name, tmp_path / name)
    return tmp_path / name, read, read(made / name)


def test_no_flipped_bit_gives_other_contents(case):
    path, read, before = case
    size, rng = path.stat().st_size, random.Random(5)
    # Drawn, and all of both ends: headers, names, the archive's directory and comment.
    places = [rng.randrange(size) for _ in range(200)]
    places += range(0, 150, 3)
    places += range(max(size - 800, 0), size, 7)
    refused = 0
    for place in places:
        with restored(path):
            flip_bit(path, rng, at=place)
            refused += check_damaged(path, read, before) is not None
    assert refused > 0.9 * len(places)


def test_no_cut_gives_other_contents(case):
    path, read, before = case
    rng = random.Random(5)
    for length in [0, 1, 4, 8, -1, -10, -64, -74, -75, -80, -97, *[None] * 20]:
        with restored(path):
            cut(path, rng, to=length)
            check_damaged(path, read, before)


def test_every_bit_of_the_seal_counts(made, tmp_path):
    path = tmp_path / "last.pth"
    shutil.copy(made / path.name, path)
    for place in range(-96, 0):
        with restored(path):
            flip_bit(path, at=place)
            assert "damaged" in (refusal(lambda: checkpoint.load(path), path) or "")


def test_a_flipped_weight_is_told_with_the_way_out(made, tmp_path):
    path = tmp_path / "student.pth"
    shutil.copy(made / path.name, path)
    whole = path.read_bytes()
    flip_bit(path, at=whole.index(network()[2].weight.detach().numpy().tobytes()))
    torch.load(path)  # torch itself takes it
    with pytest.raises(UserError, match=r"damaged \(its checksum does not match\); get it again"):
        read_state_dict(path)


def test_metadata_of_a_student_cannot_be_changed(made, tmp_path):
    path = tmp_path / "student.safetensors"
    path.write_bytes((made / path.name).read_bytes().replace(b"cat", b"cow"))
    with pytest.raises(UserError, match="its checksum does not match"):
        read_facts(path, {"classes": NAMES})


def test_files_of_others_have_no_checksum_and_are_read(tmp_path):
    state = network().state_dict()
    torch.save(state, tmp_path / "a.pth")
    torch.save(state, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "c.safetensors")
    for name in ("a.pth", "b.pth", "c.safetensors"):
        assert same(read_state_dict(tmp_path / name), dict(state))


def test_other_programs_read_sealed_files(made):
    state = dict(network().state_dict())
    path = made / "student.pth"
    assert torch.load.__module__ == "torch.serialization"  # not ours
    for options in ({}, {"mmap": True}, {"weights_only": True}, {"weights_only": False}):
        assert same(torch.load(path, **options), state)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"kd-sha256:")
    assert same(load_file(made / "student.safetensors"), state)
    with safe_open(made / "student.safetensors", framework="pt") as file:
        assert file.metadata()["format"] == "pt"


def test_the_same_contents_make_the_same_file(tmp_path):
    for name in ("a.pth", "b.pth"):
        checkpoint.save({"w": torch.arange(3.0)}, tmp_path / name)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


@pytest.mark.parametrize("limit", [0, 10, 5000, 200_000, 400_000, 401_500])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, limit):
    path = tmp_path / "x.pth"
    checkpoint.save({"n": 1}, path)
    with full_disk(limit), pytest.raises(UserError) as caught:
        checkpoint.save({"w": torch.ones(100_000), "n": 2}, path)
    assert "x.pth: the file became larger than is allowed here" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert checkpoint.load(path) == {"n": 1}
    assert os.listdir(tmp_path) == ["x.pth"]


def test_a_sealed_file_of_more_than_a_chunk_is_read(tmp_path):
    value = {"w": torch.arange(700_001)}
    checkpoint.save(value, tmp_path / "x.pth")
    assert same(checkpoint.load(tmp_path / "x.pth"), value)
    with restored(tmp_path / "x.pth"):
        flip_bit(tmp_path / "x.pth", at=1 << 20)
        assert refusal(lambda: checkpoint.load(tmp_path / "x.pth"), tmp_path / "x.pth")


def test_a_header_that_promises_too_much_is_refused(made, tmp_path):
    path = tmp_path / "student.safetensors"
    for length in (0, 1, 2**31, 2**63):
        path.write_bytes(struct.pack("<Q", length) + (made / path.name).read_bytes()[8:])
        assert "damaged" in (refusal(lambda: read_state_dict(path), path) or "")
