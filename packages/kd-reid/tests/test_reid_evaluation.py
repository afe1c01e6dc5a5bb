"""Evaluation searches the gallery for every query, whatever the batches are."""

import pytest
import torch
from kd_core.errors import UserError
from kd_core.networks.task import Task
from kd_reid import data
from kd_reid.data.records import Record
from kd_reid.embedder import Embedding
from kd_reid.evaluation import Evaluation, Features, extract, labels_in
from kd_reid.metrics import evaluate_rank, rerank
from kd_reid.pictures import differing_queries, draw_galleries, ranked
from PIL import Image


class Pixels(Task):
    """Its embedding are the first pixels."""

    def forward(self, batch):
        rows = batch["image"].float().flatten(1)[:, :5]
        return Embedding(rows, (), ())


@pytest.fixture
def people():
    found = data.synthetic(image_size=(8, 4), batch_size=6, num_ids=8, images_per_id=4)
    generator = torch.Generator().manual_seed(3)
    for part, camera in ((found.query, 1), (found.gallery, 2)):
        part.loader.images = part.loader.images + 0
        noise = torch.randint(0, 60, part.loader.images.shape, generator=generator)
        person = torch.tensor([int(record.identity) for record in part.records])
        part.loader.images = (person.view(-1, 1, 1, 1) * 20 + noise).to(torch.uint8)
        part.records[0] = Record("", "0", str(3 - camera))  # seen by the other's camera
    return found


@pytest.fixture
def model():
    return Pixels(torch.nn.Identity())


def test_features_are_in_the_order_of_the_records(people, model):
    found = extract(model, people)
    for part, rows in zip((people.query, people.gallery), found, strict=True):
        assert torch.equal(rows, part.loader.images.float().flatten(1)[:, :5])
    people.query.loader.batch_size = 5
    assert torch.equal(extract(model, people).query, found.query)


def test_metrics_are_those_of_the_protocol_in_percent(people, model):
    scores = Evaluation(people)(model)
    features = extract(model, people)
    distance = torch.cdist(features.query, features.gallery).square()
    ids = [[int(r.identity) for r in part.records] for part in (people.query, people.gallery)]
    cams = [[int(r.camera) for r in part.records] for part in (people.query, people.gallery)]
    cmc, mean_ap = evaluate_rank(distance, *ids, *cams)
    assert scores["rank1"] == pytest.approx(100 * cmc[0].item(), abs=1e-3)
    assert scores["rank20"] == pytest.approx(100 * cmc[19].item(), abs=1e-3)
    assert scores["mAP"] == pytest.approx(100 * mean_ap, abs=1e-3)
    assert scores["mAP_trapezoid"] < scores["mAP"] < 100
    assert 0 < scores["rank1"] < 100


def test_cosine_distance_does_not_see_lengths(people):
    generator = torch.Generator().manual_seed(0)
    rows = [torch.rand(32, 5, generator=generator) for _ in range(2)]
    scaled = Features(rows[0] * torch.linspace(1, 9, 32)[:, None], rows[1])
    plain = Features(*rows)
    cosine, euclidean = Evaluation(people, distance="cosine"), Evaluation(people)
    assert cosine.measure(scaled) == cosine.measure(plain)
    assert euclidean.measure(scaled) != euclidean.measure(plain)


@pytest.mark.parametrize("squared_twice", [False, True])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_reranking_takes_plain_distances(people, distance, squared_twice):
    generator = torch.Generator().manual_seed(0)
    query, gallery = (torch.rand(32, 5, generator=generator) for _ in range(2))
    evaluation = Evaluation(people, distance, reranking=True, squared_twice=squared_twice)
    scores = evaluation.measure(Features(query, gallery))
    if distance == "cosine":
        query, gallery = (torch.nn.functional.normalize(rows) for rows in (query, gallery))
    pairs = ((query, query), (query, gallery), (gallery, gallery))
    better = rerank(*(torch.cdist(*pair) for pair in pairs), squared_twice=squared_twice)
    arguments = labels_in(people)
    assert scores["reranked_mAP"] == pytest.approx(100 * evaluate_rank(better, *arguments)[1], 1e-4)
    assert {name.removeprefix("reranked_") for name in scores} <= scores.keys()


def test_without_cameras_nothing_is_left_out(people, model):
    for part in (people.query, people.gallery):
        part.records[:] = [Record("", record.identity, None) for record in part.records]
    labels = labels_in(people)
    assert (labels.query_cams[:, None] != labels.gallery_cams).all()
    assert Evaluation(people)(model)["rank1"] > 0


def test_an_unknown_distance_is_refused(people):
    with pytest.raises(UserError, match=r"'cosin'.*cosine"):
        Evaluation(people, distance="cosin")


class TestGalleries:
    def test_lists_leave_out_what_evaluation_does(self, people):
        distance = torch.arange(32.0)
        found = ranked(distance, labels_in(people), 0)  # person 0, camera 2
        left_out = [r for r in people.gallery.records if (r.identity, r.camera) == ("0", "2")]
        assert len(left_out) == 3
        assert len(found) == 29
        assert found[0] == 0

    def test_lists_compare_what_names_mean_and_leave_out_junk(self, people):
        written = [Record("", f"0{r.identity}", f"c0{r.camera}") for r in people.gallery.records]
        before = ranked(torch.arange(32.0), labels_in(people), 0)
        people.gallery.records[:] = written
        assert ranked(torch.arange(32.0), labels_in(people), 0) == before
        people.gallery.records[before[1]] = Record("", "-1", "c01")
        found = ranked(torch.arange(32.0), labels_in(people), 0)
        assert found == [place for place in before if place != before[1]]

    def test_queries_that_networks_differ_on_come_first(self, people):
        right = torch.ones(32, 32)
        person = torch.arange(32) // 4
        right[person[:, None] == person] = 0
        wrong = right.clone()
        wrong[20] = 1 - wrong[20]
        assert differing_queries([right, wrong], people, 1) == [20]
        assert differing_queries([right, wrong], people, 99) == list(range(0, 32, 4))

    def test_the_picture_frames_hits_and_misses(self, people, tmp_path):
        Image.new("RGB", (16, 32), "blue").save(tmp_path / "x.png")
        for part in (people.query, people.gallery):
            part.records[:] = [r._replace(path=str(tmp_path / "x.png")) for r in part.records]
        person = torch.arange(32) // 4
        right = (person[:, None] != person).float()
        path = tmp_path / "galleries.png"
        rows = right[[4, 8]]
        draw_galleries({"a": rows, "b": -rows}, people, path, queries=[4, 8], shown=2)
        with Image.open(path) as image:
            colours = {colour for _, colour in image.getcolors(maxcolors=100000)}
            width, height = image.size
        assert {(26, 152, 80), (215, 48, 39), (0, 0, 255)} <= colours
        assert (width, height) == (6 + 78 + 12 + 2 * (2 * 78 + 12), 22 + 2 * (142 + 16) + 6)
