"""Epochs over WebDataset shards: order, ranks, workers, resume, broken samples."""

import runpy
from pathlib import Path

import pytest
import torch
from kd_cls.data import image_folder, webdataset
from kd_cls.data.shards import samples as samples_module
from kd_cls.data.shards.loader import _tasks
from kd_cls.data.shards.order import ShardOrder
from kd_cls.data.shards.writing import write_shards
from kd_cls.shards import main
from kd_core.data.split_loader import data_fingerprint
from kd_core.errors import UserError
from PIL import Image
from torchvision.transforms import v2

pytest.importorskip("webdataset")
FILES = runpy.run_path(str(Path(__file__).with_name("shard_files.py")))
SIZE, jpeg, samples, write = (FILES[name] for name in ("SIZE", "jpeg", "samples", "write"))
COUNTS = (7, 8, 9, 10, 11)  # samples in each shard


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for number, count in enumerate(COUNTS):
        write(folder / f"train-{number}.tar", samples(range(100 * number, 100 * number + count)))
    write(folder / "test-0.tar", samples(range(900, 910)))
    return folder


def made(folder, **options):
    given = {"train": f"{folder}/train-*.tar", "test": f"{folder}/test-0.tar"}
    given |= {"image_size": SIZE, "batch_size": 8, "workers": 0, "streams": 4}
    return webdataset(**given | {"index": str(folder / "index")} | options)


def epoch(loader, number=1, start=0):
    return list(loader.epoch(number, start))


def same(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert all(torch.equal(left[name], right[name]) for name in ("image", "index", "label"))


@pytest.fixture
def opened(monkeypatch):
    """Note which shards are opened to read images."""
    noted, call = [], samples_module.open_shard

    def note(address, seconds):
        noted.append(Path(address).name)
        return call(address, seconds)

    monkeypatch.setattr(samples_module, "open_shard", note)
    return noted


def test_every_sample_is_in_an_epoch_once_with_its_label(shards):
    loader = made(shards).train
    batches = epoch(loader)
    index = torch.cat([batch["index"] for batch in batches])
    assert sorted(index.tolist()) == list(range(sum(COUNTS)))
    numbers = [100 * n + k for n, count in enumerate(COUNTS) for k in range(count)]
    assert [b % 3 for b in numbers] == loader.labels.tolist()
    assert torch.equal(loader.labels[index], torch.cat([batch["label"] for batch in batches]))


def test_batches_do_not_depend_on_workers_or_the_start(shards):
    whole = epoch(made(shards).train)
    same(epoch(made(shards, workers=2).train), whole)
    same(epoch(made(shards).train, start=3), whole[3:])


def test_images_differ_between_epochs_and_seeds_alone(shards):
    loader = made(shards).train
    first = epoch(loader, 0)
    epoch(loader, 1)
    same(epoch(loader, 0), first)
    assert not torch.equal(first[0]["index"], epoch(loader, 1)[0]["index"])
    assert not torch.equal(first[0]["index"], epoch(made(shards, data_seed=1).train, 0)[0]["index"])


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_ranks_have_equally_many_batches_which_join_to_those_of_one_process(shards, ranks):
    loader = made(shards).train
    parts = [epoch(loader.shard(rank, ranks)) for rank in range(ranks)]
    assert {len(part) for part in parts} == {len(loader)}
    for whole, *pieces in zip(epoch(loader), *parts, strict=True):
        for name in ("image", "index"):
            assert torch.equal(whole[name], torch.cat([piece[name] for piece in pieces]))


def test_a_batch_that_gives_a_rank_no_image_is_refused(shards):
    data = made(shards, batch_size=2)
    with pytest.raises(UserError, match=r"batch_size is 2, of all 3 processes.*choose 3 or more"):
        data.train.shard(2, 3)
    assert epoch(data.train.shard(1, 2))
    assert sum(len(batch["label"]) for batch in epoch(data.test.shard(2, 3))) > 0


def test_ranks_and_workers_read_shards_of_their_own():
    order = ShardOrder(
        torch.arange(8).repeat_interleave(6), batch_size=8, streams=4, data_seed=0
    ).order(3)
    batches = [slice(8 * n, 8 * n + 8) for n in range(6)]
    tasks = list(_tasks(order, batches, 4, 3))  # as of two ranks with two workers each
    read = [{index // 6 for task in tasks[worker::4] for _, index in task} for worker in range(4)]
    assert [len(shards) for shards in read] == [2, 2, 2, 2]
    assert set.union(*read) == set(range(8))


def test_a_shard_is_opened_once_an_epoch_by_the_rank_that_reads_it(shards, opened):
    names = [f"{shards}/{name}-0.tar" for name in ("train", "test")]
    options = {"train": names, "test": f"{shards}/train-1.tar", "streams": 2, "batch_size": 2}
    for rank in range(2):
        epoch(made(shards, **options).train.shard(rank, 2))
    assert len(opened) == 3  # 7 and 10 samples: the larger shard is cut in two
    assert set(opened) == {"train-0.tar", "test-0.tar"}


def test_resume_opens_no_shard_that_was_read_to_its_end(shards, opened):
    loader = made(shards, streams=1, batch_size=4).train
    order = loader.order(0)
    epoch(loader, 0, start=4)
    rest = {int(loader.samples.table.shard[i]) for i in order[16:]}
    assert sorted(opened) == [f"train-{n}.tar" for n in sorted(rest)]
    assert len(rest) < len(COUNTS)


def test_samples_are_shuffled_within_a_shard_and_come_from_several_at_once(shards):
    loader = made(shards, streams=4).train
    batch = epoch(loader)[0]
    assert len({int(loader.samples.table.shard[i]) for i in batch["index"]}) >= 3
    alone = made(shards, streams=1).train
    first = alone.order(0)[:7]
    assert first.tolist() != sorted(first.tolist())


def test_copies_and_balance_keep_their_meaning(shards):
    index = torch.cat([batch["index"] for batch in epoch(made(shards, copies=2).train)])
    assert torch.bincount(index).tolist() == [2] * sum(COUNTS)
    labels = torch.cat([batch["label"] for batch in epoch(made(shards, balanced=True).train)])
    assert torch.bincount(labels).tolist() == [15, 15, 15]


def test_images_are_those_of_the_folder_that_shards_were_made_of(tmp_path):
    for part in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            place = tmp_path / "images" / part / name
            place.mkdir(parents=True)
            for k in range(3):
                (place / f"{k}.jpg").write_bytes(jpeg(10 * number + k))
    grey = Image.new("L", (9, 30), 77)
    grey.save(tmp_path / "images/test/dog/3.png")
    write_shards(str(tmp_path / "images"), tmp_path / "out", size=4)
    options = {"image_size": SIZE, "batch_size": 16, "workers": 0}
    files = image_folder(str(tmp_path / "images"), resident=False, **options)
    names = str(tmp_path / "out/classes.txt")
    options["test"] = str(tmp_path / "out/test-*.tar")
    ours = made(tmp_path / "out", streams=1, classes=names, **options)
    assert ours.classes == files.classes == ("cat", "dog")
    same(epoch(ours.test), epoch(files.test))
    plain = made(tmp_path / "out", transform=v2.RandomResizedCrop(SIZE), **options)
    fast, slow = (epoch(data.train)[0]["image"].short() for data in (ours, plain))
    assert (fast - slow).abs().max() <= 1
    assert fast.float().std() > 10


def test_writing_shards_overwrites_nothing_and_repeats(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part / "a").mkdir(parents=True)
        (tmp_path / part / "a/1.jpg").write_bytes(jpeg(1))
    for name in ("x", "y"):
        assert write_shards(str(tmp_path), tmp_path / name) == {"train": 1, "test": 1}
    one, other = (tmp_path / name / "train-000000.tar" for name in ("x", "y"))
    assert one.read_bytes() == other.read_bytes()
    with pytest.raises(UserError, match="is there already"):
        write_shards(str(tmp_path), tmp_path / "x")


@pytest.fixture
def broken(tmp_path):
    """Two shards, in the first of which two images are cut off."""
    files = samples(range(8))
    for place in (2, 8):
        files[place] = (files[place][0], files[place][1][:300])
    write(tmp_path / "train-0.tar", files)
    write(tmp_path / "train-1.tar", samples(range(50, 58)))
    write(tmp_path / "test-0.tar", files)
    return tmp_path


def test_a_broken_image_ends_the_run_unless_it_is_allowed(broken):
    with pytest.raises(
        UserError, match=r"train-0\.tar: sample '000[14]': cannot be decoded.*1 bro"
    ):
        epoch(made(broken).train)
    with pytest.raises(UserError, match=r"2 broken samples so far, data\.max_broken allows 1"):
        epoch(made(broken, max_broken=1).train)


def test_a_broken_image_is_told_and_another_of_its_shard_takes_its_place(broken, capsys):
    loader = made(broken, max_broken=2).train
    batches = epoch(loader)
    told = capsys.readouterr().err
    assert told.count("another takes its place") == 2
    assert "'0001'" in told
    assert "'0004'" in told
    assert [len(batch["image"]) for batch in batches] == [8, 8]
    index = torch.cat([batch["index"] for batch in batches])
    assert set(index.tolist()) == set(range(16)) - {1, 4}
    assert torch.equal(torch.cat([b["label"] for b in batches]), loader.labels[index])
    same(epoch(made(broken, max_broken=2, workers=2).train), batches)
    epoch(loader, 2)
    assert loader.broken == {1, 4}


def test_a_broken_test_image_is_left_out(broken, capsys):
    batches = epoch(made(broken, max_broken=2).test)
    index = torch.cat([batch["index"] for batch in batches])
    assert sorted(index.tolist()) == [0, 2, 3, 5, 6, 7]
    assert torch.equal(torch.cat([b["label"] for b in batches]), index % 3)
    assert capsys.readouterr().err.count("left out") == 2


def test_a_shard_without_a_sound_image_ends_the_run(tmp_path):
    files = [
        (name, b"no image" if name.endswith("jpg") else text) for name, text in samples(range(3))
    ]
    write(tmp_path / "train-0.tar", files)
    write(tmp_path / "test-0.tar", samples(range(3)))
    with pytest.raises(UserError, match="no sample of this shard can be decoded"):
        epoch(made(tmp_path, max_broken=9, batch_size=3).train)


def test_a_shard_that_is_replaced_while_it_is_used_is_refused(tmp_path):
    write(tmp_path / "train-0.tar", samples(range(4)))
    write(tmp_path / "test-0.tar", samples(range(3)))
    data = made(tmp_path, batch_size=2)
    before = data_fingerprint(data)
    write(tmp_path / "train-0.tar", samples(range(20, 24)))
    with pytest.raises(UserError, match=r"is not what was indexed.*move .*\.pth"):
        epoch(data.train)
    assert data_fingerprint(made(tmp_path, batch_size=2)) != before


@pytest.mark.parametrize("name", ["a\nb", " a", "a\u2028b"])
def test_a_class_that_cannot_be_a_line_is_refused(tmp_path, name):
    for part in ("train", "test"):
        for each in (name, "dog"):
            (tmp_path / "images" / part / each).mkdir(parents=True)
            (tmp_path / "images" / part / each / "1.jpg").write_bytes(jpeg(1))
    with pytest.raises(UserError, match=r"class folder .*classes\.txt has a name a line"):
        write_shards(str(tmp_path / "images"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_classes_that_are_there_are_not_overwritten(tmp_path):
    (tmp_path / "classes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"classes\.txt: is there already"):
        write_shards(str(tmp_path / "images"), tmp_path)


def test_a_seed_below_0_is_refused(tmp_path, capsys):
    assert main([str(tmp_path), "out", "--seed", "-1"]) == 2
    assert "--seed is -1; wanted 0 or more" in capsys.readouterr().err
