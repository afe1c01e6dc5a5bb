"""Ranking and re-ranking are those of the protocol, of torchreid, and of loops."""

import math
import sys
import warnings

import numpy as np
import pytest
import torch
import torchreid
from kd_core.errors import UserError
from kd_core.testing import signals
from kd_reid.metrics import (
    cosine_distance,
    evaluate_rank,
    evaluate_rank_both,
    rerank,
    squared_euclidean,
)
from torch.utils._python_dispatch import TorchDispatchMode

ARGUMENTS = {
    "query_ids": [1, 2, 3],
    "gallery_ids": [1, 1, 2, 0, 3, 2, 3, 1, 0],
    "query_cams": [0, 0, 1],
    "gallery_cams": [0, 1, 1, 2, 0, 0, 1, 2, 1],
}


def embeddings():
    return signals((3, 4), 0.7, 0.1), signals((9, 4), 0.7, 0.6)


def scene(queries=12, images=70, people=6, cameras=3, seed=0):
    """Distances without ties, identities from 0 and cameras, as numpy arrays."""
    generator = np.random.default_rng(seed)
    distance = generator.permutation(queries * images).reshape(queries, images) / 97
    ids = [generator.integers(people, size=size) for size in (queries, images)]
    cams = [generator.integers(cameras, size=size) for size in (queries, images)]
    return distance.astype(np.float32), *ids, *cams


def slow_evaluate_rank(distance, query_ids, gallery_ids, query_cams, gallery_cams, max_rank, ap):
    """Return CMC and mean AP, image by image."""
    first, averages = [], []
    for q in range(len(distance)):
        right = []  # of the images that count, from near to far
        for g in sorted(range(len(gallery_ids)), key=lambda g: distance[q][g]):
            same = gallery_ids[g] == query_ids[q]
            if gallery_ids[g] != -1 and not (same and gallery_cams[g] == query_cams[q]):
                right.append(same)
        ranks = [rank for rank, hit in enumerate(right) if hit]
        if not ranks:
            continue
        values = []
        for i, rank in enumerate(ranks):
            at = (i + 1) / (rank + 1)
            previous = i / rank if rank else 1.0
            values.append(at if ap == "step" else (at + previous) / 2)
        first.append(ranks[0])
        averages.append(sum(values) / len(values))
    cmc = [sum(rank <= k for rank in first) / len(first) for k in range(max_rank)]
    return cmc, sum(averages) / len(averages)


class TestRanking:
    def test_it_has_the_reference_s_numbers(self, golden):
        cmc, mean_ap = evaluate_rank(squared_euclidean(*embeddings()), **ARGUMENTS, max_rank=9)
        for value, reference in zip(cmc, [1 / 3] * 2 + [2 / 3] * 5 + [1], strict=True):
            golden(value, reference)
        golden(mean_ap, 0.47222222222222215)

    def test_it_has_the_trapezoid_s_number(self, golden):
        distance = squared_euclidean(*embeddings())
        golden(evaluate_rank(distance, **ARGUMENTS, ap="trapezoid")[1], 0.4146825396825397)

    @pytest.mark.parametrize("seed", range(3))
    def test_it_equals_torchreid(self, seed):
        scenery = scene(seed=seed)
        cmc, mean_ap = evaluate_rank(*scenery, max_rank=20)
        expected, mean = torchreid.metrics.evaluate_rank(*scenery, max_rank=20, use_cython=False)
        np.testing.assert_allclose(cmc, expected, rtol=1e-6)
        assert mean_ap == pytest.approx(mean, rel=1e-12)

    @pytest.mark.parametrize("ap", ["step", "trapezoid"])
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.filterwarnings("ignore:.*left out")
    def test_it_equals_the_protocol_written_as_a_loop(self, seed, ap):
        distance, query_ids, gallery_ids, *cams = scene(images=40, people=30, seed=seed)
        arguments = distance, query_ids - 1, gallery_ids - 1, *cams, 30, ap  # some junk
        cmc, mean_ap = evaluate_rank(*arguments)
        expected, mean = slow_evaluate_rank(*arguments)
        np.testing.assert_allclose(cmc, expected, rtol=1e-12)
        assert mean_ap == pytest.approx(mean, rel=1e-12)

    @pytest.mark.parametrize("ap", ["step", "trapezoid"])
    @pytest.mark.parametrize("chunk", [1, 70, 5 * 70])
    def test_chunks_change_nothing(self, monkeypatch, chunk, ap):
        whole = evaluate_rank(*scene(), ap=ap)
        monkeypatch.setattr(sys.modules["kd_reid.metrics.ranking"], "CHUNK", chunk)
        cmc, mean_ap = evaluate_rank(*scene(), ap=ap)
        assert torch.equal(cmc, whole[0])
        assert mean_ap == whole[1]

    def test_both_average_precisions_equal_those_found_by_hand(self):
        # Right images are the first and the fourth: precisions 1 and 2/4, before them 1 and 1/3.
        arguments = torch.tensor([[0.1, 0.2, 0.3, 0.4]]), [7], [7, 8, 9, 7]
        assert evaluate_rank(*arguments)[1] == pytest.approx((1 + 1 / 2) / 2)
        trapezoid = evaluate_rank(*arguments, ap="trapezoid")[1]
        assert trapezoid == pytest.approx((1 + (1 / 2 + 1 / 3) / 2) / 2)

    @pytest.mark.parametrize("ap", ["step", "trapezoid"])
    def test_a_perfect_list_has_an_average_precision_of_one(self, ap):
        cmc, mean_ap = evaluate_rank(torch.tensor([[0.1, 0.2, 0.3]]), [7], [7, 7, 8], ap=ap)
        assert mean_ap == 1
        assert cmc.tolist() == [1, 1, 1]

    def test_the_person_as_seen_by_the_same_camera_is_left_out(self):
        arguments = torch.tensor([[0.1, 0.2, 0.3]]), [7], [7, 8, 7], [0], [0, 0, 1]
        cmc, mean_ap = evaluate_rank(*arguments)
        assert cmc.tolist() == [0, 1]  # others of that camera stay
        assert mean_ap == 1 / 2

    def test_without_cameras_every_image_of_the_person_is_right(self):
        cmc, mean_ap = evaluate_rank(torch.tensor([[0.1, 0.2, 0.3]]), [7], [7, 8, 7])
        assert cmc.tolist() == [1, 1, 1]
        assert mean_ap == pytest.approx((1 + 2 / 3) / 2)

    def test_junk_is_left_out_and_distractors_are_wrong(self):
        distance = torch.tensor([[0.1, 0.2, 0.3]])
        assert evaluate_rank(distance, [7], [-1, -1, 7])[1] == 1
        assert evaluate_rank(distance, [7], [-1, 0, 7])[1] == 1 / 2
        assert evaluate_rank(distance, [7], [0, 0, 7])[1] == pytest.approx(1 / 3)

    def test_images_at_equal_distances_keep_the_order_of_the_gallery(self):
        ids = [8] * 40 + [7] + [8] * 40
        assert evaluate_rank(torch.ones(1, 81), [7], ids)[1] == pytest.approx(1 / 41)

    def test_queries_that_find_nothing_are_left_out_and_counted_where_the_caller_is(self):
        distance = torch.tensor([[0.2, 0.1], [0.2, 0.1], [0.2, 0.1]])
        # The second is not in the gallery; the third only as seen by its own camera.
        with pytest.warns(UserWarning, match="2 of 3 queries") as record:
            cmc, mean_ap = evaluate_rank(distance, [7, 6, 8], [7, 8], [0, 0, 0], [1, 0])
        assert record[0].filename == __file__
        assert cmc.tolist() == [0, 1]
        assert mean_ap == 1 / 2

    def test_a_list_shorter_than_others_is_found_out_at_its_end(self):
        distance = torch.tensor([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]])
        cmc, _ = evaluate_rank(distance, [7, 9], [7, 7, 9], [0, 1], [0, 1, 2])
        assert cmc.tolist() == [1 / 2, 1 / 2, 1]

    def test_tensors_arrays_and_lists_are_the_same_and_stay_as_they_are(self):
        scenery = scene()
        copies = [array.copy() for array in scenery]
        tensors = [torch.from_numpy(array) for array in copies]
        lists = [array.tolist() for array in scenery]
        cmc, mean_ap = evaluate_rank(*scenery)
        for other in (tensors, lists):
            same, mean = evaluate_rank(*other)
            assert torch.equal(same, cmc)
            assert mean == mean_ap
        assert all(map(np.array_equal, scenery, copies))

    def test_half_precision_is_ranked(self):
        distance = torch.tensor([[0.5, 0.25]], dtype=torch.float16, requires_grad=True)
        assert evaluate_rank(distance, [7], [8, 7])[1] == 1

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"distance": torch.ones(3)}, r"matrix of floats.*float32 \[3\]"),
            ({"distance": torch.ones(3, 0)}, r"matrix of floats.*\[3, 0\]"),
            ({"distance": torch.ones(3, 9, dtype=torch.int64)}, "matrix of floats.*int64"),
            ({"distance": torch.full((3, 9), math.nan)}, "not finite"),
            ({"distance": torch.full((3, 9), math.inf)}, "not finite"),
            ({"query_ids": [1, 2]}, r"distance \[3, 9\].*ids.*got \[2\] and \[9\]"),
            ({"gallery_cams": [0]}, r"cams.*got \[3\] and \[1\]"),
            ({"gallery_cams": None}, "both or neither"),
            ({"max_rank": 0}, "max_rank is 1 or more, got 0"),
            ({"ap": "steps"}, "did you mean 'step'"),
            ({"query_ids": [5, 5, 5]}, "none of 3 queries"),
            ({"query_ids": [-1, -1, -1], "gallery_ids": [-1] * 9}, "none of 3 queries"),
        ],
    )
    def test_wrong_input_is_refused(self, change, text):
        with pytest.raises(UserError, match=text):
            evaluate_rank(**{"distance": torch.rand(3, 9), **ARGUMENTS, **change})


@pytest.mark.parametrize(
    ("function", "name"), [(squared_euclidean, "euclidean"), (cosine_distance, "cosine")]
)
class TestDistance:
    def test_it_equals_torchreid(self, function, name):
        expected = torchreid.metrics.compute_distance_matrix(*embeddings(), name)
        torch.testing.assert_close(function(*embeddings()), expected)

    def test_it_equals_the_definition_written_as_a_loop(self, function, name):
        result = function(*embeddings())
        for q, query in enumerate(embeddings()[0]):
            for g, image in enumerate(embeddings()[1]):
                cosine = query @ image / math.sqrt((query @ query) * (image @ image))
                expected = {"euclidean": ((query - image) ** 2).sum(), "cosine": 1 - cosine}
                torch.testing.assert_close(result[q, g], expected[name])

    def test_it_has_single_precision_at_least(self, function, name):
        query, gallery = (side.bfloat16() for side in embeddings())
        with torch.autocast("cpu", torch.bfloat16):
            result = function(query, gallery)
        torch.testing.assert_close(result, function(query.float(), gallery.float()))

    def test_embeddings_of_different_widths_are_refused(self, function, name):
        with pytest.raises(UserError, match=r"one network, got \[2, 3\] and \[5, 4\]"):
            function(torch.rand(2, 3), torch.rand(5, 4))
        with pytest.raises(UserError, match=r"got \[3\]"):
            function(torch.rand(3), torch.rand(5, 3))


def test_rounding_makes_no_squared_distance_negative():
    same = 100 * torch.rand(20, 64, generator=torch.Generator().manual_seed(0))
    assert squared_euclidean(same, same).min() >= 0


def distances(query, gallery):
    pairs = (query, query), (query, gallery), (gallery, gallery)
    return tuple(squared_euclidean(*pair).sqrt() for pair in pairs)


def crowd(queries=15, images=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    people = torch.randn(8, 6, generator=generator)
    seen = people[torch.randint(8, (queries + images,), generator=generator)]
    seen = seen + 0.7 * torch.randn(seen.shape, generator=generator)
    return distances(seen[:queries], seen[queries:])


def torchreid_rerank(query_query, query_gallery, gallery_gallery, **settings):
    sides = (side.numpy() for side in (query_gallery, query_query, gallery_gallery))
    return torch.from_numpy(torchreid.utils.re_ranking(*sides, **settings))


def slow_rerank(query_query, query_gallery, gallery_gallery, k1, k2, lambda_value):
    """Return the re-ranked distances by sets and dicts, in the order of the paper's section 3."""
    queries = range(len(query_query))
    rows = [[*query_query[q].tolist(), *query_gallery[q].tolist()] for q in queries]
    rows += torch.cat([query_gallery.T, gallery_gallery], dim=1).tolist()
    every = range(len(rows))
    far = [max(row) for row in rows]
    distance = [[(rows[i][j] / far[i]) ** 2 for j in every] for i in every]
    ranked = [sorted(every, key=distance[i].__getitem__) for i in every]

    def reciprocal(i, k):
        return {j for j in ranked[i][: k + 1] if i in ranked[j][: k + 1]}

    encodings = []
    for i in every:
        own = reciprocal(i, k1)
        halves = [reciprocal(j, round(k1 / 2)) for j in own]
        wide = own.union(*(half for half in halves if len(half & own) > 2 / 3 * len(half)))
        weights = {j: math.exp(-distance[i][j]) for j in wide}
        encodings.append({j: weight / sum(weights.values()) for j, weight in weights.items()})
    mean = [
        [sum(encodings[j].get(m, 0) for j in ranked[i][:k2]) / k2 for m in every] for i in every
    ]
    result = []
    for q in queries:
        for g in every[len(queries) :]:
            smaller = sum(map(min, mean[q], mean[g]))
            larger = sum(map(max, mean[q], mean[g]))
            jaccard = 1 - smaller / larger
            result.append((1 - lambda_value) * jaccard + lambda_value * distance[q][g])
    return torch.tensor(result, dtype=torch.float64).view_as(query_gallery)


class Largest(TorchDispatchMode):
    """Keeps the number of entries of the largest dense tensor that an operator returns."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.layout is torch.strided:
            self.numel = max(self.numel, result.numel())
        return result


SETTINGS = [(20, 6, 0.3), (7, 1, 0.0), (2, 7, 0.5), (6, 3, 1.0)]


class TestReranking:
    def test_it_has_the_reference_s_numbers(self):
        row = rerank(*distances(*embeddings()), k1=4, k2=2)[0]
        reference = """0.2420404851436615 1.0 0.002139526419341564 0.9625391960144043
            0.31671106815338135 0.8139466047286987 0.7695653438568115
            0.7220207452774048 0.8727152347564697"""
        # In absolute terms, since the reference computes in single precision.
        np.testing.assert_allclose(row, list(map(float, reference.split())), rtol=0, atol=3e-7)

    @pytest.mark.parametrize(("k1", "k2", "lambda_value"), SETTINGS)
    def test_it_equals_the_authors_code_given_plain_distances(self, k1, k2, lambda_value):
        settings = {"k1": k1, "k2": k2, "lambda_value": lambda_value}
        result, expected = rerank(*crowd(), **settings), torchreid_rerank(*crowd(), **settings)
        torch.testing.assert_close(result, expected, rtol=0, atol=2e-6)

    def test_it_equals_the_authors_code_where_rounding_made_distances_asymmetric(self):
        generator = torch.Generator().manual_seed(0)
        sides = [side + 0.2 * torch.rand(side.shape, generator=generator) for side in crowd()]
        expected = torchreid_rerank(*sides)
        torch.testing.assert_close(rerank(*sides), expected, rtol=0, atol=2e-6)

    @pytest.mark.parametrize(("k1", "k2", "lambda_value"), SETTINGS)
    def test_squared_twice_it_equals_torchreid(self, k1, k2, lambda_value):
        settings = {"k1": k1, "k2": k2, "lambda_value": lambda_value}
        squares = [side.square() for side in crowd(seed=1)]  # what torchreid hands on
        result = rerank(*crowd(seed=1), **settings, squared_twice=True)
        expected = torchreid_rerank(*squares, **settings)
        torch.testing.assert_close(result, expected, rtol=0, atol=2e-6)
        if lambda_value:
            assert not torch.allclose(result, rerank(*crowd(seed=1), **settings), atol=1e-3)

    @pytest.mark.parametrize(("k1", "k2", "lambda_value"), SETTINGS)
    def test_it_equals_the_paper_written_as_sets(self, k1, k2, lambda_value):
        sides = [side.double() for side in crowd(5, 25, seed=2)]
        result = rerank(*sides, k1=k1, k2=k2, lambda_value=lambda_value)
        torch.testing.assert_close(result, slow_rerank(*sides, k1, k2, lambda_value))

    @pytest.mark.parametrize("chunk", [1, 75, 10 * 75])
    def test_chunks_change_nothing(self, monkeypatch, chunk):
        whole = rerank(*crowd())
        monkeypatch.setattr(sys.modules["kd_reid.metrics.reranking"], "CHUNK", chunk)
        assert torch.equal(rerank(*crowd()), whole)

    def test_the_matrix_of_all_images_is_never_made(self, monkeypatch):
        monkeypatch.setattr(sys.modules["kd_reid.metrics.reranking"], "CHUNK", 10 * 200)
        monkeypatch.setattr(sys.modules["kd_reid.metrics.growing"], "_LEAST", 1)
        sides = crowd(100, 100)
        with Largest() as largest:
            rerank(*sides, k1=3)
        assert largest.numel == 100 * 100

    def test_it_does_not_warn(self):
        torch.set_warn_always(True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                rerank(*crowd())
        finally:
            torch.set_warn_always(False)

    def test_it_finds_more_of_the_right_images(self):
        generator = torch.Generator().manual_seed(0)
        ids = torch.arange(80) % 8
        seen = torch.randn(8, 6, generator=generator)[ids]
        seen = seen + 0.7 * torch.randn(80, 6, generator=generator)
        sides, ids = distances(seen[:16], seen[16:]), (ids[:16], ids[16:])
        plain, better = (evaluate_rank(d, *ids)[1] for d in (sides[1], rerank(*sides, k1=8, k2=3)))
        assert better > plain + 0.03

    def test_its_arguments_stay_as_they_are(self):
        sides = crowd()
        copies = [side.clone() for side in sides]
        rerank(*sides)
        assert all(map(torch.equal, sides, copies))

    @pytest.mark.parametrize("k1", [1, 20, 100])
    def test_a_network_that_gives_everybody_one_embedding_has_finite_distances(self, k1):
        sides = torch.zeros(3, 3), torch.zeros(3, 30), torch.zeros(30, 30)
        assert rerank(*sides, k1=k1).isfinite().all()

    def test_one_query_and_one_image_are_enough(self):
        sides = torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1, 1)
        # Each is the other's neighbour, so after averaging their encodings are equal.
        torch.testing.assert_close(rerank(*sides), torch.tensor([[0.3]]))

    @pytest.mark.parametrize(
        ("shapes", "text"),
        [
            (([2, 2], [2], [3, 3]), r"query_gallery is \[Q, G\].*got \[2\]"),
            (([0, 0], [0, 3], [3, 3]), r"query_gallery is \[Q, G\].*got \[0, 3\]"),
            (([3, 3], [2, 3], [3, 3]), r"query_query is \[2, 2\].*got \[3, 3\] and"),
            (([2, 2], [2, 3], [2, 2]), r"gallery_gallery \[3, 3\].*and \[2, 2\]"),
        ],
    )
    def test_wrong_shapes_are_refused(self, shapes, text):
        with pytest.raises(UserError, match=text):
            rerank(*map(torch.rand, shapes))

    @pytest.mark.parametrize("setting", [{"k1": 0}, {"k2": 0}, {"lambda_value": 1.5}])
    def test_wrong_numbers_are_refused(self, setting):
        ((name, value),) = setting.items()
        with pytest.raises(UserError, match=f"got .*{name}={value}"):
            rerank(*crowd(), **setting)

    @pytest.mark.parametrize("side", range(3))
    def test_distances_that_are_not_finite_are_refused(self, side):
        sides = crowd()
        sides[side][0, 0] = math.nan
        with pytest.raises(UserError, match="not finite"):
            rerank(*sides)


def test_both_precisions_come_of_one_ranking():
    distance = squared_euclidean(*embeddings())
    cmc, means = evaluate_rank_both(distance, **ARGUMENTS)
    for ap in ("step", "trapezoid"):
        alone = evaluate_rank(distance, **ARGUMENTS, ap=ap)
        assert torch.equal(cmc, alone[0])
        assert means[ap] == alone[1]
    assert means["trapezoid"] < means["step"]
