"""Distances are searched some rows at a time: equal numbers, little memory."""

import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from kd_core.errors import UserError
from kd_reid.metrics import (
    Distances,
    cosine_distance,
    evaluate_rank,
    evaluate_rank_both,
    labels_of,
    rank_blocks,
    rerank,
    squared_euclidean,
    tpr_at_fpr,
)
from kd_reid.metrics.blocks import in_words
from torch.utils._python_dispatch import TorchDispatchMode

FUNCTIONS = {"euclidean": squared_euclidean, "cosine": cosine_distance}


def crowd(queries=30, images=170, people=12, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(people, (queries + images,), generator=generator)
    cams = torch.randint(3, (queries + images,), generator=generator)
    rows = torch.randn(people, width, generator=generator)[ids]
    rows = rows + 0.8 * torch.randn(rows.shape, generator=generator)
    sides = [(values[:queries], values[queries:]) for values in (rows, ids, cams)]
    return sides[0], labels_of((queries, images), *sides[1], *sides[2])


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(sys.modules["kd_reid.metrics.blocks"], "CHUNK", 7 * 200)
    monkeypatch.setattr(sys.modules["kd_reid.metrics.encodings"], "ROWS", 16)


class Held(TorchDispatchMode):
    """Remembers the largest tensor that an operation made, in bytes."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else [made]:
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                self.largest = max(self.largest, tensor.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("kind", FUNCTIONS)
class TestDistances:
    def test_blocks_are_the_rows_of_the_matrix(self, kind, small_blocks):
        features, _ = crowd()
        blocks = list(Distances(*features, kind).blocks())
        assert len(blocks) > 3
        torch.testing.assert_close(torch.cat(blocks), FUNCTIONS[kind](*features))

    def test_ranks_are_those_of_the_matrix(self, kind, small_blocks):
        features, labels = crowd()
        found = rank_blocks(Distances(*features, kind).blocks(), labels, max_rank=20)
        cmc, means = evaluate_rank_both(FUNCTIONS[kind](*features), *labels, max_rank=20)
        assert torch.equal(found.cmc, cmc)
        assert found.means == means

    @pytest.mark.parametrize("squared_twice", [False, True])
    def test_reranked_blocks_are_those_of_the_matrices(self, kind, squared_twice, small_blocks):
        (query, gallery), _ = crowd()
        pairs = (query, query), (query, gallery), (gallery, gallery)
        whole = (FUNCTIONS[kind](*pair).clamp(min=0).sqrt() for pair in pairs)
        expected = rerank(*whole, k1=9, k2=4, squared_twice=squared_twice)
        better = Distances(query, gallery, kind)
        blocks = list(better.reranked(k1=9, k2=4, squared_twice=squared_twice))
        assert len(blocks) > 3
        torch.testing.assert_close(torch.cat(blocks), expected, rtol=0, atol=1e-6)


def test_the_time_of_reranking_is_told_before_it_starts():
    features, _ = crowd()
    told = []
    blocks = Distances(*features).reranked(announce=told.append)
    next(blocks)
    assert len(told) == 1
    assert 0 < told[0] < 60


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.01, "1 s"), (80, "80 s"), (600, "10 minutes"), (7300, "2 hours")]
)
def test_times_are_told_in_words(seconds, text):
    assert in_words(seconds) == text


def test_a_search_holds_no_matrix_of_all_pairs(monkeypatch):
    monkeypatch.setattr(sys.modules["kd_reid.metrics.blocks"], "CHUNK", 40 * 2400)
    monkeypatch.setattr(sys.modules["kd_reid.metrics.encodings"], "ROWS", 64)
    features, labels = crowd(400, 2000, people=200, width=4)
    with Held() as held:
        distances = Distances(*features)
        rank_blocks(distances.blocks(), labels)
        tpr_at_fpr(distances.blocks, labels, [0.01])
        rank_blocks(distances.reranked(), labels)
    pairs = 4 * 400 * 2000
    assert held.largest < pairs  # the matrix of all images would have seven times as many bytes


@pytest.mark.parametrize("side", [0, 1])
def test_embeddings_that_are_not_finite_or_missing_are_refused(side):
    features = [torch.rand(3, 4), torch.rand(5, 4)]
    features[side][1, 1] = torch.nan
    with pytest.raises(UserError, match="not finite"):
        Distances(*features)
    features[side] = features[side][:0]
    with pytest.raises(UserError, match="a search needs images"):
        Distances(*features)


def slow_tpr(distance, labels, rate):
    same = labels.query_ids[:, None] == labels.gallery_ids
    left_out = same & (labels.query_cams[:, None] == labels.gallery_cams)
    left_out |= labels.gallery_ids == -1
    right, wrong = distance[same & ~left_out], distance[~same & ~left_out].sort().values
    threshold = wrong[int(Fraction(str(rate)) * len(wrong))]
    shares = [(pairs < threshold).double().mean().item() for pairs in (right, wrong)]
    return (*shares, threshold.item())


class TestVerification:
    @pytest.mark.parametrize("rate", [0.0001, 0.001, 0.01, 0.3, 0.999])
    @pytest.mark.parametrize("shift", [0.0, -3.0])
    def test_it_equals_sorting_all_pairs(self, rate, shift):
        features, labels = crowd()
        labels = labels._replace(gallery_ids=labels.gallery_ids - 1)  # some junk
        labels = labels._replace(query_ids=labels.query_ids.clamp(max=9))
        distance = squared_euclidean(*features) + shift  # also negative ones
        (found,) = tpr_at_fpr(lambda: distance.split(7), labels, [rate])
        assert tuple(found) == pytest.approx(slow_tpr(distance, labels, rate), rel=1e-12)
        assert found.fpr <= rate

    def test_equal_distances_are_accepted_together_or_not_at_all(self):
        distance = torch.tensor([[0.5, 0.5, 0.5, -0.0, 0.0]])
        labels = labels_of((1, 5), [1], [1, 2, 3, 1, 4])
        (found,) = tpr_at_fpr(lambda: [distance], labels, [0.4])
        assert tuple(found) == (0.5, pytest.approx(1 / 3), 0.5)
        (found,) = tpr_at_fpr(lambda: [distance], labels, [0.1])
        assert tuple(found) == (0, 0, 0)

    @pytest.mark.parametrize(
        ("gallery", "rate", "text"),
        [
            ([1, 1], 0.1, "no wrong pairs"),
            ([2, 2], 0.1, "no right pairs"),
            ([1, 2], 0, "above 0 and below 1, got 0"),
            ([1, 2], 1.0, "got 1.0"),
        ],
    )
    def test_what_has_no_meaning_is_refused(self, gallery, rate, text):
        with pytest.raises(UserError, match=text):
            tpr_at_fpr(lambda: [torch.rand(1, 2)], labels_of((1, 2), [1], gallery), [rate])


def test_minp_is_how_early_the_last_right_image_comes():
    distance = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]])
    labels = labels_of((2, 4), [7, 8], [7, 9, 7, 8])
    assert rank_blocks([distance], labels).minp == pytest.approx((2 / 3 + 1 / 4) / 2)


class TestLabels:
    @pytest.mark.parametrize(
        "kind",
        [
            np.array,
            torch.tensor,
            lambda values: [f"{v:04d}" for v in values],
            lambda values: np.array([f" {v} " for v in values]),
            lambda values: np.array([str(v) for v in values], dtype=object),
            lambda values: np.array([f"{v}.0" for v in values], dtype="S"),
            lambda values: np.array(values, dtype=np.float64),
            lambda values: np.array(values, dtype=np.uint16 if min(values) >= 0 else np.int16),
            lambda values: [str(v) if n % 2 else v for n, v in enumerate(values)],
        ],
    )
    def test_numbers_in_any_form_give_equal_results(self, kind):
        features, labels = crowd()
        distance = squared_euclidean(*features)
        sides = [values.tolist() for values in labels]
        sides[1][3] = -1  # junk
        expected = evaluate_rank(distance, *sides)
        cmc, mean_ap = evaluate_rank(distance, *map(kind, sides))
        assert torch.equal(cmc, expected[0])
        assert mean_ap == expected[1]
        cmc, mean_ap = evaluate_rank(
            distance.numpy(), kind(sides[0]), sides[1], kind(sides[2]), sides[3]
        )
        assert mean_ap == expected[1]

    def test_names_are_people_and_cameras_too(self):
        distance = torch.tensor([[0.1, 0.2, 0.3]])
        ids = [["anna"], ["anna", "ben", "anna"]]
        assert evaluate_rank(distance, *ids, ["c1"], ["c01", "c1", "cam2"])[1] == 1 / 2
        assert evaluate_rank(distance, *ids, ["Cam_1"], [1, "1", "002"])[1] == 1 / 2
        assert evaluate_rank(distance, *ids, ["hall"], ["hall", "hall", "door"])[1] == 1 / 2

    def test_huge_numbers_stay_apart(self):
        big = 2**80
        found = labels_of((1, 2), [str(big)], [str(big), str(big + 1)])
        assert (found.query_ids == found.gallery_ids).tolist() == [True, False]

    @pytest.mark.parametrize(
        ("ids", "text"),
        [
            ([None], "query_ids: number 0 is None"),
            ([" "], "query_ids: number 0 is empty"),
            ([1.5], "query_ids: wanted whole numbers"),
            ([float("nan")], "query_ids: wanted whole numbers"),
            (["a", 1.5, None], "query_ids: number 1 is 1.5"),
            ("7", "wanted a label for each image"),
            (7, "wanted a label for each image"),
            (np.array([True]), "wanted whole numbers or texts, got bool"),
        ],
    )
    def test_what_is_no_label_is_refused(self, ids, text):
        count = len(ids) if isinstance(ids, list) else 1
        with pytest.raises(UserError, match=text):
            labels_of((count, 1), ids, [7])
