"""The benchmark of data pipelines runs, and compares what it says it compares."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture
def data(monkeypatch):
    """Return the module of the benchmark."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module("data")
    sys.modules.pop("data", None)


def test_pipelines_are_measured_beside_torchvision(data, monkeypatch, tmp_path, capsys):
    options = ["--small", "--repeats", "2", "--device", "cpu", "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["data.py", *options, "--out", str(tmp_path / "rows.jsonl")])
    data.main()
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    ways = [(row["images"], row["way"]) for row in rows]
    assert ways == [
        ("on_disk", "torchvision"),
        ("on_disk", "ours"),
        ("on_disk", "ours, decoded, first epoch"),
        ("on_disk", "ours, decoded"),
        ("in_memory", "torchvision"),
        ("in_memory", "ours"),
    ]
    assert all(row["images_per_second"] > 0 and len(row["ratios"]) == 2 for row in rows)
    assert all(row["environment"]["threads"] == torch.get_num_threads() for row in rows)
    assert [row["ratio"] for row in rows if row["way"] == "torchvision"] == [1, 1]
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(rows)


@pytest.mark.parametrize("place", ["on_disk", "in_memory"])
def test_all_ways_give_as_many_images_of_one_size_and_scale(data, place, tmp_path):
    sizes = data.Sizes(files=40, height=60, width=80, crop=32, arrays=40, batch=16)
    ways = getattr(data, place)(tmp_path, sizes, 0, torch.device("cpu"))
    assert len(ways) == {"on_disk": 4, "in_memory": 2}[place]
    means = []
    for epoch in ways.values():
        batches = list(epoch())
        assert [tuple(batch.shape) for batch in batches] == [(n, 3, 32, 32) for n in (16, 16, 8)]
        means.append(torch.cat(batches).mean(dim=(0, 2, 3)))
    for mean in means[1:]:  # other crops of the same images
        torch.testing.assert_close(mean, means[0], rtol=0, atol=0.2)


def test_a_first_epoch_finds_nothing_stored(data, tmp_path):
    ways = data.on_disk(tmp_path, data.SMALL, 0, torch.device("cpu"))
    for _ in range(2):
        list(ways["ours, decoded, first epoch"]())
    for file in tmp_path.glob("t*/*/*.jpg"):
        file.write_bytes(b"broken")
    with pytest.raises(ValueError, match="cannot be decoded"):
        list(ways["ours, decoded, first epoch"]())


def test_what_is_no_normalised_batch_is_not_timed(data):
    with pytest.raises(TypeError, match=r"float32 .* is wanted, got torch\.uint8"):
        data.rate(lambda: [torch.zeros(2, 3, 4, 4, dtype=torch.uint8)], torch.device("cpu"))
