"""t-SNE keeps apart what is far apart, and is always the same."""

import sys

import numpy as np
import pytest
from kd_core.errors import UserError
from kd_core.experiment.pictures import tsne


def test_classes_far_apart_stay_apart():
    generator = np.random.default_rng(0)
    label = np.arange(40) % 2
    points = tsne.embed(generator.normal(size=(40, 6)) + 50 * label[:, None], perplexity=5)
    assert points.shape == (40, 2)
    distance = np.linalg.norm(points[:, None] - points, axis=-1) + 1e9 * np.eye(40)
    assert (label[distance.argmin(1)] == label).all()


def test_it_is_always_the_same():
    features = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
    np.testing.assert_array_equal(tsne.embed(features), tsne.embed(features))


def test_too_few_or_broken_features_are_refused():
    with pytest.raises(UserError, match="t-SNE of 4 images"):
        tsne.embed(np.zeros((4, 3)))
    with pytest.raises(UserError, match="not finite"):
        tsne.embed(np.full((9, 3), np.nan))
    with pytest.raises(UserError, match="--perplexity 0: wanted"):
        tsne.embed(np.zeros((9, 3)), perplexity=0)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(UserError, match="t-SNE needs the package scikit-learn"):
        tsne.embed(np.zeros((9, 3)))
