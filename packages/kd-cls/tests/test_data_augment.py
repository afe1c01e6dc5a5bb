import pytest
import torch
from kd_cls.data.augment import (
    CropFlip,
    Flip,
    PerImage,
    QuarterTurns,
    Resize,
    Rotate,
    Views,
    apply,
)
from kd_core.data.sampling import Sampling
from kd_core.errors import UserError
from torchvision.transforms import v2


def batch_of(count: int, side: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    image = torch.randint(1, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return {"image": image, "index": torch.arange(count)}


def draws_of(count: int, epoch: int = 0) -> Sampling:
    return Sampling(torch.arange(count), 0, epoch)


def slow_crop(image: torch.Tensor, crop_id: int, padding: int, size: int) -> torch.Tensor:
    columns = image.shape[-1] + 2 * padding - size + 1
    dy, dx, flip = crop_id // 2 // columns, crop_id // 2 % columns, crop_id % 2
    padded = v2.functional.pad(image, [padding])
    crop = padded[:, dy : dy + size, dx : dx + size]
    return crop.flip(-1) if flip else crop


@pytest.mark.parametrize(("padding", "size"), [(4, None), (0, 5), (2, 7)])
def test_crop_equals_a_loop_over_images_that_reads_the_crop_id(padding, size):
    batch = batch_of(50)
    augmented = CropFlip(padding, size=size)(batch, draws_of(50))
    for image, crop_id, crop in zip(
        batch["image"], augmented["crop_id"].tolist(), augmented["image"], strict=True
    ):
        assert torch.equal(crop, slow_crop(image, crop_id, padding, size or 8))


def test_crop_id_takes_all_162_values_evenly_and_reproduces_the_crop():
    batch = batch_of(162 * 30, side=2)
    augment = CropFlip(4)
    augmented = augment(batch, draws_of(162 * 30))
    counts = torch.bincount(augmented["crop_id"], minlength=162)
    assert len(counts) == 162
    assert counts.min() > 8
    assert counts.max() < 62
    assert torch.equal(augment.crop(batch["image"], augmented["crop_id"]), augmented["image"])


def test_crop_without_flip_has_even_ids():
    assert (CropFlip(flip=False)(batch_of(40), draws_of(40))["crop_id"] % 2 == 0).all()


def test_crop_larger_than_the_padded_image_is_refused():
    with pytest.raises(UserError, match=r"cannot cut 20 pixels from 8 \+ 2 \* 4.*Resize"):
        CropFlip(4, size=20)(batch_of(1), draws_of(1))


def test_flip_mirrors_about_half_of_the_images():
    batch = batch_of(200)
    image = Flip()(batch, draws_of(200))["image"]
    mirrored = (image == batch["image"].flip(-1)).flatten(1).all(1)
    kept = (image == batch["image"]).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 70 < mirrored.sum() < 130


def test_rotation_equals_torchvision_s():
    image = batch_of(6, side=9)["image"]
    angle = torch.tensor([0.0, 90.0, 13.7, -18.3, 45.0, -90.0])
    rotated = Rotate(90).rotate(image, angle)
    expected = torch.stack(
        [v2.functional.rotate(x, a) for x, a in zip(image, angle.tolist(), strict=True)]
    )
    assert (rotated != expected).float().mean() < 0.02  # pixels that fall between two


def test_rotation_stays_within_its_degrees():
    image = torch.zeros(300, 1, 21, 21, dtype=torch.uint8)
    image[:, :, 10, 20] = 255  # a dot at the end of the horizontal radius
    rotated = Rotate(20)({"image": image}, draws_of(300))["image"]
    rows = rotated.nonzero()[:, 2]
    assert rows.min() == 7  # 10 - 10 * sin(20 degrees), rounded
    assert rows.max() == 13


def test_per_image_transform_depends_on_sample_and_epoch_only():
    batch, augment = batch_of(6), PerImage(v2.RandAugment())
    state = torch.get_rng_state()
    image = augment(batch, draws_of(6))["image"]
    assert torch.equal(torch.get_rng_state(), state)
    assert image.dtype == torch.uint8
    torch.manual_seed(99)
    part = {name: value[2:4] for name, value in batch.items()}
    assert torch.equal(augment(part, draws_of(6)[2:4])["image"], image[2:4])
    assert not torch.equal(augment(batch, draws_of(6, epoch=1))["image"], image)


def test_crop_id_is_kept_only_where_it_tells_the_whole_image():
    assert "crop_id" in apply([Resize(16), CropFlip()], batch_of(3), draws_of(3))
    for extra in (Rotate(5), PerImage(v2.RandAugment())):
        assert "crop_id" not in apply([CropFlip(), extra], batch_of(3), draws_of(3))
        assert "crop_id" not in apply([extra, CropFlip()], batch_of(3), draws_of(3))


def test_views_are_view_major_and_differ():
    batch = batch_of(5)
    views = Views([[], [CropFlip()], [CropFlip()]])(batch, draws_of(5))
    assert views["num_views"] == 3
    assert torch.equal(views["image"][:5], batch["image"])
    assert not torch.equal(views["image"][5:10], views["image"][10:])
    assert "crop_id" not in views


def test_every_view_has_the_labels_of_its_images():
    batch = {**batch_of(5), "label": torch.arange(5)}
    for views in (Views([[], [CropFlip()]]), QuarterTurns()):
        label = views(batch, draws_of(5))["label"]
        assert label.tolist() == [0, 1, 2, 3, 4] * (len(label) // 5)
        several = views({**batch, "label": torch.eye(5)}, draws_of(5))["label"]
        assert torch.equal(several.argmax(1), label)


def test_quarter_turns_rotate_each_image():
    batch = batch_of(4)
    turned = QuarterTurns()(batch, draws_of(4))
    assert turned["num_views"] == 4
    assert torch.equal(turned["image"][4 * 3 + 1], batch["image"][1].rot90(3, (1, 2)))


@pytest.mark.parametrize(
    "augment",
    [CropFlip(), Flip(), Rotate(9), Resize(5), PerImage(v2.RandAugment()), QuarterTurns()],
    ids=lambda augment: type(augment).__name__,
)
def test_an_empty_batch_passes(augment):
    image = augment(batch_of(0), draws_of(0))["image"]
    assert len(image) == 0
    assert image.dtype == torch.uint8
