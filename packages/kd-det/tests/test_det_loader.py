"""Training batches are a function of seed and iteration."""

import random
import signal
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from kd_core.errors import UserError

pytest.importorskip("detectron2")
import kd_det  # noqa: F401  before Detectron2
from detectron2.data.common import AspectRatioGroupedDataset
from kd_det.config import read_config
from kd_det.data.loader import Batches, MappedSamples, build_train_loader, drawn_from


class Mapper:
    """Draws from every generator, and rejects the given samples."""

    def __init__(self, refused=()):
        self.refused = refused

    def __call__(self, sample):
        if sample["image_id"] in self.refused:
            return None
        drawn = random.random(), np.random.rand(), torch.rand(()).item()
        return sample["image_id"], drawn


@pytest.fixture
def batches(write, coco, tmp_path):
    """Return a function that gives the first batches of a loader with some options."""
    from kd_det.data.register import register_coco

    register_coco(f"set_{tmp_path.name}", *coco)
    path = write("retinanet", DATASETS={"TRAIN": [f"set_{tmp_path.name}"], "TEST": []})

    def batches(*options, seed=1, start=0, count=6, mapper=None):
        cfg = read_config(path, [str(one) for one in options])
        loader = build_train_loader(cfg, mapper or Mapper(), seed=seed, start=start)
        return list(islice(loader, count))

    return batches


def test_batches_do_not_depend_on_workers(batches):
    one, two = (batches("DATALOADER.NUM_WORKERS", count) for count in (0, 2))
    assert one == two


@pytest.mark.parametrize("sampler", ["TrainingSampler", "RepeatFactorTrainingSampler"])
@pytest.mark.parametrize("grouped", [False, True])
def test_loader_continues_where_another_stopped(sampler, grouped, batches):
    options = ["DATALOADER.SAMPLER_TRAIN", sampler, "DATALOADER.ASPECT_RATIO_GROUPING", grouped]
    assert batches(*options, start=3, count=5) == batches(*options, count=8)[3:]


def test_seeds_differ(batches):
    assert batches(seed=1) != batches(seed=2)


def test_same_image_is_drawn_again_in_every_round(batches):
    drawn = [one for batch in batches(count=8) for one in batch]
    numbers = [number for number, _ in drawn]
    assert sorted(numbers[:8]) == sorted(numbers[8:]) == list(range(1, 9))
    assert len({numbers for _, numbers in drawn}) == 16


def test_groups_are_detectron2s():
    order = torch.randint(9, (60,), generator=torch.Generator().manual_seed(0)).tolist()
    wide = [index % 3 == 0 for index in range(9)]
    theirs = AspectRatioGroupedDataset(
        [{"width": 1 + wide[index], "height": 1, "index": index} for index in order], 4
    )
    ours = Batches(order, 4, groups=wide)
    assert [[i for _, i in batch] for batch in ours] == [[d["index"] for d in b] for b in theirs]


def test_generators_are_as_they_were_before():
    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    with drawn_from(5):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        first = draw()
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        with drawn_from(7):
            draw()
        assert draw() == first


def test_sample_that_the_mapper_refuses_is_replaced_by_a_drawn_one():
    samples = [{"image_id": number} for number in range(6)]
    made = MappedSamples(samples, Mapper(refused={0, 1, 2}), seed=0)
    found = [made[place, 0][0] for place in range(20)]
    assert set(found) == {3, 4, 5}
    assert found == [made[place, 0][0] for place in range(20)]


def test_mapper_that_refuses_all_is_an_error():
    made = MappedSamples([{"image_id": 0}], Mapper(refused={0}), seed=0)
    with pytest.raises(UserError, match="returned None for 100 samples in a row"):
        made[0, 0]


@pytest.mark.parametrize("images", [0, 3])
def test_batch_that_processes_cannot_share_is_refused(images, batches, monkeypatch):
    monkeypatch.setattr("kd_det.data.loader.comm", SimpleNamespace(get_world_size=lambda: 2))
    with pytest.raises(UserError, match=rf"IMS_PER_BATCH is {images}.*multiple of the 2 processes"):
        batches("SOLVER.IMS_PER_BATCH", images)


def test_a_signal_to_all_processes_of_a_run_does_not_end_its_workers(batches):
    cut_short = batches("DATALOADER.NUM_WORKERS", 2, count=2, mapper=Terminated())
    assert len(cut_short) == 2


class Terminated(Mapper):
    """Sends SIGTERM to the worker that reads a sample."""

    def __call__(self, sample):
        signal.raise_signal(signal.SIGTERM)
        return super().__call__(sample)
