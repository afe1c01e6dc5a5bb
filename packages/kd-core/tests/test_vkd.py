import pytest
from kd_core.criteria.vkd import VkD
from kd_core.testing.golden_inputs import normal, orthogonal, value_and_gradients


@pytest.mark.parametrize(
    ("normalize", "key", "rows", "value", "norm", "sines"),
    [
        ("layer", "c.vkd0", 5, 1.49560445764, 0.137208891626, -0.0897968072439),
        ("standard", "c.vkd1", 6, 0.805573100336, 0.0470018580171, -0.0195687721015),
    ],
)
def test_equals_the_value_and_gradient_of_the_authors_code(
    normalize, key, rows, value, norm, sines, golden
):
    criterion = VkD(((4,),), ((7,),), normalize=normalize).double()
    criterion.projector.weight = orthogonal(f"{key}.w", 7, 4)
    teacher = normal(f"{key}.t", rows, 7, scale=3)
    found, gradients = value_and_gradients(
        lambda s: criterion(s, teacher, {}), [normal(f"{key}.s", rows, 4, scale=2)]
    )
    for one, reference in zip((found, *gradients[0]), (value, norm, sines), strict=True):
        golden(one, reference)
