from kd_core.criteria.vitkd import ViTKD
from kd_core.testing.golden_inputs import fill_with_sines, normal, uniform, value_and_gradients

KEY = "c.vitkd0"
GRADIENTS = (
    (2.31926462839e-05, -4.08602838423e-06),
    (2.24677473108e-05, 1.43335024507e-05),
    (3.25391138317e-07, -4.55816091305e-07),
)


def test_equals_the_value_and_gradients_of_the_authors_code(golden):
    student, teacher = (
        [normal(f"{KEY}.{side}{place}", 3, 16, width) for place in range(3)]
        for side, width in (("s", 4), ("t", 6))
    )
    criterion = fill_with_sines(ViTKD(((16, 4),) * 3, ((16, 6),) * 3))
    batch = {"noise": uniform(f"{KEY}.u", 3, 16)}
    value, gradients = value_and_gradients(lambda *s: criterion(s, teacher, batch), student)
    golden(value, 0.0062005765219)
    for found, reference in zip(gradients, GRADIENTS, strict=True):
        for one, other in zip(found, reference, strict=True):
            golden(one, other)
