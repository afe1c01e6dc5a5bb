"""Which shards are read, what is in them, and what is refused in one line."""

import gzip
import http.server
import io
import json
import os
import pickle
import runpy
import shutil
import tarfile
import threading
from functools import partial
from pathlib import Path

import pytest
from kd_cls.data import webdataset
from kd_cls.data.shards import addresses
from kd_cls.data.shards import index as index_module
from kd_cls.shards import main
from kd_core.config.trusted import trusting
from kd_core.errors import UserError

pytest.importorskip("webdataset")
FILES = runpy.run_path(str(Path(__file__).with_name("shard_files.py")))
SIZE, jpeg, samples, write = (FILES[name] for name in ("SIZE", "jpeg", "samples", "write"))
COMMANDS = "webdataset.gopen.gopen_pipe"


class Trap:
    def __reduce__(self):
        return open, ("canary", "w")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, first in (("train-0", 0), ("train-1", 3), ("test", 90)):
        write(tmp_path / f"{name}.tar", samples(range(first, first + 3)))
    return tmp_path


def made(train="train-{0..1}.tar", test="test.tar", **options):
    options = {"image_size": SIZE, "batch_size": 2, "workers": 0, "index": "index"} | options
    return webdataset(train, test, **options)


def images(data):
    return sum(len(batch["image"]) for batch in data.train.epoch(0))


@pytest.mark.parametrize(
    "train",
    [
        "train-{0..1}.tar",
        "train-*.tar",
        "train-0.tar::train-1.tar",
        ["train-0.tar", "train-1.tar"],
        "file:{here}/train-{{0..1}}.tar",
        "list.txt",
        "sub",
    ],
)
def test_shards_are_named_in_many_ways(folder, train):
    (folder / "list.txt").write_text("# mine\ntrain-0.tar\n\ntrain-{1..1}.tar\n")
    (folder / "sub").mkdir()
    for name in ("train-0.tar", "train-1.tar"):
        shutil.copy(name, folder / "sub" / name)
    train = train.format(here=folder) if isinstance(train, str) and "here" in train else train
    assert images(made(train)) == 6


@pytest.mark.parametrize("ending", [".tar.gz", ".tgz", ".tar.xz", ".tar.bz2"])
def test_compressed_shards_are_unpacked(folder, ending):
    kind = {"gz": "gz", "tgz": "gz", "xz": "xz", "bz2": "bz2"}[ending.rpartition(".")[2]]
    write(folder / f"packed{ending}", samples(range(4)), f"w:{kind}")
    assert images(made(f"packed{ending}")) == 4
    with pytest.raises(UserError, match=r"data\.balanced takes samples from all shards"):
        made(f"packed{ending}", balanced=True)


@pytest.mark.parametrize(
    ("train", "told"),
    [
        (
            "train-{0..9}.tar",
            r"data\.train: 8 of 10 shards are missing, the first is 'train-2\.tar'",
        ),
        ("trian-0.tar", r"did you mean 'train-0\.tar'"),
        ("train-{0..1.tar", "its braces do not match"),
        ("train-{0..1000}.tar", "more than 1,000 shards"),
        ("train-7*.tar", "no file has such a name"),
        ([], "an empty list"),
        ("", "wanted the path or URL of a shard"),
        (["train-0.tar", 3], "wanted"),
        ("empty.txt", "an empty list; wanted a shard a line"),
        ("nowhere.txt", "cannot be read as a list of shards"),
        ("empty", "no shard in this folder"),
        (["train-0.tar", "./train-0.tar"], "is there twice"),
        ("${DATA}/train-0.tar", "variables are not filled in"),
        ("test.tar", r"data\.test: test\.tar is a shard of data\.train too"),
        ("s3://bucket/a.tar", "reads no s3: URLs; name a command"),
        ("htp://x.y/a.tar", "did you mean 'http'"),
        ("-", "1 of 1 shards are missing"),
        ("fifo.tar", "is not a file"),
        ("none.tar", r"not a tar archive, or damaged"),
        ("page.tar", "not a tar archive, or damaged"),
        ("cut.tar", "damaged or cut off|cut off"),
        ("short.tar", "it has no end of archive"),
        ("flipped.tar", "it has no end of archive"),
        ("cut.tar.gz", "damaged"),
        ("void.tar", r"data\.train: no sample in 1 shards"),
        ("twice.tar", r"twice\.tar: the key '0000' is there twice \(0000\.jpg\)"),
        ("apart.tar", r"the files of sample '0000' are not side by side .*--sort=name"),
        ("t-{0..99999999999999}.tar", "more than 1,000 shards"),
        ("two.tar", r"two\.tar: files follow its end of archive"),
        ("two.tar.gz", r"two\.tar\.gz: files follow its end of archive"),
        ("hole.tar", r"hole\.tar: files follow its end of archive"),
        ("zst", r"train\.tar\.zst: packed by zstd, which is not read"),
        ("zip.tar", "packed by zip, which is not read"),
    ],
)
def test_wrong_shards_are_refused_in_a_line(folder, train, told, monkeypatch):
    monkeypatch.setattr(addresses, "_MOST", 1000)
    (folder / "empty.txt").write_text("# nothing\n")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "fifo.tar")
    (folder / "none.tar").write_bytes(b"")
    (folder / "page.tar").write_text("<html>404</html>" * 200)
    whole = (folder / "train-0.tar").read_bytes()
    (folder / "cut.tar").write_bytes(whole[:2600])
    (folder / "short.tar").write_bytes(whole[: whole.rindex(b"ustar") - 257])
    flipped = bytearray(whole)
    flipped[whole.rindex(b"ustar") - 200] ^= 1
    (folder / "flipped.tar").write_bytes(flipped)
    (folder / "cut.tar.gz").write_bytes(gzip.compress(whole)[:-40])
    write(folder / "void.tar", [("readme", b"")])
    first, second = samples([0]), samples([1])
    write(folder / "twice.tar", [*first, first[0]])
    write(folder / "apart.tar", [first[0], *second, first[1]])
    (folder / "two.tar").write_bytes(whole * 2)
    (folder / "two.tar.gz").write_bytes(gzip.compress(whole) * 2)
    start = whole.index(b"ustar", 600) // 512 * 512  # of the second header
    (folder / "hole.tar").write_bytes(whole[:start] + bytes(1024) + whole[start + 1024 :])
    (folder / "zst").mkdir()
    (folder / "zst/train.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(99))
    (folder / "zip.tar").write_bytes(b"PK\x03\x04" + bytes(999))
    with pytest.raises(UserError, match=told) as caught:
        made(train)
    assert len(str(caught.value).splitlines()) == 1


def test_what_follows_the_end_of_an_archive_and_is_none_is_not_read(folder):
    for name, more in (("train-0.tar", bytes(99_999)), ("train-1.tar", b"ustar " * 1000)):
        with (folder / name).open("ab") as file:
            file.write(more)
    assert images(made()) == 6


@pytest.mark.parametrize("broken", ["0009.jpg", "0009.cls"])
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.SYMTYPE, "is a link"),
        (b"S", "is packed with holes"),
    ],
)
def test_a_link_or_holes_in_the_place_of_a_file_are_told(folder, broken, kind, told):
    odd = tarfile.TarInfo(broken)
    odd.type, odd.linkname = kind, "0003" + broken[4:]
    write(folder / "own.tar", samples([3]))
    with tarfile.open(folder / "own.tar", "a") as archive:
        for name, content in samples([4, 9]):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(*((odd,) if name == broken else (member, io.BytesIO(content))))
    with pytest.raises(UserError, match=rf"sample '0009': its .{broken[5:]} {told}.*1 broken"):
        made("own.tar")
    sound = made("own.tar", max_broken=1, num_classes=3, allow_missing_classes=True)
    assert images(sound) == 2


@pytest.mark.parametrize("command", ["pipe:touch canary; cat train-0.tar", "PIPE:touch canary"])
@pytest.mark.parametrize("how", ["config", "list of a config", "list", "rewritten"])
def test_a_shard_that_is_a_command_is_not_run(folder, monkeypatch, command, how):
    (folder / "list.txt").write_text(f"train-0.tar\n{command}\n")
    given = {"config": command, "list of a config": ["train-0.tar", command], "list": "list.txt"}
    if how == "rewritten":
        monkeypatch.setenv("GOPEN_REWRITE", "http://mine/=pipe:touch canary; cat ")
    with pytest.raises(UserError, match=r"this shard is a command.*--trust webdataset\.gopen"):
        made(given.get(how, "http://mine/train-0.tar"))
    assert not (folder / "canary").exists()


def test_a_trusted_command_is_run_and_its_failure_told(folder):
    with trusting(COMMANDS):
        assert images(made(["pipe:cat train-0.tar", "pipe:cat train-1.tar"])) == 6
        with pytest.raises(UserError, match=r"pipe:false: cannot be read .*status 1") as caught:
            made("pipe:false")
        assert caught.value.status == 2  # nothing has begun


def test_nothing_but_image_and_label_is_decoded(folder):
    bomb = pickle.dumps(Trap())
    files = [
        ("a.jpg", jpeg(1)),
        ("a.cls", b"1"),
        *((f"a.{e}", bomb) for e in ("pyd", "pth", "npy")),
    ]
    write(folder / "bad.tar", [("b.jpg", jpeg(2)), ("b.cls", b"0"), *files])
    assert images(made("bad.tar", num_classes=3, allow_missing_classes=True)) == 2
    write(folder / "worse.tar", [("b.jpg", bomb), ("b.cls", bomb), *files])
    with pytest.raises(UserError, match="its label is not a text"):
        made("worse.tar")
    with pytest.raises(UserError, match="no label"):
        made("bad.tar", label_key="pickle")
    assert not (folder / "canary").exists()


def labelled(folder, *labels, ending="cls"):
    numbered = enumerate(labels)
    files = [((f"{n}.jpg", jpeg(n)), (f"{n}.{ending}", text.encode())) for n, text in numbered]
    return str(write(folder / "own.tar", [file for pair in files for file in pair]))


def test_labels_are_numbers_names_or_fields_of_json(folder):
    assert made().classes == ("0", "1", "2")
    own = labelled(folder, "dog\n", "cat", "cat")
    data = made(own, _copy(own))
    assert data.classes == ("cat", "dog")
    assert data.train.labels.tolist() == [1, 0, 0]
    (folder / "names.txt").write_text("cat\nbird\ndog\n")
    data = made(own, _copy(own), classes="names.txt", allow_missing_classes=True)
    assert data.train.labels.tolist() == [2, 0, 0]
    texts = [json.dumps({"caption": "x", "label": label}) for label in (1, 0, 1.0)]
    own = labelled(folder, *texts, ending="json")
    assert made(own, _copy(own)).train.labels.tolist() == [1, 0, 1]
    data = made(own, _copy(own), label_key="json:label", num_classes=3, allow_missing_classes=True)
    assert data.num_classes == 3
    own = labelled(folder, *(f'{{"id": 1, "id": 2, "label": {n}}}' for n in (1, 0)), ending="json")
    assert made(own, _copy(own)).train.labels.tolist() == [1, 0]  # what else is there twice, may be
    texts = [json.dumps({"a": {"b": {"c": n}}, "a.b": 5}) for n in (1, 0)]
    own = labelled(folder, *texts, ending="json")
    assert made(own, _copy(own), label_key="json:a.b.c").train.labels.tolist() == [1, 0]
    with pytest.raises(UserError, match=r"has the fields a\.b, a\.b; name that"):
        made(own, _copy(own), label_key="json:a.x")


def test_labels_of_all_parts_are_names_or_numbers_alike(folder):
    (folder / "names.txt").write_text("1\n2\n3\n")
    (folder / "words.txt").write_text("cat\ndog\n")
    own = labelled(folder, "0", "1", "2")
    test = _copy(labelled(folder, "1", "2"))
    own = labelled(folder, "0", "1", "2")
    data = made(own, test, classes="names.txt", allow_missing_classes=True)
    assert data.test.labels.tolist() == [1, 2]  # as in training, though both are names here
    own = labelled(folder, "cat", "dog")
    for options in ({}, {"classes": "words.txt"}):
        with pytest.raises(UserError, match=r"label 'cat' is not a number, but others are"):
            made(own, test, allow_missing_classes=True, **options)


def _copy(path):
    return shutil.copy(path, path.replace("own", "other"))


@pytest.mark.parametrize(
    ("labels", "options", "told"),
    [
        (["0", "2"], {}, r"no image of class '1'.*allow_missing_classes"),
        (
            ["0", "5"],
            {"num_classes": 3},
            r"label '5' of this train sample is not one of the 3 classes",
        ),
        (["0", "-1"], {}, r"sample '1': label '-1' is not a number, but others are, such as 0"),
        (["cat", "7"], {}, "label 'cat' is not a number"),
        (["0", "99999999999"], {}, "cannot be the number of a class"),
        (["0", ""], {}, "its label is ''"),
        (["cat", "dgo"], {"classes": "names.txt"}, "label 'dgo' .*did you mean 'dog'"),
        (["0", "1"], {"classes": "names.txt", "num_classes": 3}, r"names 2; leave one of them out"),
        (["0", "1"], {"classes": "twice.txt"}, "'cat' is there twice"),
        (["0", "1"], {"classes": "nowhere.txt"}, "cannot be read"),
        (["0", "1"], {"label_key": "json"}, "needs the field of the label"),
        (["0", "1"], {"label_key": "cla"}, r"no label: it has no \.cla \(it has jpg, cls\)"),
        (["0", "1"], {"image_key": "png"}, r"no image among its files"),
        (["0", "0"], {}, "has the class '0' alone"),
        (["0,1", "1,2"], {}, r"label '0,1' is not one whole number.*data\.classes"),
        (["0.0", "1.0"], {}, r"label '0\.0' is not one whole number"),
        (["0", "1"], {"label_key": "cls:x"}, "only json has fields"),
    ],
)
def test_wrong_labels_are_refused_in_a_line(folder, labels, options, told):
    (folder / "names.txt").write_text("cat\ndog\n")
    (folder / "twice.txt").write_text("cat\ncat\n")
    own = labelled(folder, *labels)
    with pytest.raises(UserError, match=told) as caught:
        made(own, _copy(own), **options)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1]", "its .json is a list"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"x": 1}', r"has the fields x; name that of the label: data\.label_key=json:FIELD"),
        ('{"label": 1, "class": 2}', "has the fields label, class"),
        ('{"label": [0, 1]}', "wanted one class"),
        ('{"label": true}', "wanted one class"),
        ('{"label": 0, "label": 1}', r"has a field twice \(label\)"),
    ],
)
def test_wrong_json_is_a_broken_sample(folder, text, told):
    own = labelled(folder, text, '{"label": 0}', '{"label": 1}', ending="json")
    with pytest.raises(UserError, match=rf"sample '0': .*{told}.*\(1 broken samples"):
        made(own, _copy(own))
    assert len(made(own, _copy(own), max_broken=1).train.labels) == 2


def test_of_several_images_one_is_named(folder):
    files = [("0.jpg", jpeg(0)), ("0.png", jpeg(1)), ("0.cls", b"0"), *samples([1, 2])]
    write(folder / "both.tar", files)
    with pytest.raises(UserError, match="it has the images jpg, png; name one"):
        made("both.tar")
    assert images(made("both.tar", image_key="png;jpg")) == 3


def test_images_in_two_shards_or_parts_are_told(folder, capsys):
    shutil.copy("train-0.tar", "again.tar")
    made(["train-0.tar", "again.tar"])
    assert "3 samples seem to be in two shards, by key and size" in capsys.readouterr().err
    made("train-0.tar", "again.tar")
    assert "3 samples of data.test seem to be training samples too" in capsys.readouterr().err


def test_an_index_is_made_once_and_checked(folder, monkeypatch):
    made()
    with monkeypatch.context() as patch:
        patch.setattr(index_module, "open_shard", None)
        assert images(made()) == 6
    write(folder / "train-0.tar", samples(range(20, 25)))
    assert images(made()) == 8
    for file in (folder / "index").glob("*.pth"):
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"\.pth: damaged .*move it elsewhere, and it is created"):
        made()


@pytest.fixture
def server(folder):
    """Serve the folder, without a line for each request."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as web:
        thread = threading.Thread(target=web.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()


def test_shards_at_a_url_are_read_and_a_missing_or_changed_one_told(folder, server, monkeypatch):
    if not shutil.which("curl"):
        pytest.skip("the library reads http through curl")
    monkeypatch.setattr("kd_cls.data.shards.opening._TRIES", 1)
    data = made(f"{server}/train-{{0..1}}.tar", workers=2)
    assert images(data) == 6
    write(folder / "train-0.tar", samples(range(20, 23)))
    with pytest.raises(UserError, match=r"is not what was indexed"):
        images(made(f"{server}/train-{{0..1}}.tar"))
    write(folder / "train-0.tar", samples(range(3), label=lambda number: (number + 1) % 3))
    with pytest.raises(UserError, match=r"train-0\.tar: is not what was indexed, its content"):
        images(made(f"{server}/train-{{0..1}}.tar"))
    with pytest.raises(UserError, match=r"none\.tar: cannot be read .*status 22, .* missing") as no:
        made(f"{server}/none.tar")
    assert no.value.status == 2  # nothing has begun


def test_a_url_that_gives_nothing_is_not_waited_for(folder, monkeypatch):
    monkeypatch.setattr("kd_cls.data.shards.opening._TRIES", 1)
    with trusting(COMMANDS), pytest.raises(UserError, match=r"gave nothing for 0\.2 s"):
        made("pipe:sleep 60", worker_timeout=0.2)


def test_the_tool_makes_shards_that_are_read(folder, capsys):
    for part in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            (folder / "images" / part / name).mkdir(parents=True)
            (folder / "images" / part / name / "1.jpg").write_bytes(jpeg(number))
    assert main(["images", "out", "--size", "1"]) == 0
    assert "out: 2 shards of train, 2 shards of test" in capsys.readouterr().out
    assert made("out/train-*.tar", "out/test-*.tar", classes="out/classes.txt").classes[1] == "dog"
    assert main(["images", "out"]) == 2
    assert main(["images", "out", "--size", "0"]) == 2
