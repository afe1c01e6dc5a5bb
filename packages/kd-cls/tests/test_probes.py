import math

import pytest
import torch
from kd_cls.probes import (
    few_label_accuracy,
    few_of_each_class,
    knn_accuracy,
    linear_accuracy,
    linear_classifier,
)
from kd_core.errors import UserError


def clouds(count, classes=3, size=5, seed=0, spread=1.5):
    """Features around one centre for each class, and labels."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, size, generator=torch.Generator().manual_seed(9))
    labels = torch.randint(classes, (count,), generator=generator)
    return centres[labels] + spread * torch.randn(count, size, generator=generator), labels


def slow_knn(train, test, k, temperature):
    right = 0
    for x, label in zip(*test, strict=True):
        cosines = [
            ((x @ y) / (x.norm() * y.norm())).item() if x.norm() * y.norm() else 0.0
            for y in train[0]
        ]
        nearest = sorted(range(len(cosines)), key=lambda n: -cosines[n])[:k]
        votes = {}
        for n in nearest:
            vote = math.exp(cosines[n] / temperature)
            votes[int(train[1][n])] = votes.get(int(train[1][n]), 0) + vote
        right += max(votes, key=votes.get) == int(label)
    return right / len(test[1])


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 1.0), (500, 0.5)])
def test_nearest_neighbours_vote_as_in_the_definition_written_as_a_loop(k, temperature):
    train, test = clouds(60), clouds(40, seed=1)
    found = knn_accuracy(train, test, neighbours=k, temperature=temperature)
    assert found.item() == pytest.approx(slow_knn(train, test, k, temperature))
    assert 0.34 < found.item() < 1


def test_the_weights_of_votes_matter():
    # Two far images of one class against a near one of another.
    train = torch.tensor([[1.0, 0.1], [0.2, 1.0], [0.2, 1.0]]), torch.tensor([0, 1, 1])
    test = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    assert knn_accuracy(train, test, neighbours=3).item() == 1
    assert knn_accuracy(train, test, neighbours=3, temperature=100).item() == 0


def test_votes_do_not_overflow_in_half_precision():
    train, test = clouds(60), clouds(40, seed=1)
    halves = [(x.half(), y) for x, y in (train, test)]
    assert knn_accuracy(*halves).item() == pytest.approx(knn_accuracy(train, test).item(), abs=0.03)
    assert 0.34 < knn_accuracy(train, test, temperature=1e-3).item() < 1


@pytest.mark.parametrize("c", [0.01, 1.0, 10.0])
def test_the_linear_classifier_is_that_of_scikit_learn(c):
    from sklearn.linear_model import LogisticRegression  # a second of imports
    from sklearn.preprocessing import StandardScaler

    train, test = clouds(120), clouds(80, seed=1)
    scaler = StandardScaler().fit(train[0].double())
    theirs = LogisticRegression(C=c, tol=1e-10, max_iter=5000)
    theirs.fit(scaler.transform(train[0].double()), train[1])
    ours = linear_classifier(torch.tensor(scaler.transform(train[0].double())), train[1], 3, c=c)
    assert torch.allclose(ours[:-1].T, torch.tensor(theirs.coef_), atol=2e-3)
    expected = theirs.score(scaler.transform(test[0].double()), test[1])
    assert linear_accuracy(train, test, c=c).item() == pytest.approx(expected)


def test_the_linear_probe_does_not_depend_on_scale_and_shift_and_bears_constant_features():
    train, test = clouds(80), clouds(60, seed=1)
    plain = linear_accuracy(train, test).item()
    scale = torch.tensor([1e-3, 1, 50, 3, 1e4])

    def moved(part):
        dead = torch.full((len(part[1]), 2), 0.7)
        return torch.cat([part[0].double() * scale + 5, dead, 0 * dead], 1), part[1]

    assert linear_accuracy(moved(train), moved(test)).item() == pytest.approx(plain)


def test_the_linear_probe_is_the_same_on_every_run():
    train = clouds(50)
    assert torch.equal(linear_classifier(*train, 3), linear_classifier(*train, 3))


def test_few_labels_are_of_each_class_and_grow_within_one_draw():
    labels = torch.tensor([0, 1, 1, 0, 2, 1, 0, 0, 1])
    two, three = (few_of_each_class(labels, shots, 4).tolist() for shots in (2, 3))
    assert sorted(labels[two].tolist()) == [0, 0, 1, 1, 2]  # all of a class that has fewer
    assert set(two) < set(three)
    assert two == sorted(two)
    assert any(two != few_of_each_class(labels, 2, seed).tolist() for seed in range(5))


def test_more_labels_make_a_better_probe():
    train, test = clouds(300, spread=0.8), clouds(300, seed=1, spread=0.8)
    few = few_label_accuracy(train, test, 1).item()
    assert few < few_label_accuracy(train, test, 20).item() <= 1
    each = [
        linear_accuracy((train[0][chosen], train[1][chosen]), test).item()
        for chosen in (few_of_each_class(train[1], 1, seed) for seed in (0, 1, 2))
    ]
    assert few == pytest.approx(sum(each) / 3)


@pytest.mark.parametrize("measure", [knn_accuracy, linear_accuracy])
def test_a_single_class_is_never_a_hundred_percent(measure):
    one = torch.randn(6, 4), torch.zeros(6, dtype=torch.int64)
    with pytest.raises(UserError, match="one class alone"):
        measure(one, one)


@pytest.mark.parametrize("measure", [knn_accuracy, linear_accuracy])
def test_features_that_are_not_finite_and_empty_parts_are_refused(measure):
    train, test = clouds(20), clouds(10, seed=1)
    bad = test[0].clone()
    bad[3, 2] = math.nan
    with pytest.raises(UserError, match="not finite"):
        measure(train, (bad, test[1]))
    with pytest.raises(UserError, match="no images"):
        measure(train, (test[0][:0], test[1][:0]))
