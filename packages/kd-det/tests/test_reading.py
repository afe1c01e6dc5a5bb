"""Images that Detectron2 cannot read, and workers that it would wait for."""

import os

import pytest
from detectron2.config import get_cfg
from kd_core.data.workers import Watched
from kd_core.errors import UserError
from kd_det.config import add_kd_config
from kd_det.data.reading import FileNamingMapper, watch_workers
from PIL import Image
from torch.utils.data import DataLoader


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_kd_config(cfg)
    return cfg


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("fifo", "is a FIFO"),
        ("missing", "No such file"),
        ("text", "cannot be read"),
        ("other_size", "differs from its annotation"),
    ],
)
def test_an_image_that_cannot_be_read_is_named(cfg, tmp_path, kind, wanted):
    file = tmp_path / "a.png"
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "text":
        file.write_text("hello")
    elif kind == "other_size":
        Image.new("RGB", (8, 8)).save(file)
    entry = {"file_name": str(file), "height": 9, "width": 7, "image_id": 1, "annotations": []}
    with pytest.raises(UserError, match=wanted) as caught:
        FileNamingMapper(cfg, True)(entry)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_time_of_a_worker_is_that_of_the_config(cfg):
    cfg.KD.WORKER_TIMEOUT = 7.0
    loader = watch_workers(DataLoader([1, 2]), cfg)
    assert isinstance(loader, Watched)
    assert (loader.seconds, loader.option, len(loader)) == (7.0, "KD.WORKER_TIMEOUT", 2)
    cfg.KD.WORKER_TIMEOUT = -1.0
    with pytest.raises(UserError, match="worker_timeout is -1"):
        watch_workers(DataLoader([1, 2]), cfg)
