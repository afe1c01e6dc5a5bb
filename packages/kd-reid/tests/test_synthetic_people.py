"""Synthetic people: whole or absent, the same for a seed, in the layout of Market-1501."""

import os
from collections import Counter

import numpy as np
import pytest
from kd_core.errors import UserError
from PIL import Image

pytest.importorskip("torchreid")
from kd_reid.data.folders import read_market
from kd_reid.data.records import by_identity
from kd_reid.synthetic import people as module
from kd_reid.synthetic.appearance import CARRIED, LEGWEAR, PATTERNS, draw_appearance
from kd_reid.synthetic.cameras import draw_camera, photograph
from kd_reid.synthetic.figures import Pose, draw_figure
from kd_reid.synthetic.people import cache_folder, synthetic_people

SMALL = {"num_train_ids": 2, "num_test_ids": 3, "num_cameras": 2, "images_per_camera": 3}


def contents(folder):
    return {
        file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return synthetic_people(tmp_path_factory.mktemp("made") / "market1501", **SMALL)


def test_a_seed_gives_the_same_files_and_another_seed_others(made, tmp_path):
    again, other = (
        contents(synthetic_people(tmp_path / name, **SMALL, seed=seed))
        for name, seed in (("again", 0), ("other", 1))
    )
    assert contents(made) == again
    assert again.keys() == other.keys()
    assert not set(again.values()) & set(other.values())


def test_a_line_says_where_people_are_drawn_and_only_once(tmp_path, capsys):
    folder = tmp_path / "set"
    synthetic_people(folder, **SMALL)
    assert f"drawing people into {folder}, once" in capsys.readouterr().err.replace("\n", "")
    synthetic_people(folder, **SMALL)
    assert "drawing" not in capsys.readouterr().err


def test_no_two_images_are_equal(made):
    assert max(Counter(contents(made).values()).values()) == 1


def test_a_larger_set_contains_the_smaller_one(made, tmp_path):
    larger = {"num_train_ids": 3, "num_test_ids": 4, "num_cameras": 2, "images_per_camera": 4}
    large = contents(synthetic_people(tmp_path / "large", **larger))
    for name, image in contents(made).items():
        assert name.name == "synthetic_people.json" or large[name] == image


def test_identities_to_train_on_are_not_those_to_search_for(made):
    train, query, gallery = (by_identity(part) for part in read_market(made))
    assert list(train) == ["0001", "0002"]
    assert list(query) == ["0751", "0752", "0753"]
    assert set(gallery) == {*query, "0000"}


def test_every_camera_has_one_query_and_the_others_of_an_identity(made):
    train, query, gallery = read_market(made)
    assert Counter(record[1:] for record in train) == dict.fromkeys(
        [(identity, camera) for identity in ("0001", "0002") for camera in "12"], 3
    )
    tests = [(identity, camera) for identity in ("0751", "0752", "0753") for camera in "12"]
    assert Counter(record[1:] for record in query) == dict.fromkeys(tests, 1)
    found = Counter(record[1:] for record in gallery)
    assert found == dict.fromkeys(tests, 2) | {("0000", "1"): 3, ("0000", "2"): 3}


def test_junk_is_among_the_files_of_the_gallery(made):
    junk = list((made / "bounding_box_test").glob("-1_c?s1_*.jpg"))
    assert len(junk) == 3


@pytest.mark.filterwarnings("ignore:The current data structure")
def test_torchreid_s_own_loader_reads_it(made):
    from torchreid import data

    theirs = data.datasets.init_image_dataset("market1501", root=str(made.parent), verbose=False)
    ours = read_market(made)
    assert len(theirs.train) == len(ours.train)
    for found, wanted in ((theirs.query, ours.query), (theirs.gallery, ours.gallery)):
        assert sorted(image[:3] for image in found) == [
            (path, int(identity), int(camera) - 1) for path, identity, camera in wanted
        ]


@pytest.mark.parametrize("height", [64, 96])
def test_images_are_twice_as_high_as_wide(height, tmp_path):
    small = {"num_train_ids": 1, "num_test_ids": 1, "num_cameras": 2, "images_per_camera": 2}
    folder = synthetic_people(tmp_path / "set", **small, image_height=height)
    for file in folder.rglob("*.jpg"):
        with Image.open(file) as image:
            assert (image.size, image.mode) == ((height // 2, height), "RGB")


def drawn(look, turn=0.0):
    image = Image.new("RGB", (64, 128), (128, 128, 128))
    draw_figure(image, look, Pose(turn=turn, stride=0.3, bend=0.1), (32, 120), 110)
    return np.asarray(image).astype(int)


@pytest.mark.parametrize(
    "change",
    [
        {"height": 0.9},
        {"width": 1.29},
        {"legs": 0.45},
        {"skin": (90, 60, 40)},
        {"hair": (200, 200, 200)},
        {"long_hair": True},
        {"hat": True},
        {"upper": (10, 200, 10)},
        {"long_sleeves": False},
        {"hem": 0.14},
        {"lower": (10, 200, 10)},
        {"shoes": (10, 200, 10)},
        *({"pattern": pattern} for pattern in PATTERNS if pattern != "plain"),
        *({"legwear": kind} for kind in LEGWEAR if kind != "trousers"),
        *({"carried": thing} for thing in CARRIED if thing != "nothing"),
    ],
    ids=str,
)
def test_everything_about_a_look_shows(change):
    look = draw_appearance(np.random.default_rng(0))._replace(
        height=1.05,
        width=1.0,
        legs=0.5,
        long_hair=False,
        hat=False,
        pattern="plain",
        long_sleeves=True,
        hem=0.0,
        legwear="trousers",
        carried="nothing",
    )
    assert np.abs(drawn(look) - drawn(look._replace(**change))).sum() > 300


def test_a_face_is_seen_from_the_front_only():
    look = draw_appearance(np.random.default_rng(0))._replace(
        skin=(250, 0, 0), hair=(0, 0, 250), hat=False, upper=(0, 250, 0), carried="nothing"
    )
    front, back = (drawn(look, turn)[:25] for turn in (0.0, np.pi))
    faces = [(head == (250, 0, 0)).all(-1).sum() for head in (front, back)]
    assert faces[0] > 3 * faces[1]


def test_a_person_stands_out_from_a_camera_s_place():
    camera = draw_camera(np.random.default_rng(0), 64)
    look = draw_appearance(np.random.default_rng(1))
    shown, empty = (
        np.mean(
            [photograph(np.random.default_rng(seed), camera, who, 64) for seed in range(20)], axis=0
        )
        for who in (look, None)
    )
    changed = np.abs(shown - empty).mean(-1)
    assert changed[20:50, 12:20].mean() > 3 * changed[:, :4].mean()


@pytest.mark.parametrize(
    "change",
    [
        {"turn": 0.0},
        {"size": 0.7},
        {"ground": 0.9},
        {"gain": np.array([1.0, 1.0, 0.9])},
        {"gamma": 1.3},
        {"haze": 0.3},
        {"slope": 0.4},
        {"blur": 1.0},
        {"noise": 10.0},
        {"scenery": draw_camera(np.random.default_rng(1), 64).scenery},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_about_a_camera_shows(change):
    camera = draw_camera(np.random.default_rng(0), 64)._replace(
        turn=2.0, size=0.8, ground=0.95, gain=np.ones(3), gamma=1, haze=0, slope=0, blur=0, noise=0
    )
    look = draw_appearance(np.random.default_rng(1))
    images = [
        np.asarray(photograph(np.random.default_rng(0), taker, look, 64)).astype(int)
        for taker in (camera, camera._replace(**change))
    ]
    assert np.abs(images[0] - images[1]).mean() > 0.5


def test_no_image_repeats_the_chances_of_another(tmp_path, monkeypatch):
    chances = []

    def record(rng, camera, look, height):
        chances.append(rng.random())
        return Image.new("RGB", (height // 2, height))

    monkeypatch.setattr(module, "photograph", record)
    folder = synthetic_people(tmp_path / "set", **SMALL)
    assert len(set(chances)) == len(list(folder.rglob("*.jpg")))


def test_what_is_there_is_not_drawn_again(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_CACHE", str(tmp_path))
    first = synthetic_people(**SMALL)
    monkeypatch.setattr(module, "photograph", None)
    assert synthetic_people(**SMALL) == first
    assert [entry.name for entry in tmp_path.iterdir()] == [first.name]
    assert os.stat(first).st_mode & 0o777 == 0o755


@pytest.mark.parametrize("key", [*SMALL, "image_height", "seed"])
def test_other_settings_have_another_folder(key, tmp_path, monkeypatch):
    monkeypatch.setenv("KD_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "_write", lambda *args: None)
    monkeypatch.setattr(module, "_check", lambda *args: None)
    changed = {"image_height": 96}.get(key, 4)
    assert synthetic_people(**SMALL) != synthetic_people(**{**SMALL, key: changed})


def test_the_cache_is_in_the_home_folder_unless_the_variable_says_so(monkeypatch):
    monkeypatch.delenv("KD_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/somebody")
    assert str(cache_folder()) == "/somebody/.cache/kd"
    monkeypatch.setenv("KD_CACHE", "~/elsewhere")
    assert str(cache_folder()) == "/somebody/elsewhere"


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(content, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        synthetic_people(tmp_path / "set", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_of_two_processes_that_draw_at_once_one_wins(tmp_path, monkeypatch):
    draw, folder = module._draw, tmp_path / "set"

    def race(*args):
        monkeypatch.setattr(module, "_draw", draw)
        synthetic_people(folder, **SMALL)
        draw(*args)

    monkeypatch.setattr(module, "_draw", race)
    assert synthetic_people(folder, **SMALL) == folder
    assert [entry.name for entry in tmp_path.iterdir()] == ["set"]


def test_a_folder_that_lost_files_is_refused(tmp_path):
    folder = synthetic_people(tmp_path / "set", **SMALL)
    next((folder / "query").iterdir()).unlink()
    with pytest.raises(UserError, match=r"6 images in query/, found 5; move the folder elsewhere"):
        synthetic_people(folder, **SMALL)


@pytest.mark.parametrize("change", [{"num_train_ids": 9}, {"seed": 1}, {"image_height": 96}])
def test_a_folder_of_other_settings_is_refused(change, made, tmp_path):
    with pytest.raises(UserError, match=r"wanted synthetic people of .* got .*'seed': 0};"):
        synthetic_people(made, **SMALL | change)
    with pytest.raises(UserError, match=r"got no synthetic_people\.json"):
        synthetic_people(tmp_path, **SMALL)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_train_ids": 0},
        {"num_train_ids": 751},
        {"num_test_ids": 752},
        {"num_cameras": 1},
        {"num_cameras": 7},
        {"images_per_camera": 1},
        {"image_height": 8},
        {"seed": -1},
    ],
    ids=str,
)
def test_what_market_1501_could_not_hold_is_refused(wrong, tmp_path):
    ((key, value),) = wrong.items()
    with pytest.raises(UserError, match=rf"wanted {key} of \d+ to \d+, got {value}"):
        synthetic_people(tmp_path / "set", **SMALL | wrong)
