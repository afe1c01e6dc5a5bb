import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.ft import FT, Paraphraser, ft
from kd_core.errors import UserError
from kd_core.files.weights import load_weights
from kd_core.testing import fill, make, signals

STUDENT, TEACHER = signals((4, 6, 8, 8), 0.7, 0.3), signals((4, 6, 8, 8), 0.7, 0.8)
WIDE = signals((4, 12, 8, 8), 0.7, 0.4)
SHAPES = ((6, 8, 8),), ((12, 8, 8),)


def test_equals_the_value_of_the_authors_code(golden):
    golden(ft(STUDENT, TEACHER), 0.016826822466235302)
    criterion = FT(*SHAPES)
    fill(criterion.paraphraser)
    fill(criterion.translator)
    golden(criterion((STUDENT,), (WIDE,), {}).detach(), 0.0831390525413579)


def test_paraphraser_equals_the_value_of_the_authors_code(golden):
    criterion = Paraphraser(SHAPES[1])
    fill(criterion)
    golden(criterion((), (WIDE,), {}).detach(), 576.847339031664)


def slow_factor(sample):
    """One sample [C, H, W] in plain Python: mean square of the channels, as a unit vector."""
    places = zip(*(channel.flatten().tolist() for channel in sample), strict=True)
    squares = [sum(value**2 for value in place) / len(place) for place in places]
    return [value / sum(v**2 for v in squares) ** 0.5 for value in squares]


def test_equals_the_equation_written_as_a_loop():
    student = F.adaptive_avg_pool2d(STUDENT, 4)
    teacher = signals((4, 3, 4, 4), 1.1, 0.2)
    expected = 0.0
    for s, t in zip(student, teacher, strict=True):
        pairs = zip(slow_factor(s), slow_factor(t), strict=True)
        expected += sum(abs(a - b) for a, b in pairs) / (4 * 16)
    assert ft(STUDENT, teacher).item() == pytest.approx(expected, rel=1e-12)
    assert ft(teacher, STUDENT).item() == pytest.approx(expected, rel=1e-12)


def test_powers_are_those_of_factors_and_of_the_difference():
    difference = F.normalize((STUDENT**4).mean(1).flatten(1)) - F.normalize(
        (TEACHER**4).mean(1).flatten(1)
    )
    torch.testing.assert_close(ft(STUDENT, TEACHER, p1=4, p2=2), (difference**2).mean())


def test_levels_are_summed():
    both = ft((STUDENT, STUDENT[:2]), (TEACHER, WIDE[:2]))
    torch.testing.assert_close(both, ft(STUDENT, TEACHER) + ft(STUDENT[:2], WIDE[:2]))


def test_gradient_is_that_of_finite_differences():
    student, teacher = STUDENT[:2, :2, :3, :3], TEACHER[:2, :2, :3, :3]
    assert torch.autograd.gradcheck(
        lambda maps: ft(maps, teacher), student.clone().requires_grad_()
    )


def test_a_dead_map_gives_a_finite_gradient():
    student = torch.zeros(4, 6, 8, 8, requires_grad=True)
    ft(student, TEACHER).backward()
    assert student.grad.isfinite().all()


def test_paraphraser_keeps_the_size_and_halves_the_channels():
    paraphraser = Paraphraser(((7, 5, 3),)).paraphraser
    factor = paraphraser.encoder(torch.randn(2, 7, 5, 3))
    assert factor.shape == (2, 3, 5, 3)
    assert paraphraser.decoder(factor).shape == (2, 7, 5, 3)
    assert Paraphraser(((1, 5, 3),)).paraphraser.factors == 1
    assert Paraphraser(((8, 5, 3),), rate=0.25).paraphraser.factors == 2


def test_layers_have_as_many_parameters_as_the_paper_draws():
    criterion = FT(*SHAPES)
    counts = [sum(p.numel() for p in part.parameters()) for part in criterion.children()]
    half = 6 * 6 * 9 + 6  # a convolution between factors
    encoder = (12 * 12 * 9 + 12) + (12 * 6 * 9 + 6) + half
    decoder = half + (6 * 12 * 9 + 12) + (12 * 12 * 9 + 12)
    translator = 3 * half + 3 * 2 * 6  # the student has as many channels as a factor
    assert counts == [encoder + decoder, translator]


def test_the_translator_has_a_layer_of_the_students_width_and_two_of_the_factors():
    widths = [
        (layer.in_channels, layer.out_channels)
        for layer in FT(((5, 8, 8),), ((12, 8, 8),)).translator.modules()
        if isinstance(layer, torch.nn.Conv2d)
    ]
    assert widths == [(5, 5), (5, 6), (6, 6)]


def test_what_the_first_stage_has_trained_is_loaded_frozen_and_left_in_eval_mode(tmp_path):
    first, second = Paraphraser(SHAPES[1]), FT(*SHAPES)
    torch.save(first.state_dict(), tmp_path / "paraphrase.pth")
    load_weights(second, tmp_path / "paraphrase.pth", parts=True)
    assert {name.partition(".")[0] for name in first.state_dict()} == {"paraphraser"}
    for name, value in first.paraphraser.state_dict().items():
        assert torch.equal(second.paraphraser.state_dict()[name], value)
    assert second.train().translator.training
    assert not second.paraphraser.training
    assert not any(parameter.requires_grad for parameter in second.paraphraser.parameters())
    second((STUDENT.float(),), (WIDE.float(),), {}).backward()
    assert all(parameter.grad is None for parameter in second.paraphraser.parameters())


def test_several_maps_are_refused_at_construction():
    with pytest.raises(UserError, match="FT takes one map, got 2; tap the last"):
        FT(SHAPES[0] * 2, SHAPES[1] * 2)
    with pytest.raises(UserError, match="Paraphraser takes one map, got 2"):
        Paraphraser(SHAPES[1] * 2)


def test_a_paraphraser_needs_no_student_and_minds_none():
    criterion = Paraphraser(SHAPES[1])
    criterion.check_shapes((), SHAPES[1])
    criterion.check_shapes(((100,),), SHAPES[1])
    with pytest.raises(UserError, match="Paraphraser takes maps"):
        criterion.check_shapes((), ((100,),))


def test_what_the_stage_before_trains_is_frozen_and_asked_for():
    assert FT.trained_before == ("paraphraser",)
    frozen = [name for name, p in make(FT).named_parameters() if not p.requires_grad]
    assert {name.partition(".")[0] for name in frozen} == {"paraphraser"}
