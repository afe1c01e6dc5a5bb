"""Images mixed with one another: by how much, with whom, and what their labels then are."""

import functools
import math

import pytest
import torch
from kd_core.data.augment import CropFlip, QuarterTurns, Rotate, Views, apply
from kd_core.data.device_loader import DeviceLoader
from kd_core.data.mix import RICAP, CutMix, Mixup, RolledMixup, check_mixing
from kd_core.data.sampling import Sampling, SymmetricBeta
from kd_core.data.weak_strong import StrongCopies
from kd_core.errors import UserError
from kd_core.testing import NoHostReads

MIXES = [Mixup(), CutMix(), RICAP(), RolledMixup()]
SHARES = {"Mixup": 2, "CutMix": 2, "RICAP": 4, "RolledMixup": 2}
HEIGHT, WIDTH = 12, 16


def named(mix):
    return type(mix).__name__


def batch_of(count, first=0):
    """Images whose pixels say where they come from: sample, row and column."""
    index = torch.arange(first, first + count)
    image = torch.empty(count, 3, HEIGHT, WIDTH, dtype=torch.uint8)
    image[:, 0] = index[:, None, None].to(torch.uint8)
    image[:, 1] = torch.arange(HEIGHT)[:, None].to(torch.uint8)
    image[:, 2] = torch.arange(WIDTH).to(torch.uint8)
    return {"image": image, "label": index + 100, "index": index}


def mixed(mix, count=8, first=0, seed=0, epoch=0, batch_of=batch_of):
    batch = batch_of(count, first)
    return mix(batch, Sampling(batch["index"], seed, epoch)[0:count])


def many(mix, number=400, count=4):
    made = functools.cache(batch_of)
    return [mixed(mix, count, count * k % 200, epoch=k, batch_of=made) for k in range(number)]


every_mix = pytest.mark.parametrize("mix", MIXES, ids=named)


@every_mix
class TestEveryMix:
    def test_gives_images_of_the_same_shape_with_labels_and_weights(self, mix):
        before, after = batch_of(8), mixed(mix)
        shares = SHARES[named(mix)]
        assert after["image"].shape == before["image"].shape
        assert after["mixed_labels"].shape == after["mixed_weights"].shape == (8, shares)
        assert after["mixed_labels"].dtype == torch.int64
        assert after["mixed_weights"].dtype == torch.float32
        torch.testing.assert_close(after["mixed_weights"].sum(1), torch.ones(8))
        assert (after["mixed_weights"] >= 0).all()

    def test_every_image_is_used_once_in_each_part(self, mix):
        labels = mixed(mix)["mixed_labels"]
        for part in labels.unbind(1):
            assert part.sort().values.tolist() == [*range(100, 108)]

    def test_own_label_and_index_stay_and_the_crop_is_forgotten(self, mix):
        before = {**batch_of(8), "crop_id": torch.arange(8), "size": 12}
        after = mix(before, Sampling(before["index"], 0, 0))
        assert torch.equal(after["label"], before["label"])
        assert torch.equal(after["index"], before["index"])
        assert after["size"] == 12
        assert "crop_id" not in after
        assert "crop_id" in before

    def test_is_a_function_of_seed_epoch_and_samples(self, mix):
        first = mixed(mix)
        again = mixed(mix)
        assert all(torch.equal(first[name], again[name]) for name in first)
        for other in (mixed(mix, seed=1), mixed(mix, epoch=1), mixed(mix, first=8)):
            assert not torch.equal(first["image"], other["image"])
            assert not torch.equal(first["mixed_weights"], other["mixed_weights"])

    def test_global_generators_are_not_drawn_from(self, mix):
        state = torch.get_rng_state()
        mixed(mix)
        assert torch.equal(torch.get_rng_state(), state)

    def test_an_epoch_is_the_same_wherever_it_is_entered(self, mix):
        image = torch.arange(24 * 3 * 16).reshape(24, 3, 4, 4).to(torch.uint8)
        options = {"batch_size": 5, "shuffle": True, "augment": [CropFlip(1), mix]}
        loader = DeviceLoader(image, torch.arange(24), **options)
        whole, rest = list(loader.epoch(3)), list(loader.epoch(3, start=2))
        for batch, other in zip(whole[2:], rest, strict=True):
            assert batch.keys() == other.keys()
            assert all(torch.equal(batch[name], other[name]) for name in batch)

    def test_a_process_mixes_its_own_part(self, mix):
        image = torch.zeros(16, 3, 4, 4, dtype=torch.uint8)
        loader = DeviceLoader(image, torch.arange(16), batch_size=8, shuffle=True, augment=[mix])
        for rank in range(2):
            for batch in loader.shard(rank, 2).epoch(0):
                assert {*batch["mixed_labels"].flatten().tolist()} == {*batch["label"].tolist()}

    def test_nothing_is_read_back(self, mix):
        batch = batch_of(8)
        with NoHostReads():
            mix(batch, Sampling(batch["index"], 0, 0)[0:8])

    def test_what_is_given_stays_as_it_is(self, mix):
        batch = batch_of(8)
        mix(batch, Sampling(batch["index"], 0, 0))
        assert batch.keys() == {"image", "label", "index"}
        assert torch.equal(batch["image"], batch_of(8)["image"])

    def test_an_empty_batch_passes(self, mix):
        after = mixed(mix, count=0)
        assert after["image"].shape == (0, 3, HEIGHT, WIDTH)
        assert (
            after["mixed_labels"].shape == after["mixed_weights"].shape == (0, SHARES[named(mix)])
        )

    def test_floats_stay_floats_in_0_to_1(self, mix):
        batch = batch_of(8)
        batch["image"] = batch["image"].float() / 255
        image = mix(batch, Sampling(batch["index"], 0, 0))["image"]
        as_bytes = mixed(mix)["image"]
        assert image.dtype == torch.float32
        expected = as_bytes / 255 if as_bytes.dtype == torch.uint8 else as_bytes
        torch.testing.assert_close(image, expected)

    def test_images_without_labels_are_mixed_the_same(self, mix):
        batch = batch_of(8)
        del batch["label"]
        after = mix(batch, Sampling(batch["index"], 0, 0)[0:8])
        assert after.keys() == {"image", "index", "mixed_weights"}
        assert torch.equal(after["image"], mixed(mix)["image"])
        assert torch.equal(after["mixed_weights"], mixed(mix)["mixed_weights"])
        with pytest.raises(UserError, match="mixed already"):
            mix(after, Sampling(batch["index"], 0, 0))

    def test_several_views_are_refused(self, mix):
        batch = {**batch_of(2), "num_views": 2}
        with pytest.raises(UserError, match=f"{named(mix)}: the batch has several views"):
            mix(batch, Sampling(batch["index"], 0, 0))

    def test_mixing_twice_is_refused(self, mix):
        batch = mixed(Mixup(), count=2)
        with pytest.raises(UserError, match=f"{named(mix)}: the images are mixed already"):
            mix(batch, Sampling(batch["index"], 0, 0))


class TestMixup:
    def test_is_the_average_by_the_weights(self):
        after, image = mixed(Mixup()), batch_of(8)["image"] / 255
        assert after["image"].dtype == torch.float32
        other = after["mixed_labels"][:, 1] - 100
        share, rest = after["mixed_weights"][0].tolist()
        torch.testing.assert_close(after["image"], share * image + rest * image[other])
        assert torch.equal(after["mixed_labels"][:, 0], batch_of(8)["label"])

    def test_of_one_image_is_itself(self):
        assert torch.equal(mixed(Mixup(), count=1)["image"], batch_of(1)["image"] / 255)

    def test_share_is_uniform(self):
        shares = torch.stack([after["mixed_weights"][0, 0] for after in many(Mixup())])
        assert shares.mean().item() == pytest.approx(0.5, abs=0.05)
        assert shares.var().item() == pytest.approx(1 / 12, abs=0.01)

    def test_partners_are_of_any_place(self):
        partners = torch.stack([after["mixed_labels"][:, 1] for after in many(Mixup())])
        own = torch.stack([after["mixed_labels"][:, 0] for after in many(Mixup())])
        for distance in range(4):
            found = ((partners - own) % 4 == distance).float().mean().item()
            assert found == pytest.approx(0.25, abs=0.05)


class TestRolledMixup:
    def test_the_partner_is_the_image_before_and_the_own_share_is_the_larger(self):
        for after in many(RolledMixup(), 50):
            own, other = after["mixed_labels"].unbind(1)
            assert torch.equal(other, own.roll(1))
            share, rest = after["mixed_weights"][0].tolist()
            assert share >= 0.5
            image = (own - 100)[:, None, None] / 255  # the first channel is the sample
            expected = share * image + rest * image.roll(1, 0)
            torch.testing.assert_close(after["image"][:, 0], expected.expand(-1, HEIGHT, WIDTH))

    def test_shares_are_uniform_from_one_half_on(self):
        shares = torch.stack([after["mixed_weights"][0, 0] for after in many(RolledMixup())])
        assert shares.mean().item() == pytest.approx(0.75, abs=0.025)
        assert shares.var().item() == pytest.approx(1 / 48, abs=0.003)

    def test_its_shares_are_the_larger_ones_of_mixup(self):
        for epoch in range(5):
            plain, rolled = (mixed(mix(0.3), epoch=epoch) for mix in (Mixup, RolledMixup))
            expected = plain["mixed_weights"].sort(1, descending=True).values
            torch.testing.assert_close(rolled["mixed_weights"], expected)


def boxes(after):
    """Return where pixels are another sample's, and whose they are."""
    return after["image"][:, 0].long() + 100 != after["label"][:, None, None]


class TestCutMix:
    def test_another_image_s_pixels_stay_at_their_place(self):
        for after in many(CutMix(), 20):
            assert after["image"].dtype == torch.uint8
            assert torch.equal(after["image"][:, 1:], batch_of(4)["image"][:, 1:])
            whose = after["image"][:, 0].long() + 100
            other = after["mixed_labels"][:, 1][:, None, None]
            assert torch.equal(whose, torch.where(boxes(after), other, whose))

    def test_weights_are_the_areas(self):
        for after in many(CutMix(), 50):
            changed = after["mixed_labels"][:, 1] != after["label"]
            area = boxes(after).float().mean((1, 2))[changed]
            torch.testing.assert_close(area, after["mixed_weights"][changed, 1])
            torch.testing.assert_close(area, 1 - after["mixed_weights"][changed, 0])

    def test_box_is_a_rectangle_the_same_for_all(self):
        for after in many(CutMix(), 50):
            found = boxes(after).any(0)
            rows, columns = found.any(1), found.any(0)
            assert torch.equal(found, rows[:, None] & columns)
            for side in (rows, columns):
                assert (side.int().diff() == 1).sum() <= 1  # without a gap

    def test_sides_are_those_of_the_formula_unless_clipped(self, monkeypatch):
        for share in (0.0, 0.3, 0.75, 0.9):
            mix = CutMix()
            monkeypatch.setattr(mix, "share", lambda _, s=share: torch.tensor(s))
            largest = [0, 0]
            for after in many(mix, 300):
                found = boxes(after).any(0)
                sides = int(found.any(1).sum()), int(found.any(0).sum())
                largest = [max(*pair) for pair in zip(largest, sides, strict=True)]
            length = math.sqrt(1 - share)
            assert largest == [int(side * length) // 2 * 2 for side in (HEIGHT, WIDTH)]

    def test_centre_is_anywhere(self, monkeypatch):
        mix = CutMix()
        monkeypatch.setattr(mix, "share", lambda _: torch.tensor(1 - (2 / HEIGHT) ** 2))
        seen = sum(boxes(after).any(0).int() for after in many(mix, 2000))
        for dim in (0, 1):  # a box of two pixels covers all but the last twice as often
            *often, seldom = seen.float().mean(dim).tolist()
            assert often == pytest.approx([sum(often) / len(often)] * len(often), rel=0.25)
            assert seldom == pytest.approx(sum(often) / len(often) / 2, rel=0.35)


class TestRICAP:
    def test_tiles_are_crops_of_the_images_that_the_labels_name(self):
        for after in many(RICAP(), 100):
            for image, labels, weights in zip(
                after["image"], after["mixed_labels"], after["mixed_weights"], strict=True
            ):
                self.check(image.long(), labels, weights)

    def check(self, image, labels, weights):
        top, left = split_of(weights)
        rows, columns = (slice(0, top), slice(top, HEIGHT)), (slice(0, left), slice(left, WIDTH))
        for number, label in enumerate(labels.tolist()):
            tile = image[:, rows[number // 2], columns[number % 2]]
            assert tile[0].numel() == round(weights[number].item() * HEIGHT * WIDTH)
            if not tile.numel():
                continue
            assert (tile[0] == label - 100).all()
            y, x = tile[1, 0, 0], tile[2, 0, 0]  # where it was cut
            assert torch.equal(
                tile[1], (y + torch.arange(tile.shape[1]))[:, None].expand_as(tile[1])
            )
            assert torch.equal(tile[2], (x + torch.arange(tile.shape[2])).expand_as(tile[2]))

    def test_sides_are_of_the_beta_distribution(self):
        parts = torch.tensor([split_of(after["mixed_weights"][0]) for after in many(RICAP(), 1000)])
        parts = parts / torch.tensor([HEIGHT, WIDTH])
        assert parts.mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.04)
        assert parts.var(0).tolist() == pytest.approx([1 / 6.4] * 2, abs=0.01)  # 1 / 4(2 beta + 1)
        assert parts.T.corrcoef()[0, 1].abs() < 0.1

    def test_crops_are_taken_from_anywhere(self, monkeypatch):
        mix = RICAP()
        monkeypatch.setattr(mix, "share", lambda _: torch.tensor(0.5))
        image = torch.stack([after["image"][0] for after in many(mix, 400)]).long()
        for row, column in ((0, 0), (0, 8), (6, 0), (6, 8)):
            assert {*image[:, 1, row, column].tolist()} == {*range(HEIGHT // 2 + 1)}
            assert {*image[:, 2, row, column].tolist()} == {*range(WIDTH // 2 + 1)}

    def test_tiles_are_of_independent_images(self):
        labels = torch.cat([after["mixed_labels"] for after in many(RICAP(), 400)]) % 4
        for one in range(4):
            for other in range(one):
                equal = (labels[:, one] == labels[:, other]).float().mean().item()
                assert equal == pytest.approx(0.25, abs=0.05)


def split_of(weights):
    """Return the height and the width of the upper left tile, from the four areas."""
    areas = (weights * HEIGHT * WIDTH).round().long()
    top = areas[:2].sum() // WIDTH
    return int(top), int((areas[0] + areas[2]) // HEIGHT)


class TestBeta:
    def test_of_1_is_the_uniform_distribution(self):
        uniform = torch.linspace(0, 1, 1001)
        torch.testing.assert_close(SymmetricBeta(1.0)(uniform), uniform)

    def test_of_one_half_is_the_arcsine_distribution(self):
        uniform = torch.linspace(0, 1, 1001, dtype=torch.float64)
        expected = (torch.pi * uniform / 2).sin().square().float()
        found = SymmetricBeta(0.5)(uniform.float())
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)

    def test_of_2_inverts_the_polynomial(self):
        x = torch.linspace(0, 1, 1001, dtype=torch.float64)
        found = SymmetricBeta(2.0)((3 * x**2 - 2 * x**3).float())
        torch.testing.assert_close(found[20:-20], x.float()[20:-20], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("alpha", [0.1, 0.3, 0.8, 1.0, 4.0])
    def test_has_the_moments_of_the_distribution(self, alpha):
        drawn = SymmetricBeta(alpha)((torch.arange(100000) + 0.5) / 100000)
        assert drawn.mean().item() == pytest.approx(0.5, abs=1e-5)
        assert drawn.var().item() == pytest.approx(1 / (8 * alpha + 4), rel=1e-3)
        fourth = (drawn - 0.5).pow(4).mean().item()
        assert fourth == pytest.approx(3 / (16 * (2 * alpha + 1) * (2 * alpha + 3)), rel=1e-3)

    @pytest.mark.parametrize("alpha", [0, -1.0, math.nan])
    def test_of_what_is_not_positive_is_refused(self, alpha):
        with pytest.raises(
            UserError, match=r"alpha: wanted a number of at (least 0\.001|most 1000), got"
        ):
            Mixup(alpha)


class TestPlace:
    @pytest.mark.parametrize(
        "augments",
        [
            [Mixup(), CropFlip()],
            [CutMix(), QuarterTurns()],
            [RICAP(), Mixup()],
            [Views([[CropFlip()], [CropFlip(), Mixup()]])],
            [Views([[], [Views([[CutMix()], []])]])],
            [StrongCopies([RICAP()])],
        ],
    )
    def test_before_the_end_or_inside_another_is_refused(self, augments):
        with pytest.raises(UserError, match="must be the last of the list, after the crops"):
            check_mixing(augments)

    def test_at_the_end_is_right(self):
        check_mixing([CropFlip(), Rotate(15), Mixup()])
        check_mixing([CutMix()])
        check_mixing([Views([[CropFlip()], []])])
        check_mixing([])

    def test_what_came_before_is_mixed(self):
        batch = batch_of(4)
        sampling = Sampling(batch["index"], 0, 0)
        crop = apply([CropFlip()], dict(batch), sampling[0:4])["image"] / 255
        after = apply([CropFlip(), Mixup()], dict(batch), sampling[0:4])
        share, other = after["mixed_weights"][0, 0], after["mixed_labels"][:, 1] - 100
        torch.testing.assert_close(after["image"], share * crop + (1 - share) * crop[other])
