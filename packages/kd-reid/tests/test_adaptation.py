"""What an adaptation is made of: its losses, clusters and batches."""

import math
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.soft_label import soft_label
from kd_core.errors import UserError
from kd_core.testing import signals
from kd_reid.adaptation.clustering import OUTLIER, Clustering, centroids
from kd_reid.adaptation.losses import batch_nuclear_norm, multi_similarity
from kd_reid.adaptation.target import ClusterSampler
from kd_reid.metrics import jaccard_distance, rerank, squared_euclidean
from kd_reid.synthetic.people import synthetic_people
from PIL import Image
from torch.autograd import gradcheck

EMBEDDING = signals((8, 5), 0.7, 0.4)
IDENTITY = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
LOGITS, OTHER = signals((4, 10), 0.7, 0.3, 3), signals((4, 10), 0.7, 1.1, 4)


def random_rows(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def slow_multi_similarity(embedding, label):
    """Go through the anchors, each with lists of its positives and negatives."""
    total = torch.zeros((), dtype=torch.float64)
    for i, anchor in enumerate(embedding):
        cosines = [F.cosine_similarity(anchor, other, dim=0) for other in embedding]
        alike = [c for c, k in zip(cosines, label, strict=True) if k == label[i] and c < 1 - 1e-5]
        others = [c for c, k in zip(cosines, label, strict=True) if k != label[i]]
        if not alike or not others:
            continue
        pushed = [c for c in others if c + 0.1 > min(alike)]
        pulled = [c for c in alike if c - 0.1 < max(others)]
        if pushed and pulled:
            total = total + torch.log(1 + sum(torch.exp(-2 * (c - 0.5)) for c in pulled)) / 2
            total = total + torch.log(1 + sum(torch.exp(40 * (c - 0.5)) for c in pushed)) / 40
    return total / len(embedding)


class TestLosses:
    def test_they_have_the_reference_s_numbers(self, golden):
        golden(multi_similarity(EMBEDDING, IDENTITY), 1.7535235288569315)
        golden(batch_nuclear_norm(LOGITS), -0.43827107140718574)
        golden(soft_label(LOGITS, OTHER), 2.155732562275076)

    @pytest.mark.parametrize("spread", [0.3, 0.6, 5.0])  # of a person's images about their centre
    def test_multi_similarity_equals_the_loop(self, spread):
        label = torch.arange(12) % 5
        embedding = random_rows(5, 4)[label] + spread * random_rows(12, 4, seed=1)
        embedding.requires_grad_()
        losses = multi_similarity(embedding, label), slow_multi_similarity(embedding, label)
        torch.testing.assert_close(*losses)
        gradients = [torch.autograd.grad(loss, embedding)[0] for loss in losses]
        torch.testing.assert_close(*gradients)

    def test_nuclear_norm_equals_the_roots_of_eigenvalues(self):
        probabilities = LOGITS.softmax(1)
        roots = torch.linalg.eigvalsh(probabilities @ probabilities.T).clamp(min=0).sqrt()
        torch.testing.assert_close(batch_nuclear_norm(LOGITS), -roots.sum() / 4)

    def test_nuclear_norm_is_least_where_predictions_are_sure_and_differ(self):
        one_hot = 50 * torch.eye(4)
        assert batch_nuclear_norm(one_hot).item() == pytest.approx(-1)
        assert batch_nuclear_norm(one_hot[:1].repeat(4, 1)).item() == pytest.approx(-0.5)
        assert batch_nuclear_norm(0 * one_hot).item() == pytest.approx(-0.25)

    def test_gradients_are_right(self):
        label = torch.tensor([0, 1, 2, 0, 1, 2])
        rows = random_rows(6, 3).requires_grad_()
        assert gradcheck(lambda x: multi_similarity(x, label), rows)
        assert gradcheck(batch_nuclear_norm, rows)

    @pytest.mark.parametrize("label", [torch.zeros(8), torch.arange(8)])
    def test_a_batch_without_pairs_of_both_kinds_costs_nothing(self, label):
        rows = EMBEDDING.clone().requires_grad_()
        loss = multi_similarity(rows, label.long())
        assert loss.item() == 0
        assert torch.autograd.grad(loss, rows)[0].abs().sum() == 0

    def test_an_image_twice_in_a_batch_has_finite_gradients(self):
        rows = EMBEDDING.repeat_interleave(2, 0).requires_grad_()
        loss = multi_similarity(rows, IDENTITY.repeat_interleave(2))
        assert torch.autograd.grad(loss, rows)[0].isfinite().all()

    def test_an_empty_batch_costs_nothing(self):
        rows = EMBEDDING[:0].clone().requires_grad_()
        losses = multi_similarity(rows, IDENTITY[:0]), batch_nuclear_norm(rows)
        assert [loss.item() for loss in losses] == [0, 0]


def crowd(people=6, images=8, outliers=3, seed=0):
    """Return features of some people, each near a point, then of outliers, each alone."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(people, 16, generator=generator).repeat_interleave(images, 0)
    seen = centres + 0.1 * torch.randn(centres.shape, generator=generator)
    return torch.cat([seen, 3 * torch.randn(outliers, 16, generator=generator)])


class TestJaccardDistance:
    def test_it_is_what_re_ranking_mixes_in(self):
        features = crowd()
        distance = squared_euclidean(features, features).sqrt()
        whole = jaccard_distance(distance, k1=7, k2=3)
        for count in (1, 20, 50):
            parts = distance[:count, :count], distance[:count, count:], distance[count:, count:]
            mixed = rerank(*parts, k1=7, k2=3, lambda_value=0.0)
            torch.testing.assert_close(whole[:count, count:], mixed)

    def test_an_image_is_at_no_distance_from_itself(self):
        distance = jaccard_distance(squared_euclidean(crowd(), crowd()).sqrt())
        torch.testing.assert_close(distance.diagonal(), torch.zeros(len(distance)))
        torch.testing.assert_close(distance, distance.T)

    def test_wrong_arguments_are_refused(self):
        with pytest.raises(UserError, match="k1=0"):
            jaccard_distance(torch.rand(3, 3), k1=0)
        with pytest.raises(UserError, match=r"got \[2, 3\]"):
            jaccard_distance(torch.rand(2, 3))
        with pytest.raises(UserError, match="not finite"):
            jaccard_distance(torch.full((2, 2), math.nan))


class TestClustering:
    def test_people_become_clusters_and_strangers_outliers(self):
        clustering = Clustering(k1=7, k2=3)
        label = clustering.labels(clustering.distance(crowd()), 0.3)
        assert label[48:].tolist() == [OUTLIER] * 3
        assert label[:48].view(6, 8).tolist() == [[person] * 8 for person in label[:48:8].tolist()]
        assert sorted(label[:48:8].tolist()) == list(range(6))

    def test_the_length_of_features_counts_nothing(self):
        lengths = torch.rand(51, 1, generator=torch.Generator().manual_seed(0)) + 0.5
        distances = [Clustering().distance(features) for features in (crowd(), lengths * crowd())]
        torch.testing.assert_close(*distances, atol=1e-4, rtol=0)

    def test_the_radius_is_the_mean_of_the_nearest_pairs(self):
        values = np.random.default_rng(0).random((30, 30))
        values[0, 1:6] = 0  # of images that are alike; they do not count
        nonzero = np.triu(values, 1)[np.triu(values, 1) > 0]
        expected = np.sort(nonzero)[: round(0.05 * len(nonzero))].mean()
        found = Clustering(pair_share=0.05).radius(torch.from_numpy(values))
        assert found == pytest.approx(expected, rel=1e-12)
        assert Clustering(pair_share=1e-6).radius(torch.from_numpy(values)) == nonzero.min()

    def test_images_that_are_all_alike_have_no_radius(self):
        with pytest.raises(UserError, match=r"same neighbours.*adaptation\.k1"):
            Clustering().radius(torch.zeros(5, 5))

    def test_no_cluster_is_an_error_that_says_what_to_change(self):
        distance = 1 - torch.eye(6)
        with pytest.raises(UserError, match=r"no cluster among 6 images.*raise .*pair_share"):
            Clustering().labels(distance, 0.5)

    def test_there_are_at_most_half_as_many_clusters_as_images(self):
        # Cores 0 and 4 share the images between them as far as two samples allow.
        distance = 1 - torch.eye(5)
        for core, others in ((0, (1, 2, 3)), (4, (1, 2, 3))):
            for other in others:
                distance[core, other] = distance[other, core] = 0.1
        label = Clustering(min_samples=4).labels(distance, 0.2)
        assert label.unique().numel() <= 2

    def test_without_scikit_learn_the_error_names_the_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
        with pytest.raises(UserError, match=r"kd-reid\[adapt\]"):
            Clustering().labels(torch.zeros(5, 5), 0.5)

    @pytest.mark.parametrize("wrong", [{"pair_share": 0.0}, {"pair_share": 1}, {"min_samples": 1}])
    def test_wrong_numbers_are_refused(self, wrong):
        ((name, value),) = wrong.items()
        with pytest.raises(UserError, match=f"{name}: wanted a number .*, got {value}"):
            Clustering(**wrong)

    def test_centroids_are_normalised_means_without_outliers(self):
        features = torch.tensor([[1.0, 0], [0, 1], [9, 9], [0, 2]])
        found = centroids(features, torch.tensor([0, 0, OUTLIER, 1]))
        torch.testing.assert_close(found, torch.tensor([[0.5**0.5, 0.5**0.5], [0, 1]]))


class TestBatches:
    def sampler(self, **changed):
        settings = {"batch_size": 8, "instances": 4, "iterations": 5, "data_seed": 0}
        return ClusterSampler(20, **settings | changed)

    def test_every_batch_has_some_images_of_each_of_some_clusters(self):
        label = torch.tensor([0] * 6 + [OUTLIER] * 4 + [1] * 3 + [2] * 7)
        sampler = self.sampler()
        sampler.assign(label)
        order = sampler.order(3)
        assert len(order) == len(sampler) == 40
        for batch in (order % 20).split(8):
            assert sorted(label[batch].bincount(minlength=3).tolist()) == [0, 4, 4]

    def test_an_image_that_comes_again_is_numbered_so(self):
        sampler = self.sampler(iterations=20)
        sampler.assign(torch.tensor([0, 0, 1, 1, 1, *[OUTLIER] * 15]))
        order = sampler.order(0)
        assert set((order % 20).tolist()) == {0, 1, 2, 3, 4}
        assert len(order.unique()) == len(order) == 160

    def test_too_few_clusters_are_an_error_that_says_what_to_change(self):
        sampler = self.sampler()
        with pytest.raises(UserError, match=r"1 clusters: .*lower batch_size.*pair_share"):
            sampler.assign(torch.zeros(20, dtype=torch.int64))


FEW = {"num_train_ids": 2, "num_test_ids": 1, "num_cameras": 2, "images_per_camera": 2}


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    folder = tmp_path_factory.mktemp("domains")
    return [synthetic_people(folder / name, **FEW, domain=name) for name in ("day", "night")]


def colours(folder):
    """Return the mean colour of a set's images, [3]."""
    images = [np.asarray(Image.open(file)) for file in sorted(folder.rglob("*.jpg"))]
    return np.stack(images).mean((0, 1, 2))


class TestDomains:
    def test_night_is_darker_and_yellower_than_day(self, domains):
        day, night = map(colours, domains)
        assert night.mean() < day.mean()
        assert night[2] / night[0] < 0.8 * day[2] / day[0]

    def test_the_domain_is_part_of_what_a_folder_holds(self, domains):
        with pytest.raises(UserError, match=r"got .*'domain': 'day'"):
            synthetic_people(domains[0], **FEW, domain="night")

    def test_an_unknown_domain_is_refused(self, tmp_path):
        with pytest.raises(UserError, match=r"no domain 'nihgt'.*night"):
            synthetic_people(tmp_path / "set", domain="nihgt")
