"""What makes an evaluation wrong is found by the check, and refused before anything is trained."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from kd_core.errors import UserError
from kd_core.networks.task import Task

pytest.importorskip("torchreid")
from kd_reid import data, train
from kd_reid.check import main
from kd_reid.data.check import check
from kd_reid.embedder import Embedding
from kd_reid.evaluation import Evaluation
from kd_reid.synthetic.people import synthetic_people
from PIL import Image

SMALL = {"image_size": (32, 16), "batch_size": 4}
README = Path(__file__).parents[1] / "README.md"
MARKET = re.compile(r"(-1|\d+)_c(\d)s(\d)_(\d+)_00\.jpg")


class Pixels(Task):
    """Its embedding are colours in rough places."""

    def forward(self, batch):
        small = torch.nn.functional.adaptive_avg_pool2d(batch["image"].float(), (4, 2))
        return Embedding(small.flatten(1), (), ())


def scores(found):
    return Evaluation(found)(Pixels(torch.nn.Identity()))


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    few = {"num_train_ids": 3, "num_test_ids": 6, "num_cameras": 3, "images_per_camera": 2}
    return synthetic_people(tmp_path_factory.mktemp("market") / "set", image_height=32, **few)


def renamed(market, root, name):
    """Copy a set; `name` makes paths of part, identity, camera and number."""
    for image in sorted(market.rglob("*.jpg")):
        who, camera, _, number = MARKET.fullmatch(image.name).groups()
        target = root / name(image.parent.name, who, int(camera), number)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, target)
    return root


PARTS = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
VERI = {
    "bounding_box_train": "image_train",
    "query": "image_query",
    "bounding_box_test": "image_test",
}
FORMS = {
    "cameras padded": lambda part, who, c, n: f"{part}/{who}_c{c:03}s1_{n}_00.jpg",
    "cameras padded in one part": lambda part, who, c, n: (
        f"{part}/{who}_c{c if part == 'query' else f'{c:02}'}s1_{n}_00.jpg"
    ),
    "identities not padded": lambda part, who, c, n: f"{part}/{int(who)}_c{c}s1_{n}_00.jpg",
    "identities padded in one part": lambda part, who, c, n: (
        f"{part}/{'000' if part == 'query' else ''}{who}_c{c}s1_{n}_00.jpg"
    ),
    "VeRi-776": lambda part, who, c, n: f"{VERI[part]}/{who}_c{c:03}_{n}_0.jpg",
    "folders": lambda part, who, c, n: f"{PARTS[part]}/{who}/{who}_c{c}_{n}.jpg",
    "padded folders": lambda part, who, c, n: f"{PARTS[part]}/0{who}/{who}_c{c}_{n}.jpg",
}


@pytest.fixture(scope="module")
def right(market):
    return scores(data.people(str(market), **SMALL))


@pytest.mark.parametrize("form", FORMS)
def test_one_set_in_many_forms_gives_equal_numbers(form, market, right, tmp_path):
    junk = {"-1": "-1", "0000": "0000"}  # of other forms where numbers are not padded

    def name(part, who, camera, number):
        made = FORMS[form](part, who, camera, number)
        return made if who not in junk else made.replace("/0-1/", "/-1/")

    found = data.people(str(renamed(market, tmp_path, name)), **SMALL)
    assert scores(found) == right
    assert 0 < right["mAP"] < right["rank5"] < 100
    assert [len(found.identities), found.num_samples] == [3, 18]


@pytest.mark.parametrize("camera", ["{}", "c{:02}", "{}.0", "cam{:03}"])
@pytest.mark.parametrize("identity", ["{}", "{:05}", "{}.0"])
def test_a_list_of_the_same_images_gives_equal_numbers(market, right, tmp_path, camera, identity):
    lines = ["Path;Identity;Camera;Split"]
    for n, image in enumerate(sorted(market.rglob("*.jpg"))):
        who, c, *_ = MARKET.fullmatch(image.name).groups()
        how = (camera, identity) if n % 2 else ("{}", "{}")
        text = who if who in ("-1", "0000") else how[1].format(int(who))
        lines.append(f"{image};{text};{how[0].format(int(c))};{PARTS[image.parent.name]}")
    file = tmp_path / "list.csv"
    file.write_text("\n".join(lines))
    assert scores(data.people(str(file), **SMALL)) == right


def paint(root, *names):
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 32), (20 * number, 0, 0)).save(root / name)
    return root


SOUND = [
    *(f"train/{who}/c{n}.png" for who in "ab" for n in "12"),
    *(f"query/{who}/c1.png" for who in "de"),
    *(f"gallery/{who}/c2.png" for who in "de"),
]


def outcomes(root, capsys, *options, **how):
    """Return the check's status and output, and training's error or None."""
    status = main([str(root), *options])
    shown = " ".join(capsys.readouterr().out.split())
    try:
        data.people(str(root), **SMALL, **how)
    except UserError as error:
        return status, shown, str(error)
    return status, shown, None


def test_a_sound_set_passes(tmp_path, capsys):
    status, shown, error = outcomes(paint(tmp_path, *SOUND), capsys)
    assert (status, error) == (0, None)
    assert "read as parts: train, query, gallery" in shown


@pytest.mark.parametrize(
    ("source", "copy", "text"),
    [
        ("query/d/c1.png", "gallery/d/c9.png", "a query and in the gallery: it is found by itself"),
        ("query/d/c1.png", "train/a/c9.png", "one is to train on, the other to test with"),
        ("train/a/c1.png", "train/b/c9.png", "is 'a' here, 'b' there"),
    ],
)
def test_identical_files_are_refused(source, copy, text, tmp_path, capsys):
    root = paint(tmp_path, *SOUND)
    shutil.copy(root / source, root / copy)
    status, shown, error = outcomes(root, capsys)
    assert status == 1
    assert "identical files in two places │ 1" in shown
    assert f"is the same file as {root}" in error
    if "train" not in copy:
        assert text in error
    assert "data.allow_shared=True" in error
    assert "\n" not in error
    assert outcomes(root, capsys, "--allow-shared", allow_shared=True)[::2] == (0, None)


def test_queries_in_the_gallery_by_their_own_camera_do_no_harm(tmp_path, capsys):
    root, camera = paint(tmp_path, *SOUND), r"c(\d)"
    shutil.copy(root / "query/d/c1.png", root / "gallery/d/c1.png")
    assert outcomes(root, capsys, "--camera", camera, camera=camera)[::2] == (0, None)
    status, _, error = outcomes(
        root, capsys, "--camera", camera, "--same-camera", camera=camera, same_camera=True
    )
    assert status == 1
    assert "it is found by itself" in error


def test_people_both_to_train_on_and_to_test_with_are_refused(tmp_path, capsys):
    root = paint(tmp_path, *SOUND, "train/d/c7.png", "gallery/a/c8.png")
    status, shown, error = outcomes(root, capsys)
    assert status == 1
    assert "identities both to train on and to search for: a, d" in shown
    assert "2 identities are both to train on and to test with, such as 'a'" in error
    assert outcomes(root, capsys, "--allow-shared", allow_shared=True)[::2] == (0, None)


def test_one_camera_is_told_with_the_option_that_helps(tmp_path, capsys):
    root = paint(tmp_path, *(name.replace("c2", "c1x") for name in SOUND))
    status, shown, error = outcomes(root, capsys, "--camera", r"c(\d)", camera=r"c(\d)")
    assert status == 1
    for text in (shown, error):
        assert "no identity with images by two cameras, all are by camera '1'" in text
        assert "data.same_camera=True" in text
    more = {"camera": r"c(\d)", "same_camera": True}
    assert outcomes(root, capsys, "--camera", r"c(\d)", "--same-camera", **more)[::2] == (0, None)


def test_one_camera_in_a_set_without_parts_likewise(tmp_path):
    root, camera = paint(tmp_path, *(f"{who}/c1_{n}.png" for who in "abcd" for n in "12")), r"c(\d)"
    with pytest.raises(UserError, match=r"data\.same_camera=True"):
        data.people(str(root), camera=camera, **SMALL)
    found = data.people(str(root), camera=camera, same_camera=True, **SMALL)
    assert len(found.query.records) == 2
    parts = {"train": ["a/c1.png", "b/c1.png"], "test": ["d/c1.png", "d/c1b.png"]}
    names = [f"{part}/{name}" for part, names in parts.items() for name in names]
    root = paint(tmp_path / "parts", *names)
    with pytest.raises(UserError, match=r"data\.same_camera=True"):
        data.people(str(root), camera=camera, **SMALL)


def test_nobody_in_the_gallery_is_told(tmp_path, capsys):
    root = paint(tmp_path, *(name.replace("gallery/", "gallery/x") for name in SOUND))
    status, shown, error = outcomes(root, capsys)
    assert status == 1
    for text in (shown, error):
        assert "none of the 2 identities to search for is in the gallery" in text


def test_junk_and_distractors_are_counted(market):
    report = check(market)
    assert report["left_out"] == {"junk": 6, "distractors": 0}
    assert report["distractors"] == 12
    paint(Path(market).parent, "more/train/0000/1.png", "more/train/-1/1.png", "more/train/a/2.png")
    paint(Path(market).parent, "more/test/0000/3.png", "more/test/b/4.png", "more/test/b/5.png")
    report = check(Path(market).parent / "more")
    assert report["left_out"] == {"junk": 1, "distractors": 1}
    assert (report["identities"], report["distractors"]) == (2, 1)


def test_options_of_the_check_are_those_of_training(tmp_path, capsys):
    root = paint(tmp_path, *(name.replace("train/", "mine/") for name in SOUND))
    parts = {"train": "mine", "query": "query", "gallery": "gallery"}
    given = [f"{part}={name}" for part, name in parts.items()]
    assert outcomes(root, capsys, "--parts", *given, parts=parts)[::2] == (0, None)
    file = tmp_path / "list.csv"
    file.write_text("path,id,pid\n" + "".join(f"query/{w}/c1.png,{w},1\n" for w in "d"))
    assert main([str(file)]) == 2
    assert "name one: --cfg-options data.columns.identity=NAME, in reid_check --columns " in (
        capsys.readouterr().err
    )
    assert main([str(file), "--columns", "identity=pid"]) == 1
    assert main([str(file), "--columns", "identity"]) == 2
    assert "wanted KEY=NAME, got 'identity'" in capsys.readouterr().err


def test_commands_of_the_readme_run(tmp_path, monkeypatch, capsys):
    text = README.read_text(encoding="utf-8")
    commands = re.findall(r"^uv run tools/reid_check\.py (.*)$", text, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    names = {"train/": "parts/mine/", "query/": "parts/probe/", "gallery/": "parts/others/"}
    parts = [names[name[: name.index("/") + 1]] + name.partition("/")[2] for name in SOUND]
    people = [f"{who}/cam{camera}.png" for who in "ab" for camera in "12"]
    paint(tmp_path / "data", *parts)
    paint(tmp_path / "data/people", *people)
    rows = "".join(f"people/{name},1,{name[0]}\n" for name in people)
    (tmp_path / "data/list.csv").write_text(f"path,id,person\n{rows}")
    assert len(commands) == 4
    for command in commands:
        assert main(shlex.split(command)) == 0, command


def test_training_refuses_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(paint(tmp_path, *(f"set/{name.replace('c2', 'c1x')}" for name in SOUND)))
    Path("run.py").write_text(
        "data = dict(type='kd_reid.data.people', source='set', camera=r'c(\\d)', batch_size=4,\n"
        "            image_size=(32, 16))\n"
        "student = dict(network=dict(type='kd_reid.models.build_model', name='osnet_tiny'))\n"
        "optimizer = dict(type='torch.optim.Adam', lr=0.001)\n"
        "schedule = dict(type='kd_core.training.schedule.cosine')\n"
        "trainer = dict(epochs=1, loggers=[])\n"
    )
    assert train.main(["run.py", "--work-dir", "out"]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "--cfg-options data.same_camera=True" in shown
    assert not list(Path("out").rglob("*.pth"))
    assert (
        train.main(["run.py", "--cfg-options", "data.same_camera=True", "--work-dir", "out"]) == 0
    )


def test_matches_by_the_same_camera_count_in_named_sets_too(market):
    found = data.market1501(str(market), same_camera=True, **SMALL)
    assert {record.camera for record in found.query.records} == {None}
