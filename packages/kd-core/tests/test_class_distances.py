import pytest
import torch
from kd_core.criteria import class_distances
from kd_core.criteria.class_distances import (
    ClassDistances,
    cka_distance,
    classifier_distance,
    sharpened,
)
from kd_core.errors import UserError
from kd_core.testing.golden_inputs import normal, probe
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

LABELS = torch.tensor([1, 0, 2, 1, 0, 1, 2, 0, 1])  # 3, 4 and 2 images
LOGITS = normal("distances", 9, 3)


def test_distances_equal_those_of_the_authors_code(golden):
    distance = cka_distance(normal("c.cka", 4, 9, 5))
    golden(distance.sum(), 7.7191441563)
    golden(probe(distance), 1.76984298198)
    golden(probe(sharpened(distance, 2.0)), 1.84200381014)


def slow_distance(x, y):
    """1 - CKA of two classes, [images, D] each, by the products of their features."""
    x, y = ((side - side.mean(0)).tolist() for side in (x, y))

    def square(a, b):
        columns = [list(zip(*side, strict=True)) for side in (a, b)]
        products = [
            sum(p * q for p, q in zip(c, d, strict=True)) for c in columns[0] for d in columns[1]
        ]
        return sum(product**2 for product in products)

    return 1 - square(x, y) / (square(x, x) * square(y, y)) ** 0.5


@pytest.mark.parametrize("most", [1, 2**26], ids=["in parts", "at once"])
def test_distances_equal_the_equation_written_as_a_loop(most, monkeypatch):
    monkeypatch.setattr(class_distances, "_MOST", most)
    features = normal("cka", 3, 5, 4)
    expected = [
        [0 if i == j else slow_distance(x, y) for j, y in enumerate(features)]
        for i, x in enumerate(features)
    ]
    torch.testing.assert_close(cka_distance(features), torch.tensor(expected, dtype=torch.float64))


def test_a_class_of_equal_logits_is_far_from_all_others():
    features = normal("cka", 3, 5, 4)
    features[1] = 2.0
    distance = cka_distance(features)
    assert distance[1].tolist() == distance[:, 1].tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("shape", [(3, 1, 4), (3, 4)])
def test_one_image_of_a_class_is_refused(shape):
    with pytest.raises(UserError, match="at least two images of every class"):
        cka_distance(torch.zeros(shape))


def collected(criterion, *parts):
    for part in parts:
        index = torch.tensor(part)
        logits = nn.functional.pad(LOGITS[index].float(), (0, len(criterion.logits[0]) - 3))
        criterion(None, logits, {"index": index})
    return criterion.product()["cost"]


def test_as_many_images_of_every_class_count_in_the_order_of_the_set():
    wanted = torch.stack([LOGITS[[1, 4]], LOGITS[[0, 3]], LOGITS[[2, 6]]]).float()
    expected = sharpened(cka_distance(wanted), 2.0)
    for parts in (([8, 3, 0, 7], [2, 1, 6, 5, 4]), ([*range(9)],)):
        found = collected(ClassDistances(3, LABELS, sharpness=2.0), *parts)
        torch.testing.assert_close(found, expected)


def test_at_most_so_many_images_count():
    labels = LABELS.clone()
    labels[7:] = 2  # 2, 3 and 4 images
    first = collected(ClassDistances(3, labels, images=2), [*range(9)])
    torch.testing.assert_close(first, collected(ClassDistances(3, labels), [*range(7)]))


def test_an_image_that_was_left_out_leaves_its_place_out_in_all_classes():
    labels = torch.arange(9) % 3
    wanted = torch.stack([LOGITS[[c, 6 + c]] for c in range(3)]).float()
    criterion = ClassDistances(3, labels)
    found = collected(criterion, [0, 1, 2, 3, 5, 6, 7, 8])
    torch.testing.assert_close(found, sharpened(cka_distance(wanted), 1.0))


def test_an_epoch_that_is_resumed_forgets_nothing():
    whole = collected(ClassDistances(3, LABELS), [*range(9)])
    first, second = ClassDistances(3, LABELS), ClassDistances(3, LABELS)
    collected(first, [0, 1, 2, 3, 4, 6])
    second.load_state_dict(first.state_dict())
    assert torch.equal(collected(second, [5, 7, 8]), whole)


def test_a_class_of_one_image_or_none_is_far_from_all_others_and_told(capsys):
    labels = torch.tensor([4, 0, 2, 4, 0, 4, 2, 0, 1])  # none of class 3, one of class 1
    found = collected(ClassDistances(5, labels), [*range(9)])
    assert "2 of 5 classes have fewer than two training images" in capsys.readouterr().err
    far = sharpened(torch.ones(()), 1.0)
    for few in (1, 3):
        expected = far.repeat(5)
        expected[few] = 0
        assert torch.equal(found[few], expected)
        assert torch.equal(found[:, few], expected)
    wanted = torch.stack([LOGITS[[1, 4]], LOGITS[[2, 6]], LOGITS[[0, 3]]]).float()
    known = torch.tensor([0, 2, 4])
    rest = sharpened(cka_distance(wanted), 1.0)
    torch.testing.assert_close(found[known[:, None], known], rest)
    nobody = collected(ClassDistances(9, torch.arange(9)), [*range(9)])
    assert torch.equal(nobody, far * (1 - torch.eye(9)))


def test_several_labels_an_image_are_refused():
    with pytest.raises(UserError, match="one label an image"):
        ClassDistances(3, torch.zeros(4, 3))


def test_a_classifier_may_be_a_convolution():
    network = nn.Sequential(nn.Conv2d(4, 3, 1), nn.Linear(3, 2), nn.Conv2d(3, 3, 3))
    rows = network[0].weight.detach().flatten(1)
    expected = 1 - torch.cosine_similarity(rows[:, None], rows[None], dim=2)
    torch.testing.assert_close(classifier_distance(network, 3), expected.clamp(min=0))


@pytest.mark.parametrize("most", [40, 2**26])
@pytest.mark.parametrize("shape", [(7, 6, 7), (20, 12, 20)])
def test_a_few_classes_at_a_time_give_the_bits_of_all_at_once(shape, most, monkeypatch):
    monkeypatch.setattr(class_distances, "_MOST", most)
    monkeypatch.setattr(class_distances, "_CENTRED", 3 * shape[1] * shape[2])
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    kept = torch.arange(shape[1]) % 3 > 0
    for given, chosen in ((None, features), (kept, features[:, kept])):
        centred = chosen - chosen.mean(1, keepdim=True)
        classes, images, _ = chosen.shape
        products = torch.zeros(classes, classes)
        for part in centred.split(max(1, most // (classes * images)), 1):
            grams = (part @ centred.mT).flatten(1)
            products += grams @ grams.T
        norms = products.diagonal().sqrt()
        expected = (1 - products / norms.outer(norms)).clamp(min=0).fill_diagonal_(0)
        assert torch.equal(cka_distance(features, given), expected)


def test_the_product_copies_no_logits(monkeypatch):
    """Beside the logits there are never more than a few classes of them."""
    labels = torch.arange(40).repeat(9)
    labels[-1] = 0  # another class has an image less
    criterion = ClassDistances(43, torch.cat([labels, torch.tensor([41, 42])]), images=8)
    monkeypatch.setattr(class_distances, "_CENTRED", 1, raising=False)
    largest = []

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest.append(out.untyped_storage().nbytes())
            return out

    criterion.is_filled.fill_(1)
    kept = criterion.logits.untyped_storage().nbytes()
    with Watched():
        criterion.product()
    assert max(size for size in largest if size != kept) < kept / 3  # a view of them has their size


def test_classes_that_are_not_compared_take_no_room():
    labels = torch.tensor([4, 0, 2, 4, 0, 4, 2, 0, 1])
    assert len(ClassDistances(900, labels).logits) == 3 * 2 + 1
