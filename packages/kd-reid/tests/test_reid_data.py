"""Batches of people: who comes in them, how often, and what is done to the images."""

from collections import Counter

import numpy as np
import pytest
import torch
from kd_core.data.augment import Flip
from kd_core.data.sampling import Sampling
from kd_core.errors import UserError
from kd_reid import data
from kd_reid.data.augment import FILL, RandomErasing, ZoomCrop
from kd_reid.data.sampler import IdentitySampler
from kd_reid.synthetic.people import synthetic_people
from PIL import Image

COUNTS = [9, 4, 2, 13, 8, 5]  # images of each identity
LABELS = torch.arange(6).repeat_interleave(torch.tensor(COUNTS))


def sampler(labels=LABELS, batch_size=12, instances=4, seed=0):
    return IdentitySampler(labels, batch_size=batch_size, instances=instances, data_seed=seed)


class TestIdentitySampler:
    @pytest.mark.parametrize("epoch", range(5))
    def test_every_batch_has_so_many_images_of_so_many_people(self, epoch):
        order = sampler().order(epoch) % len(LABELS)
        assert len(order) == len(sampler()) == 36  # 2 + 1 + 1 + 3 + 2 + 1 groups, 3 a batch
        for batch in order.split(12):
            assert sorted(Counter(LABELS[batch].tolist()).values()) == [4, 4, 4]

    def test_an_image_comes_again_only_where_there_are_too_few(self):
        for epoch in range(20):
            order = sampler().order(epoch)
            for batch in order.split(12):
                repeated = [i for i, n in Counter((batch % len(LABELS)).tolist()).items() if n > 1]
                assert {int(LABELS[i]) for i in repeated} <= {2}

    def test_what_comes_again_has_a_number_of_its_own(self):
        for epoch in range(20):
            order = sampler().order(epoch)
            assert len(set(order.tolist())) == len(order)
            again = order[order >= len(LABELS)] % len(LABELS)
            assert set(again.tolist()) <= set(order[order < len(LABELS)].tolist())

    def test_epochs_differ_and_are_functions_of_the_seed(self):
        assert torch.equal(sampler().order(3), sampler().order(3))
        assert not torch.equal(sampler().order(3), sampler().order(4))
        assert not torch.equal(sampler(seed=1).order(3), sampler().order(3))

    def test_everybody_comes_over_time(self):
        seen = torch.cat([LABELS[sampler().order(epoch) % len(LABELS)] for epoch in range(10)])
        shares = torch.bincount(seen).tolist()
        assert min(shares) > 0
        assert shares[3] > shares[1]  # who has more images comes more often

    def test_it_refuses_what_cannot_be_made_up(self):
        with pytest.raises(UserError, match="instances=5 must divide batch_size=12"):
            sampler(instances=5)
        with pytest.raises(UserError, match="must divide batch_size=0"):
            sampler(batch_size=0)
        with pytest.raises(UserError, match="needs 12 identities a batch, the training set has 6"):
            sampler(instances=1)


def sampling(count, epoch=0):
    return Sampling(torch.arange(count), 0, epoch)


class TestRandomErasing:
    SIZE = (64, 32)

    def erased(self, count=2000, **options):
        images = torch.zeros(count, 3, *self.SIZE, dtype=torch.uint8)
        found = RandomErasing(**options)({"image": images}, sampling(count))["image"]
        return found, (found != 0).any(1)

    def test_half_of_the_images_lose_a_rectangle(self):
        _, mask = self.erased()
        hit = mask.flatten(1).any(1)
        assert hit.float().mean().item() == pytest.approx(0.5, abs=0.04)
        for one in mask[hit][:200]:
            rows, columns = one.any(1), one.any(0)
            assert int(one.sum()) == int(rows.sum()) * int(columns.sum())
            for line in (rows, columns):
                places = line.nonzero().flatten()
                assert int(places[-1] - places[0]) + 1 == len(places)

    def test_areas_and_aspects_are_in_their_ranges(self):
        _, mask = self.erased(probability=1.0)
        assert mask.flatten(1).any(1).all()
        height, width = (mask.any(side).sum(1).float() for side in (2, 1))
        share = height * width / (64 * 32)
        assert share.min() > 0.015
        assert 0.3 < share.max() < 0.45
        ratio = height / width
        assert ratio.min() > 0.25
        assert ratio.max() < 4
        assert share.mean().item() == pytest.approx(0.19, abs=0.03)

    def test_it_may_lie_anywhere(self):
        _, mask = self.erased(probability=1.0, area=(0.02, 0.05))
        for edge in (mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1], mask[:, 32, 16]):
            assert edge.any()

    def test_the_colour_is_what_torchreid_s_is_as_a_pixel(self):
        found, mask = self.erased(count=50, probability=1.0)
        pixel = found[0][:, mask[0]][:, 0]
        assert pixel.tolist() == [round(255 * value) for value in FILL] == [152, 142, 127]

    def test_it_can_be_left_out_and_is_checked(self):
        assert not self.erased(probability=0.0)[1].any()
        with pytest.raises(UserError, match="aspect: wanted a number of at most 1"):
            RandomErasing(aspect=2)

    @pytest.mark.parametrize(
        "options",
        [
            *({"probability": value} for value in (-0.1, 2, float("nan"), "half", True)),
            *({"area": value} for value in (0.1, (0.1,), (0, 0.4), (0.4, 0.1), (0.1, 1), "ab")),
            *({"fill": value} for value in (0.5, (0.5,), (0.5, 0.5, 2), (-1, 0, 0), "abc")),
        ],
        ids=str,
    )
    def test_a_value_that_it_cannot_have_is_refused_by_name(self, options):
        with pytest.raises(UserError, match=rf"RandomErasing.*{next(iter(options))}"):
            RandomErasing(**options)


class TestZoomCrop:
    def test_half_of_the_images_are_crops_of_the_enlarged_one(self):
        rows = torch.arange(64, dtype=torch.uint8)[:, None].expand(64, 32)
        images = rows.expand(400, 3, 64, 32)
        found = ZoomCrop()({"image": images}, sampling(400))["image"]
        assert found.shape == images.shape
        same = (found == images).flatten(1).all(1)
        assert same.float().mean().item() == pytest.approx(0.5, abs=0.08)
        spans = (found[~same][:, 0, -1, 0].int() - found[~same][:, 0, 0, 0].int()).float()
        assert spans.mean().item() == pytest.approx(63 / 1.125, abs=0.7)
        assert len(found[~same][:, 0, 0, 0].unique()) > 4  # crops from several places

    def test_it_is_checked(self):
        for scale in (0.5, 1e9, float("inf"), float("nan"), "1.1"):
            with pytest.raises(UserError, match="ZoomCrop: scale: wanted a"):
                ZoomCrop(scale=scale)


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    folder = tmp_path_factory.mktemp("market") / "bounding_box_train"
    few = {"num_train_ids": 6, "num_test_ids": 4, "num_cameras": 2, "images_per_camera": 2}
    return synthetic_people(folder.parent / "set", image_height=32, **few)


def load(root, **options):
    return data.market1501(root=str(root), **{"image_size": (32, 16), "batch_size": 8, **options})


class TestLoading:
    def test_a_set_is_what_is_on_disk(self, market):
        found = load(market)
        assert found.num_classes == 6
        assert found.num_samples == 24
        assert found.identities == tuple(f"{number:04}" for number in range(1, 7))
        assert found.labels.tolist() == [number // 4 for number in range(24)]
        assert len(found.query.records) == 8
        batch = next(found.train.epoch(0))
        assert batch["image"].shape == (8, 3, 32, 16)
        assert batch["image"].dtype == torch.uint8
        assert [type(step) for step in found.train.augment] == [Flip]

    def test_images_are_those_of_the_files(self, market):
        batch = next(load(market).query.loader.epoch(0))
        record = load(market).query.records[3]
        with Image.open(record.path) as image:
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        assert torch.equal(batch["image"][3], pixels)

    @pytest.mark.parametrize("options", [{}, {"instances": 4}])
    def test_it_does_not_matter_whether_images_stay_in_memory(self, market, options):
        sets = [load(market, resident=resident, workers=0, **options) for resident in (True, False)]
        for one, other in zip(*(found.train.epoch(1) for found in sets), strict=True):
            assert torch.equal(one["image"], other["image"])
            assert torch.equal(one["label"], other["label"])

    def test_instances_make_up_the_batches(self, market):
        for batch in load(market, instances=4).train.epoch(0):
            assert sorted(Counter(batch["label"].tolist()).values()) == [4, 4]

    def test_a_set_of_your_own_is_split_by_people(self, tmp_path):
        for person in "abcdef":
            for camera in (1, 2):
                (tmp_path / person).mkdir(exist_ok=True)
                for shot in (1, 2):
                    image = Image.new("RGB", (20, 40), (ord(person), camera * 9, shot))
                    image.save(tmp_path / person / f"cam{camera}_{shot}.png")
        found = data.people(
            str(tmp_path), camera=r"cam(\d)", image_size=(32, 16), batch_size=4, split_seed=1
        )
        searched = {record.identity for record in found.query.records}
        assert searched == {record.identity for record in found.gallery.records}
        assert searched.isdisjoint(found.identities)
        assert len(searched) == len(found.identities) == 3

    def test_generated_people_have_the_images_height(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KD_CACHE", str(tmp_path))
        few = {"num_train_ids": 3, "num_test_ids": 2, "num_cameras": 2, "images_per_camera": 2}
        found = data.generated(image_size=(32, 16), batch_size=4, **few)
        with Image.open(found.query.records[0].path) as image:
            assert image.size[1] == 32

    def test_a_public_set_is_looked_for_by_name(self, tmp_path):
        with pytest.raises(UserError, match=r"no data set 'msmt'.*msmt17"):
            data.public("msmt", root=str(tmp_path))

    def test_empty_parts_and_wrong_settings_are_refused(self, market, tmp_path):
        for size in ((32,), 32):
            with pytest.raises(UserError, match="image_size: wanted"):
                load(market, image_size=size)
        with pytest.raises(UserError, match="resident: wanted"):
            load(market, resident="yes")
        with pytest.raises(UserError, match="no batch can be made of 24 samples"):
            load(market, batch_size=25)
