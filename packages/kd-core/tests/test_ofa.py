import pytest
from kd_core.criteria.ofa import OFA, OFAStage, ofa
from kd_core.testing.golden_inputs import fill_with_sines, integers, normal, value_and_gradients


@pytest.mark.parametrize(
    ("eps", "value", "norm", "sines"),
    [
        (1.0, 3.04367708542, 0.321586159295, 0.106761743896),
        (1.5, 2.13291122026, 0.264051059585, 0.067973588171),
    ],
)
def test_equals_the_value_and_gradient_of_the_authors_code(eps, value, norm, sines, golden):
    teacher, label = normal("c.ofa.t", 6, 10, scale=3), integers("c.ofa.y", 6, high=10)
    student = [normal("c.ofa.s", 6, 10, scale=2)]
    for loss in (
        lambda s: ofa(s, teacher, label, eps=eps),
        lambda s: OFA(eps=eps)(s, teacher, {"label": label}),
    ):
        found, gradients = value_and_gradients(loss, student)
        for one, reference in zip((found, *gradients[0]), (value, norm, sines), strict=True):
            golden(one, reference)


@pytest.mark.parametrize(
    ("key", "shape", "arguments", "value", "norm", "sines"),
    [
        (
            "2",
            (4, 4, 8, 8),
            {"stage": 2, "width": 8},
            2.28056627381,
            0.0100094233109,
            0.0112845106492,
        ),
        (
            "4",
            (4, 6, 3, 3),
            {"stage": 4, "width": 8},
            2.29647338526,
            0.000321246673517,
            3.25251589382e-05,
        ),
        (
            "v3",
            (3, 50, 8),
            {"stage": 3, "prefix": 1},
            2.31789064126,
            0.0342448255813,
            0.0114231576861,
        ),
    ],
    ids=["map", "last map", "tokens"],
)
def test_a_stage_equals_the_value_and_gradient_of_the_authors_code(
    key, shape, arguments, value, norm, sines, golden
):
    rows = shape[0]
    teacher, label = (
        normal(f"c.ofa{key}.t", rows, 10, scale=3),
        integers(f"c.ofa{key}.y", rows, high=10),
    )
    criterion = fill_with_sines(OFAStage((shape[1:],), ((10,),), 10, eps=1.0, **arguments))
    found, gradients = value_and_gradients(
        lambda s: criterion((s,), (teacher,), {"label": label}), [normal(f"c.ofa{key}.m", *shape)]
    )
    for one, reference in zip((found, *gradients[0]), (value, norm, sines), strict=True):
        golden(one, reference)
