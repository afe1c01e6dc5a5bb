import numpy as np
import pytest
import torch
from kd_cls import data
from kd_cls.data import DeviceLoader, file_options
from kd_cls.data.augment import Flip, Rotate
from kd_core.data.folder_loader import FolderLoader
from kd_core.data.image_files import read_image
from kd_core.errors import UserError
from PIL import Image
from torchvision.transforms import v2

CLASSES = ("cat", "dog", "owl")


def write_image(path, side=10, mode="RGB", seed=0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 2, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def write_folders(root, classes=CLASSES, splits=("train", "test"), count=3) -> None:
    for split in splits:
        for number, name in enumerate(classes):
            for image in range(count):
                write_image(root / split / name / f"{image}.png", seed=10 * number + image)


def same(batches, others) -> bool:
    return all(
        torch.equal(batch[name], other[name])
        for batch, other in zip(batches, others, strict=True)
        for name in batch
    )


class TestImageFolder:
    def test_small_sets_stay_on_the_device_as_squares(self, tmp_path):
        write_folders(tmp_path)
        splits = data.image_folder(str(tmp_path), image_size=8, batch_size=4)
        assert isinstance(splits.train, DeviceLoader)
        assert splits.train.images.shape == (9, 3, 8, 8)
        assert splits.classes == CLASSES
        assert splits.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        with Image.open(tmp_path / "test" / "dog" / "1.png") as image:
            expected = v2.Compose([v2.Resize(8), v2.CenterCrop(8), v2.PILToTensor()])(image)
        assert torch.equal(splits.test.images[4], expected)

    def test_large_sets_are_read_in_each_epoch(self, tmp_path, monkeypatch):
        write_folders(tmp_path, splits=("train", "val"))
        monkeypatch.setattr(file_options, "RESIDENT_BYTES", 18 * 3 * 64)
        splits = data.image_folder(str(tmp_path), image_size=8, workers=0, augment=[])
        assert isinstance(splits.train, FolderLoader)
        batches = [next(splits.train.epoch(epoch)) for epoch in (0, 0, 1)]
        first, again, later = (batch["image"][batch["index"].argsort()] for batch in batches)
        assert first.shape == (9, 3, 8, 8)
        assert first.dtype == torch.uint8
        assert torch.equal(first, again)
        assert (first != later).flatten(1).any(1).sum() > 6  # each sample gets its own crop

    def test_resident_and_read_test_images_are_equal(self, tmp_path):
        write_folders(tmp_path)
        resident, read = (
            data.image_folder(str(tmp_path), image_size=8, resize=9, workers=0, resident=flag)
            for flag in (True, False)
        )
        assert same(list(resident.test.epoch(0)), list(read.test.epoch(0)))

    def test_a_limit_is_applied_before_reading(self, tmp_path):
        write_folders(tmp_path)
        (tmp_path / "train" / "owl" / "2.png").write_bytes(b"broken")
        splits = data.image_folder(str(tmp_path), image_size=8, limit_per_class=2)
        assert splits.labels.tolist() == [0, 0, 1, 1, 2, 2]

    def test_a_missing_test_folder_is_named(self, tmp_path):
        write_folders(tmp_path, splits=("train", "tests"))
        with pytest.raises(UserError, match=r"no folder 'test'.*did you mean 'tests'.*<class>"):
            data.image_folder(str(tmp_path), image_size=8)

    @pytest.mark.parametrize("part", ["train", "test"])
    def test_the_folder_of_one_part_names_the_one_above(self, tmp_path, part, monkeypatch):
        write_folders(tmp_path / "photos", splits=(part,))
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError) as told:
            data.image_folder(f"photos/{part}/", image_size=8)
        assert str(told.value) == (
            f"photos/{part}: has the class folders of one part (cat, dog, owl); name the folder "
            "above it, photos"
        )

    def test_a_set_that_is_called_train_is_read(self, tmp_path):
        write_folders(tmp_path / "train")
        assert data.image_folder(str(tmp_path / "train"), image_size=8).classes == CLASSES

    def test_an_empty_class_folder_is_named(self, tmp_path):
        write_folders(tmp_path)
        (tmp_path / "train" / "eel").mkdir()
        (tmp_path / "train" / "eel" / "notes.txt").touch()
        with pytest.raises(UserError, match=r"train/eel: no image in this class folder.*\.png"):
            data.image_folder(str(tmp_path), image_size=8)

    def test_a_folder_without_classes_is_named(self, tmp_path):
        for split in ("train", "test"):
            write_image(tmp_path / split / "0.png")
        with pytest.raises(UserError, match=r"train: no class folders in it; expected .*/<class>"):
            data.image_folder(str(tmp_path), image_size=8)

    def test_unlike_class_folders_are_named(self, tmp_path):
        write_folders(tmp_path)
        (tmp_path / "test" / "dog").rename(tmp_path / "test" / "dogs")
        with pytest.raises(UserError, match=r"test/dogs: .*no class 'dogs'; did you mean 'dog'"):
            data.image_folder(str(tmp_path), image_size=8)
        (tmp_path / "test" / "dogs").rename(tmp_path / "elsewhere")
        with pytest.raises(UserError, match=r"test: no folder for class 'dog'"):
            data.image_folder(str(tmp_path), image_size=8)

    def test_a_class_that_a_part_lacks_can_be_allowed(self, tmp_path, capsys):
        write_folders(tmp_path)
        (tmp_path / "test" / "dog").rename(tmp_path / "elsewhere")
        for file in (tmp_path / "train" / "owl").iterdir():
            file.unlink()
        shown = []
        for allowed in ({}, {"allow_missing_classes": False}):
            with pytest.raises(UserError) as caught:
                data.image_folder(str(tmp_path), image_size=8, **allowed)
            shown.append(str(caught.value))
        assert "train/owl: no image in this class folder" in shown[0]
        assert "; add images, move the folder elsewhere, or allow" in shown[0]
        assert shown[0].endswith("it with --cfg-options data.allow_missing_classes=True")
        options = {"allow_missing_classes": True, "val_fraction": 0.3, "balanced": True}
        splits = data.image_folder(str(tmp_path), image_size=8, **options)
        told = " ".join(capsys.readouterr().err.split())
        assert "warning:" in told
        assert "test: no folder for class 'dog'" in told
        assert splits.classes == CLASSES
        assert torch.bincount(splits.labels, minlength=3).tolist() == [2, 2, 0]
        assert torch.bincount(splits.val.labels, minlength=3).tolist() == [1, 1, 0]
        assert splits.test.labels.tolist() == [0, 0, 0, 2, 2, 2]

    def test_a_set_without_any_image_is_refused_even_then(self, tmp_path):
        write_folders(tmp_path, count=0)
        for split in ("train", "test"):
            (tmp_path / split / "cat").mkdir(parents=True)
        with pytest.raises(UserError, match=r"train/cat: no image in this class folder; .*\.png"):
            data.image_folder(str(tmp_path), image_size=8, allow_missing_classes=True)

    def test_hidden_and_other_files_are_left_out_and_counted(self, tmp_path, capsys):
        write_folders(tmp_path)
        for name in ("cat/._0.png", "cat/.thumbs/0.png", "__MACOSX/0.png", "@eaDir/0.png"):
            write_image(tmp_path / "train" / name)
        write_image(tmp_path / "train" / "loose.png")
        (tmp_path / "train" / "dog" / "notes.txt").touch()
        (tmp_path / "test" / ".ipynb_checkpoints").mkdir()
        splits = data.image_folder(str(tmp_path), image_size=8)
        assert (splits.classes, len(splits.labels)) == (CLASSES, 9)
        told = " ".join(capsys.readouterr().err.split())
        assert "4 hidden (such as '@eaDir'), 1 images in no class folder ('loose.png')" in told
        assert "train: left out" in told
        assert "1 not images ('notes.txt')" in told
        assert "test: left out 1 hidden ('.ipynb_checkpoints')" in told

    def test_resident_takes_three_values(self, tmp_path):
        write_folders(tmp_path)
        with pytest.raises(UserError, match=r"resident: wanted true or false or 'auto', got 'yes'"):
            data.image_folder(str(tmp_path), image_size=8, resident="yes")


class TestDecoded:
    @pytest.mark.parametrize("resident", [True, False])
    def test_batches_are_those_without_a_store(self, tmp_path, resident):
        write_folders(tmp_path)
        options = {"image_size": 8, "resident": resident, "workers": 0, "batch_size": 4}
        store = tmp_path / "store"
        for _ in range(2):
            for seed in range(2):  # of the part held out: all share one store
                options |= {"data_seed": seed, "val_fraction": 0.3}
                plain, stored = (
                    data.image_folder(str(tmp_path), decoded=folder, **options)
                    for folder in (None, str(store))
                )
                for part in ("train", "val", "test"):
                    loaders = getattr(plain, part), getattr(stored, part)
                    assert same(*(list(loader.epoch(1)) for loader in loaders))
        assert len(list(store.iterdir())) == 1

    def test_later_runs_decode_nothing(self, tmp_path):
        write_folders(tmp_path, splits=("train", "val"))
        options = {"image_size": 8, "resize": 9, "workers": 0, "decoded": str(tmp_path / "store")}
        first, later = (data.imagenet(str(tmp_path), decoded_side=9, **options) for _ in range(2))
        batches = [list(part.epoch(0)) for part in (first.train, first.test)]
        assert batches[0][0]["image"].shape == (9, 3, 8, 8)
        for file in tmp_path.glob("*/*/*.png"):
            file.write_bytes(b"broken")
        assert same(later.train.epoch(0), batches[0])
        assert same(later.test.epoch(0), batches[1])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"decoded_side": 20}, r"decoded_side is 20 pixels.*give their folder as `decoded`"),
            ({"decoded_side": 8, "resize": 9, "decoded": "s"}, r"resized to 9; .*and 9 pixels or"),
        ],
    )
    def test_a_side_of_no_use_is_refused(self, tmp_path, options, message):
        write_folders(tmp_path)
        with pytest.raises(UserError, match=message):
            data.image_folder(str(tmp_path), image_size=8, **options)


class TestFolderLoader:
    def test_batches_depend_on_neither_workers_nor_start_nor_rank(self, tmp_path):
        write_folders(tmp_path)

        def train(workers):
            options = {"batch_size": 4, "workers": workers, "val_fraction": 0.3}
            return data.imagenet(str(tmp_path), image_size=8, resize=9, **options).train

        write_folders(tmp_path, splits=("val",))
        alone, helped = train(0), train(2)
        expected = list(alone.epoch(3))
        next(helped.epoch(0))  # an epoch left early must not leak into the next
        assert same(helped.epoch(3), expected)
        assert same(helped.epoch(3, start=1), expected[1:])
        ranks = zip(*(alone.shard(rank, 2).epoch(3) for rank in range(2)), strict=True)
        joined = [{name: torch.cat([part[name] for part in r]) for name in r[0]} for r in ranks]
        assert same(joined, expected)

    def test_a_damaged_image_is_one_line_from_a_worker_too(self, tmp_path):
        write_folders(tmp_path, splits=("train", "val"))
        damaged = tmp_path / "val" / "dog" / "1.png"
        damaged.write_bytes(damaged.read_bytes()[:200])
        splits = data.imagenet(str(tmp_path), image_size=8, workers=1)
        with pytest.raises(UserError) as error:
            list(splits.test.epoch(0))
        assert str(error.value).startswith(f"{damaged}: cannot be decoded as an image (")
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("resident", [True, False])
    def test_one_run_names_all_damaged_images_of_a_part(self, tmp_path, resident):
        write_folders(tmp_path)
        damaged = [tmp_path / "train" / name for name in ("dog/1.png", "owl/0.png", "owl/2.png")]
        for file in damaged:
            file.write_bytes(b"broken")

        def read():
            splits = data.image_folder(str(tmp_path), image_size=8, workers=0, resident=resident)
            list(splits.train.epoch(0))

        with pytest.raises(UserError) as error:
            read()
        told = str(error.value)
        assert all(str(file) in told for file in damaged)
        assert "; of 9 images 2 more cannot be read: " in told

    def test_the_search_for_more_damaged_images_ends_in_time(self, tmp_path, monkeypatch):
        monkeypatch.setattr("kd_core.data.samples.image_samples._SECONDS", 0)
        write_folders(tmp_path)
        for name in ("dog/1.png", "owl/0.png"):
            (tmp_path / "train" / name).write_bytes(b"broken")
        with pytest.raises(UserError, match=r"1\.png: .* leave it out$"):
            data.image_folder(str(tmp_path), image_size=8)

    def test_a_transform_of_another_size_is_refused(self, tmp_path):
        write_folders(tmp_path, splits=("train", "val"))
        splits = data.imagenet(
            str(tmp_path), image_size=8, workers=0, transform=v2.Resize(5), batch_size=2
        )
        with pytest.raises(UserError, match=r"\.png: the transform gave torch.uint8 \(3, 5, 6\)"):
            next(splits.train.epoch(0))

    def test_loading_leaves_the_global_generator_alone(self, tmp_path):
        write_folders(tmp_path, splits=("train", "val"))
        splits = data.imagenet(str(tmp_path), image_size=8, workers=0)
        state = torch.get_rng_state()
        list(splits.train.epoch(0))
        assert torch.equal(torch.get_rng_state(), state)


class TestTinyImageNet:
    def write(self, root, annotations: str, count=2) -> None:
        for wnid in ("n01", "n02"):
            write_image(root / "train" / wnid / "images" / f"{wnid}_0.JPEG", side=8)
        for number in range(count):
            write_image(root / "val" / "images" / f"val_{number}.JPEG", side=8, seed=number)
        (root / "val" / "val_annotations.txt").write_text(annotations)

    def test_official_and_rearranged_layouts_agree(self, tmp_path):
        self.write(tmp_path, "val_1.JPEG\tn01\t0\t0\t8\t8\nval_0.JPEG\tn02\t0\t0\t8\t8\n")
        official = data.tiny_imagenet(str(tmp_path), image_size=8)
        for number, wnid in enumerate(("n02", "n01")):
            (tmp_path / "val" / wnid).mkdir()
            (tmp_path / "val" / "images" / f"val_{number}.JPEG").rename(
                tmp_path / "val" / wnid / f"val_{number}.JPEG"
            )
        (tmp_path / "val" / "images").rmdir()
        rearranged = data.tiny_imagenet(str(tmp_path), image_size=8)
        assert same(list(official.test.epoch(0)), list(rearranged.test.epoch(0)))
        assert official.test.labels.tolist() == [0, 1]
        assert official.classes == ("n01", "n02")
        assert [type(step) for step in official.train.augment] == [Rotate, Flip]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("val_1.JPEG\tn03\t0", r"val_annotations.txt:2: 'n03' is not a class"),
            ("val_1.JPEG n01", r"val_annotations.txt:2: '' is not a class.*tabs"),
            ("val_9.JPEG\tn01\t0", r"val_annotations.txt:2: .*has no image 'val_9.JPEG'"),
        ],
    )
    def test_a_wrong_annotation_is_named_by_its_line(self, tmp_path, line, message):
        self.write(tmp_path, f"val_0.JPEG\tn01\t0\n{line}\n")
        with pytest.raises(UserError, match=message):
            data.tiny_imagenet(str(tmp_path), image_size=8)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("RGBA", "png"), ("P", "png"), ("1", "png"), ("CMYK", "jpg"), ("LA", "png")],
)
def test_images_of_every_mode_become_rgb(tmp_path, mode, suffix):
    file = tmp_path / f"image.{suffix}"
    write_image(file, mode=mode)
    image = read_image(str(file))
    assert image.mode == "RGB"
    assert np.asarray(image).std() > 10


@pytest.mark.filterwarnings("error")
def test_a_palette_with_transparency_becomes_rgb_without_a_warning(tmp_path):
    file = tmp_path / "image.png"
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    palette.save(file, transparency=bytes([0, 128]))
    assert read_image(str(file)).getpixel((0, 0)) == (200, 100, 50)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone.png: cannot be decoded .*No such file"):
        read_image(str(tmp_path / "gone.png"))
