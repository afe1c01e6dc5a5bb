"""What a criterion checks of its inputs, and the precision in which it computes."""

import inspect

import pytest
import torch
from kd_core.config.locate import locate
from kd_core.criteria.criterion import Criterion
from kd_core.criteria.dkd import DKD
from kd_core.criteria.fitnet import FitNet
from kd_core.criteria.kd import KD
from kd_core.errors import UserError
from torch import nn

MAPS = ((4, 8, 8), (6, 4, 4))

TEMPERATURES = [
    ("kd.KD", "temperature"),
    ("dkd.DKD", "temperature"),
    ("nkd.NKD", "temperature"),
    ("wsld.WSLD", "temperature"),
    ("dist.DIST", "temperature"),
    ("skd.SKD", "temperature"),
    ("soft_label.SoftLabel", "temperature"),
    ("mlkd.MLKD", "temperatures"),
    ("mlkd.MLKD", "strong_temperatures"),
]


class Maps(Criterion):
    takes = "maps"


@pytest.mark.parametrize(
    ("criterion", "student", "teacher", "message"),
    [
        (KD(), ((10,),), ((100,),), "student has 10 classes, teacher 100"),
        (KD(), ((64, 8, 8),), ((10,),), r"a tap of the student gives \[N, 64, 8, 8\]"),
        (KD(), ((10,),), ((10,), (10,)), "the teacher has 2 taps"),
        (KD(), (), ((10,),), "the student has 0 taps"),
        (KD(), (None,), ((10,),), "gives no tensor"),
        (Maps(), (MAPS,), (MAPS,), "gives several tensors"),
        (Maps(), MAPS, MAPS[:1], "2 taps of the student, 1 of the teacher"),
        (Maps(), ((5, 6),), ((5, 6),), r"Maps takes maps \[N, C, H, W\]"),
        (KD(standardize=True), ((2,),), ((2,),), "at least 3 classes"),
        (DKD(standardize=True), ((2,),), ((2,),), "at least 3 classes"),
    ],
)
def test_unfit_shapes_are_refused_with_what_was_wanted_and_what_came(
    criterion, student, teacher, message
):
    with pytest.raises(UserError, match=message):
        criterion.check_shapes(student, teacher)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({}, r"Own: its class attribute `takes` is missing; .*logits, vectors"),
        ({"takes": "logit"}, "`takes` is 'logit'"),
        ({"takes": ["vectors"]}, r"`takes` is \['vectors'\]"),
        ({"takes": ()}, "`takes` is missing"),
        ({"takes": None}, "`takes` is missing"),
        ({"takes": ("vectors", "map")}, r"`takes` is \('vectors', 'map'\)"),
        ({"takes": "logits", "teacher_takes": "vector"}, "`teacher_takes` is 'vector'"),
    ],
)
def test_a_class_that_does_not_say_what_it_is_fed_is_refused(own, message):
    with pytest.raises(UserError, match=message):
        type("Own", (Criterion,), own)()


@pytest.mark.parametrize(
    "forward",
    [lambda self, student, teacher: 0, lambda self, *, batch: 0, lambda self, a, b, c, d: 0],
)
def test_a_forward_that_cannot_take_what_it_is_given_is_refused(forward):
    with pytest.raises(
        UserError, match=r"Own: .* takes \(.*; wanted \(self, student, teacher, batch\)"
    ):
        type("Own", (Criterion,), {"takes": "logits", "forward": forward})()


@pytest.mark.parametrize(
    "forward",
    [
        lambda *all: 0,
        lambda self, a, b, c, d=1, **more: 0,
        staticmethod(lambda student, teacher, batch: 0),
    ],
)
def test_one_that_takes_more_is_not(forward):
    type("Own", (Criterion,), {"takes": "logits", "forward": forward})()


@pytest.mark.parametrize(
    ("criterion", "shapes"),
    [(KD(), ((2,),)), (KD(standardize=True), ((3,),)), (Maps(), MAPS)],
)
def test_fit_shapes_pass(criterion, shapes):
    criterion.check_shapes(shapes, shapes)


def test_maps_may_differ_in_channels_and_size():
    Maps().check_shapes(((4, 8, 8),), ((9, 4, 4),))


def test_adapters_run_in_float32_under_autocast():
    criterion = FitNet(((4, 8, 8),), ((6, 8, 8),))
    seen = []
    criterion.regressors[0][0].register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    student = torch.randn(2, 4, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        criterion((student,), (torch.randn(2, 6, 8, 8, dtype=torch.bfloat16),), {}).backward()
    assert seen == [torch.float32]
    assert student.grad.dtype == torch.bfloat16


def test_the_student_is_what_is_deployed_and_binding_changes_nothing():
    criterion, student = KD(), nn.Linear(2, 3)
    criterion.bind(student, nn.Linear(2, 3), (["output"], ["output"]))
    assert criterion.deploy(student) is student
    assert not list(criterion.parameters())


class Pair(Criterion):
    """Takes logits and a vector."""

    takes = ("logits", "vectors")

    def forward(self, student, teacher, batch):
        return sum((s - t.detach()).mean() for s, t in zip(student, teacher, strict=True))


def test_a_tuple_of_kinds_takes_one_tensor_of_each():
    Pair().check_shapes(((10,), (4,)), ((10,), (6,)))
    with pytest.raises(UserError, match="student has 10 classes, teacher 5"):
        Pair().check_shapes(((10,), (4,)), ((5,), (6,)))
    with pytest.raises(UserError, match=r"one tensor \[N, C\] and one tensor \[N, D\] of each"):
        Pair().check_shapes(((10,),), ((10,), (6,)))
    with pytest.raises(UserError, match=r"takes vectors \[N, D\], but .* gives \[N, 4, 8, 8\]"):
        Pair().check_shapes(((10,), (4, 8, 8)), ((10,), (6,)))


def test_a_label_of_mixed_images_is_refused_but_methods_without_labels_take_them():
    logits = torch.randn(4, 5)
    batch = {"label": torch.arange(4), "index": torch.arange(4), "mixed_labels": torch.ones(4, 2)}
    with pytest.raises(UserError, match="DKD needs one label for every image, but these are mixed"):
        DKD()(logits, logits + 1, batch)
    assert KD()(logits, logits, batch) == 0
    del batch["mixed_labels"]
    assert DKD()(logits, logits, batch).isfinite()


@pytest.mark.parametrize("key", ["label", "index"])
def test_an_entry_of_unlabelled_mixed_images_is_refused(key):
    class Reader(Criterion):
        takes = "logits"

        def forward(self, student, teacher, batch):
            return student.sum() + batch[key].sum()

    batch = {"index": torch.arange(4), "mixed_weights": torch.ones(4, 2)}
    with pytest.raises(UserError, match=f"needs one {key} for every image, but these are mixed"):
        Reader()(torch.zeros(4, 5), torch.zeros(4, 5), batch)


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), float("inf"), "4", True])
@pytest.mark.parametrize("name", sorted({name for name, _ in TEMPERATURES}))
def test_a_temperature_that_nothing_can_be_divided_by_is_refused(name, wrong):
    for criterion, option in TEMPERATURES:
        if criterion == name:
            kind = locate(f"kd_core.criteria.{name}")
            given = inspect.signature(kind).parameters[option].default
            value = (wrong,) * len(given) if isinstance(given, tuple) else wrong
            with pytest.raises(UserError, match=f"{option}: wanted "):
                kind(**{option: value})
