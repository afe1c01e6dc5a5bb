import os

import numpy as np
import pytest
import torch
from kd_cls import data
from kd_cls.data import DeviceLoader, file_options
from kd_core.data.folder_loader import FolderLoader
from kd_core.data.split_loader import data_fingerprint
from kd_core.errors import UserError
from PIL import Image


def write_image(path, seed, side=10, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 2, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def write_photos(root, count=12):
    """Images of several formats in folders of several depths."""
    for number in range(count):
        folder = ("", "a", "a/deep/er", "b")[number % 4]
        ending = ("png", "jpg", "bmp", "webp")[number % 4]
        write_image(root / folder / f"{number}.{ending}", number)


def write_labelled(root, classes=("cat", "dog"), count=3):
    for part in ("train", "test"):
        for place, name in enumerate(classes):
            for number in range(count):
                seed = 1000 + 100 * (part == "test") + 10 * place + number
                write_image(root / part / name / f"{number}.png", seed)


@pytest.fixture
def photos(tmp_path):
    write_photos(tmp_path / "photos")
    return tmp_path / "photos"


def made(root, **options):
    return data.unlabelled(str(root), **{"image_size": 8, "batch_size": 4, **options})


def rows(loader):
    return torch.cat([batch["image"] for batch in loader.epoch(0)]).flatten(1).tolist()


@pytest.mark.parametrize("resident", [True, False])
def test_nested_images_of_any_format_give_batches_without_labels(photos, resident, capsys):
    splits = made(photos, resident=resident, workers=0)
    assert isinstance(splits.train, DeviceLoader if resident else FolderLoader)
    batch = next(splits.train.epoch(0))
    assert set(batch) - {"crop_id"} == {"image", "index"}
    assert batch["image"].shape == (4, 3, 8, 8)
    assert (splits.num_samples, len(splits.test.labels)) == (9, 3)
    assert (splits.classes, splits.num_classes, len(splits.labels)) == ((), 0, 0)
    told = capsys.readouterr().err
    assert "images of 4 folders, whose names are not read" in told
    assert "9 images to train on, 3 held out" in told


def test_held_out_images_are_never_trained_on_and_differ_with_the_data_seed(photos):
    def parts(seed):
        splits = made(photos, held_out=0.25, data_seed=seed, augment=[])
        return rows(splits.train), rows(splits.test)

    train, held = parts(0)
    assert len(train) == 9
    assert len(held) == 3
    assert not [row for row in held if row in train]
    assert parts(0)[1] == held
    assert any(sorted(parts(seed)[1]) != sorted(held) for seed in (1, 2, 3))


def test_a_limit_draws_the_same_images_for_every_seed_from_all_folders(photos):
    def used(seed):
        splits = made(photos, limit=8, data_seed=seed, augment=[])
        return sorted(rows(splits.train) + rows(splits.test))

    assert len(used(0)) == 8
    assert used(0) == used(1)


def test_what_is_left_out_is_told_in_one_line(photos, capsys):
    (photos / "notes.txt").write_text("not an image")
    write_image(photos / ".hidden.png", 77)
    os.symlink(photos / "0.png", photos / "again.png")
    os.link(photos / "a" / "1.jpg", photos / "b" / "1.jpg")
    splits = made(photos)
    assert splits.num_samples + len(splits.test.labels) == 12
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    for text in ("1 hidden", "1 not images", "2 further names of images that are there"):
        assert text in line


def test_images_are_upright_as_their_exif_says(photos):
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    for number in range(12):
        for path in photos.rglob(f"{number}.*"):
            path.unlink()
    for number in range(5):
        Image.fromarray(pixels).save(photos / f"{number}.png", exif=exif)
    image = next(made(photos).test.epoch(0))["image"]
    assert image[:, :, :4].max() == 0
    assert image[:, :, 4:].min() == 255


@pytest.mark.parametrize("resident", [True, False])
def test_a_broken_image_is_refused_by_name_or_left_out(photos, resident, capsys):
    (photos / "b" / "7.webp").write_bytes((photos / "b" / "7.webp").read_bytes()[:40])
    (photos / "empty.jpg").touch()
    options = {"resident": resident, "workers": 0, "held_out": 0.01}
    with pytest.raises(UserError, match=r"(7\.webp|empty\.jpg): cannot be decoded"):
        [list(loader.epoch(0)) for loader in made(photos, **options).loaders]
    capsys.readouterr()
    splits = made(photos, skip_broken=True, **options)
    assert sum(len(list(loader.epoch(0))) for loader in splits.loaders) == 3
    assert splits.num_samples + len(splits.test.labels) == 11
    assert "left out 2 broken images" in capsys.readouterr().err


def test_folders_without_enough_images_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"photo.*there is no folder"):
        made(tmp_path / "photo")
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match="no image in this folder"):
        made(tmp_path / "photos")
    write_image(tmp_path / "photos" / "one.png", 0)
    with pytest.raises(UserError, match="1 images are too few"):
        made(tmp_path / "photos")
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    (tmp_path / "photos" / "one.png").unlink()
    with pytest.raises(UserError, match="none of its 1 images can be decoded"):
        made(tmp_path / "photos", skip_broken=True)


def test_the_parts_of_a_labelled_set_are_said_to_be_all_trained_on(tmp_path, capsys):
    write_labelled(tmp_path)
    made(tmp_path)
    told = capsys.readouterr().err
    assert f"train and test are all trained on: data.root={tmp_path / 'train'} takes" in told


@pytest.mark.parametrize("header", ["", "path\n", "name;path;label\n"])
def test_a_list_of_images_is_read_with_or_without_a_line_of_names(photos, header):
    paths = [str(path.relative_to(photos)) for path in sorted(photos.rglob("*.*"))]
    line = "x;{};y" if ";" in header else "{}"
    file = photos / "list.csv"
    file.write_text(header + "\n".join(line.format(path) for path in paths))
    splits = data.unlabelled(csv=str(file), image_size=8)
    assert splits.num_samples + len(splits.test.labels) == 12


def test_no_folder_is_not_the_current_one(photos, monkeypatch):
    monkeypatch.chdir(photos)
    with pytest.raises(UserError, match="no images: set root"):
        data.unlabelled(root="", image_size=8)


def test_a_list_that_is_in_doubt_or_lacks_images_is_refused(photos):
    file = photos / "list.txt"
    file.write_text("0.png\n4.png\nmissing.png\n")
    with pytest.raises(UserError, match=r"list.txt:3: 1 of 3 images are missing: 'missing.png'"):
        data.unlabelled(csv=str(file), image_size=8)
    file.write_text("where,what\n0.png,cat\n")
    with pytest.raises(UserError, match="column of paths, got 'where,what'"):
        data.unlabelled(csv=str(file), image_size=8)
    with pytest.raises(UserError, match="no images: set root"):
        data.unlabelled(image_size=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 0.1}, "val_fraction: needs labels.*data.held_out"),
        ({"random_labels": True}, "random_labels: needs labels"),
        ({"balanced": True}, "balanced: needs labels"),
        ({"shots": [1]}, "shots: is for labelled images; set evaluate_on"),
        ({"limit_per_class": 3}, "limit_per_class: is for labelled images"),
        ({"allow_missing_classes": True}, "allow_missing_classes: is for labelled images"),
        ({"path_column": "file"}, "path_column: is for a list"),
        ({"outside_root": True}, "outside_root: is for a list"),
        ({"classes": ["cat"]}, "classes has the class 'cat' alone"),
        ({"classes": 1}, "classes"),
        ({"classes": ["cat", "dog", "cat"]}, "classes: 'cat' is repeated"),
        ({"limit": 4}, "4 images are too few.* 5 at least"),
    ],
)
def test_options_that_need_labels_or_have_no_effect_are_refused(photos, options, message):
    with pytest.raises(UserError, match=message):
        made(photos, **options)


def test_labelled_images_are_shown_as_in_evaluation_and_are_part_of_the_fingerprint(photos):
    root = photos.parent / "labelled"
    write_labelled(root)
    splits = made(photos, evaluate_on=str(root), shots=[1, 2], workers=0, resident=False)
    known = next(splits.known.epoch(0))
    assert known["label"].tolist() == [0, 0, 0, 1]
    assert splits.known_classes == ("cat", "dog")
    assert not splits.known.augment
    assert torch.equal(known["image"], next(splits.known.epoch(1))["image"])
    assert splits.loaders == [splits.train, splits.test, splits.known, splits.queries]
    few = made(photos, evaluate_on=str(root), limit_per_class=1)
    assert few.known.labels.tolist() == [0, 1]
    assert len(few.queries.labels) == 6
    assert data_fingerprint(few) != data_fingerprint(splits)


@pytest.mark.parametrize(
    ("shots", "message"),
    [([1, 2, 1], "shots: 1 is repeated"), ([2, 4], "shots: 4, but no class .* more than 3")],
)
def test_shots_that_say_nothing_new_are_refused(photos, shots, message):
    write_labelled(root := photos.parent / "labelled")
    with pytest.raises(UserError, match=message):
        made(photos, evaluate_on=str(root), shots=shots)


def test_images_that_are_also_evaluated_on_are_told_by_link_or_content(photos, capsys):
    root = photos.parent / "labelled"
    write_labelled(root)
    made(photos, evaluate_on=str(root))
    assert "evaluate_on" not in capsys.readouterr().err
    os.symlink(root / "test" / "dog" / "1.png", photos / "link.png")
    (photos / "copy.png").write_bytes((root / "train" / "cat" / "0.png").read_bytes())
    made(photos, evaluate_on=str(root))
    told = capsys.readouterr().err
    assert "1 of its 6 training images" in told
    assert "1 of its 6 test images" in told
    assert "that it has seen" in told


def test_labelled_images_of_one_class_are_refused(photos):
    root = photos.parent / "labelled"
    write_labelled(root, classes=("cat",))
    with pytest.raises(UserError, match=r"evaluate_on: .* has the class 'cat' alone"):
        made(photos, evaluate_on=str(root))
    with pytest.raises(UserError, match=r"kd_cls\.data\.unlabelled"):
        data.image_folder(str(root), image_size=8)


@pytest.mark.parametrize("part", ["train", "test"])
def test_labelled_images_of_one_class_in_a_part_are_refused_if_classes_may_miss(photos, part):
    write_labelled(root := photos.parent / "labelled")
    for file in (root / part / "dog").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=rf"evaluate_on: .*{part} has the class 'cat' alone"):
        made(photos, evaluate_on=str(root), allow_missing_classes=True)


def test_decoded_images_are_kept_for_all_parts(photos, tmp_path):
    root = photos.parent / "labelled"
    write_labelled(root)
    splits = made(
        photos, evaluate_on=str(root), decoded=str(tmp_path / "kept"), resident=False, workers=0
    )
    assert rows(splits.queries) == rows(made(photos, evaluate_on=str(root)).queries)


def test_large_sets_are_cropped_at_random_in_each_epoch(photos, monkeypatch):
    monkeypatch.setattr(file_options, "RESIDENT_BYTES", 1)
    splits = made(photos, workers=0, augment=[], batch_size=10)
    first, again, later = (next(splits.train.epoch(epoch)) for epoch in (0, 0, 1))
    assert torch.equal(first["image"], again["image"])
    by_index = [batch["image"][batch["index"].argsort()] for batch in (first, later)]
    assert (by_index[0] != by_index[1]).flatten(1).any(1).sum() > 6
