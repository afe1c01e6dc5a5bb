"""The benchmark of shards runs, and compares what it says it compares."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def test_both_loaders_give_the_same_images_normalised(monkeypatch, tmp_path):
    pytest.importorskip("webdataset")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    stream = importlib.import_module("stream")
    try:
        sizes = sys.modules["data"].Sizes(
            files=32, height=60, width=80, crop=32, arrays=1, batch=16
        )
        ways = stream.loaders(tmp_path, sizes, 0, 2, torch.device("cpu"))
        means = []
        for epoch in ways.values():
            batches = list(epoch())
            assert [tuple(batch.shape) for batch in batches] == [(16, 3, 32, 32)] * 2
            means.append(torch.cat(batches).mean(dim=(0, 2, 3)))
        assert list(ways) == ["timm", "ours"]
        torch.testing.assert_close(*means, rtol=0, atol=0.2)  # other crops
    finally:
        for name in ("stream", "data"):
            sys.modules.pop(name, None)
