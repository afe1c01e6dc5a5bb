"""Several sets are trained on as one: each person stays a person of their own set."""

import pytest
from kd_core.errors import UserError
from kd_reid import data
from kd_reid.data.merged import read_merged
from PIL import Image


def paint(root, *names):
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 16), (30 * number, 20 * len(root.name), 0)).save(root / name)
    return str(root)


@pytest.fixture
def own(tmp_path):
    """A folder of four people, two images each."""
    return paint(tmp_path / "own", *(f"000{p}/{n}.png" for p in range(1, 5) for n in range(2)))


@pytest.fixture
def market(tmp_path):
    return paint(
        tmp_path / "market",
        "bounding_box_train/0001_c1s1_000000_00.jpg",
        "bounding_box_train/0002_c3s1_000000_00.jpg",
        "query/0003_c1s1_000000_00.jpg",
        "bounding_box_test/0003_c2s1_000000_00.jpg",
    )


def people_of(records):
    return sorted({record.identity for record in records})


def test_equally_named_people_of_two_sets_are_two(own, market):
    found = read_merged([market, own], market)
    assert people_of(found.train) == ["0/0001", "0/0002", *(f"1/000{p}" for p in range(1, 5))]
    assert people_of(found.query) == ["0003"]
    assert people_of(found.gallery) == ["0003"]


def test_a_set_without_a_split_is_split_only_if_it_is_searched_too(own, market):
    found = read_merged([market, own], own, train_fraction=0.5)
    assert len(people_of(found.train)) == 2 + 2
    trained = {name.partition("/")[2] for name in people_of(found.train) if name[0] == "1"}
    assert trained | set(people_of(found.query)) == {"0001", "0002", "0003", "0004"}
    alone = read_merged([market], own)
    assert len(people_of(alone.query)) == 4


def test_it_is_a_data_set_of_a_config(own, market):
    options = {"batch_size": 2, "image_size": (16, 8), "workers": 0}
    found = data.merged(sources=[market, own], search=market, **options)
    assert found.num_classes == 6
    assert len(next(found.train.epoch(0))["label"]) == 2


@pytest.mark.parametrize(
    ("sources", "text"),
    [
        ([], "wanted a list of sets"),
        (["market", "./market"], "named twice"),
        (["market", "nowhere"], "nowhere"),
        (["market", "market/bounding_box_train/.."], "named twice"),
    ],
)
def test_wrong_sources_are_refused(sources, text, market, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=text):
        read_merged(sources, "market")


def test_images_that_are_trained_on_and_searched_are_refused(tmp_path, own):
    rows = "path,identity\n" + "".join(f"{own}/0001/{n}.png,1\n" for n in range(2))
    (tmp_path / "set.csv").write_text(rows)
    with pytest.raises(UserError, match="is the same file as"):
        data.merged(sources=[own], search=str(tmp_path / "set.csv"), batch_size=2, workers=0)
