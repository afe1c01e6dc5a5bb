"""Files of logits: read as they are, or refused in one line."""

import numpy as np
import pytest
import torch
from kd_core.data.augment import Views
from kd_core.data.sampling import Sampling
from kd_core.distill.ensemble import Ensemble
from kd_core.distill.stored_outputs import StoredOutputs, knows_only_training_images
from kd_core.errors import UserError
from kd_core.files.outputs import Outputs, read_outputs, write_outputs
from safetensors.torch import save_file

LOGITS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def test_all_kinds_of_files_give_what_was_written(tmp_path):
    names = ["a", "b", "c"]
    np.save(tmp_path / "a.npy", LOGITS.astype(">f4"))  # of another machine
    np.savez(tmp_path / "b.npz", logits=LOGITS, classes=np.array(names))
    np.savez_compressed(tmp_path / "c.npz", anything=LOGITS.astype(np.float64))
    save_file({"logits": torch.from_numpy(LOGITS)}, tmp_path / "d.safetensors")
    write_outputs(tmp_path / "e.safetensors", Outputs(torch.from_numpy(LOGITS), names, "abc"))
    found = [read_outputs(path) for path in sorted(tmp_path.iterdir())]
    for each in found:
        assert torch.equal(each.logits.float(), torch.from_numpy(LOGITS))
    assert [each.classes for each in found] == [None, names, None, None, names]
    assert [each.data for each in found] == [None] * 4 + ["abc"]


def with_nan():
    logits = LOGITS.copy()
    logits[4, 1] = np.nan
    return logits


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"logits": with_nan()}, "some are not finite"),
        ({"logits": LOGITS[:, 0]}, r"it holds \[6\]"),
        ({"logits": LOGITS[:0]}, r"it holds \[0, 3\]"),
        ({"logits": LOGITS[None]}, r"it holds \[1, 6, 3\]"),
        ({"logits": np.arange(6).reshape(2, 3)}, "real numbers, but it holds int64"),
        ({"logits": LOGITS.astype(complex)}, "real numbers"),
        ({"logits": LOGITS, "classes": np.array(["a", "b"])}, "2 names for 3 columns"),
        ({"logits": LOGITS, "classes": np.arange(3)}, "array of texts"),
        ({"x": LOGITS, "y": LOGITS}, "holds x, y; wanted an entry `logits`"),
        ({}, "holds nothing"),
        ({"logits": np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)}, "probabilities"),
        ({"logits": np.array([[object()]])}, "damaged, or not a file of arrays .*[Oo]bject"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # equal in all processes
)
def test_other_arrays_are_refused(arrays, message, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=rf"x\.npz: .*{message}"):
        read_outputs(tmp_path / "x.npz")


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.safetensors", "x.pt", "x"])
@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00\xff\xff"], ids=len)
def test_other_files_are_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        read_outputs(tmp_path / name)


def test_a_changed_byte_is_seen(tmp_path):
    path = tmp_path / "x.safetensors"
    write_outputs(path, Outputs(torch.from_numpy(LOGITS)))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        read_outputs(path)


def test_rows_are_found_by_index_for_every_view():
    stored = StoredOutputs(torch.from_numpy(LOGITS).half())
    index = torch.tensor([4, 0, 4])
    rows = stored({"index": index})
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, torch.from_numpy(LOGITS)[index], rtol=1e-3, atol=1e-3)
    batch = {"image": torch.zeros(3, 3, 4, 4, dtype=torch.uint8), "index": index}
    views = stored(Views([[], []])(batch, Sampling(0, 0, index)))
    assert torch.equal(views, torch.cat([rows, rows]))


def test_batches_that_are_not_of_single_training_images_are_refused():
    stored = StoredOutputs(torch.from_numpy(LOGITS))
    with pytest.raises(UserError, match="found by `index`"):
        stored({"image": torch.zeros(2, 3, 4, 4)})
    mixed = {"index": torch.arange(2), "mixed_labels": torch.zeros(2, 2)}
    with pytest.raises(UserError, match="mixes several"):
        stored(mixed)
    assert knows_only_training_images(Ensemble([torch.nn.Identity(), stored]))
    assert not knows_only_training_images(Ensemble([torch.nn.Identity()]))
