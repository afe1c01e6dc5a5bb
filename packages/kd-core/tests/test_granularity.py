"""MAG and MAS: codes of the pooled vector, and the mean of the teacher's three predictions."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.granularity import MultiGranularity, SelfAnalysis, granularity, stable_logits
from kd_core.criteria.kd import kd
from kd_core.errors import UserError
from kd_core.files.weights import load_weights
from kd_core.testing import signals

STUDENT, TEACHER = signals((4, 8), 0.7, 0.2, 2), signals((4, 8), 0.7, 0.7, 2)
LOGITS, SHOWN = signals((4, 10), 0.7, 0.3, 3), signals((4, 10), 0.7, 1.1, 4)
SHAPES = ((10,), (8,))


def test_codes_have_the_value_of_the_authors_code(golden):
    for temperature, reference in ((2.0, 0.2159206174385298), (8.0, 0.24239218621127945)):
        golden(granularity([STUDENT], [TEACHER], temperatures=[temperature]), reference)
    both = granularity([STUDENT, STUDENT], [TEACHER, TEACHER])
    golden(both, 0.2159206174385298 + 0.24239218621127945)


def test_stable_excitation_has_the_value_of_the_authors_code(golden):
    decoded = [signals((4, 10), 0.7, 0.5, 3), signals((4, 10), 0.7, 0.8, 3.5)]
    golden(kd(LOGITS, stable_logits(SHOWN, decoded)), 0.6456743928972086)


def test_granularity_equals_the_equation_written_as_a_loop():
    expected = 0.0
    for temperature in (2.0, 8.0):
        for s, t in zip(STUDENT.tolist(), TEACHER.tolist(), strict=True):
            p, q = (
                [
                    math.exp(x / temperature) / sum(math.exp(y / temperature) for y in row)
                    for x in row
                ]
                for row in (s, t)
            )
            rows = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
            expected += temperature**2 * rows / 4
    value = granularity([STUDENT, STUDENT], [TEACHER, TEACHER]).item()
    assert value == pytest.approx(expected, rel=1e-12)


def test_its_gradient_is_right():
    student = [STUDENT.clone().requires_grad_(), (2 * STUDENT).requires_grad_()]

    def loss(*codes):
        return granularity(codes, [TEACHER, TEACHER])

    assert torch.autograd.gradcheck(loss, student)


def analysis(**options):
    torch.manual_seed(0)
    return SelfAnalysis(SHAPES, **options).double()


def test_the_analysis_learns_the_teachers_logits_and_the_labels():
    criterion, label = analysis(), torch.tensor([3, 0, 7, 3])
    expected = 0.0
    for encoder, decoder, temperature in zip(
        criterion.teacher_encoders, criterion.teacher_decoders, (2.0, 8.0), strict=True
    ):
        decoded = decoder(encoder(TEACHER))
        expected = expected + kd(decoded, SHOWN, temperature=temperature)
        expected = expected + F.cross_entropy(decoded, label)
    loss = criterion(None, (SHOWN, TEACHER), {"label": label})
    torch.testing.assert_close(loss, expected)


def test_one_pass_with_the_sum_gives_the_gradients_of_two_passes():
    label = {"label": torch.tensor([3, 0, 7, 3])}
    both = analysis()
    both(None, (SHOWN, TEACHER), label).backward()
    for place, width in enumerate((64, 256)):
        alone = analysis(widths=[width], temperatures=[(2.0, 8.0)[place]])
        alone.teacher_encoders.load_state_dict(
            both.teacher_encoders[place : place + 1].state_dict()
        )
        alone.teacher_decoders.load_state_dict(
            both.teacher_decoders[place : place + 1].state_dict()
        )
        alone(None, (SHOWN, TEACHER), label).backward()
        expected = both.teacher_encoders[place][0].weight.grad
        torch.testing.assert_close(alone.teacher_encoders[0][0].weight.grad, expected)


def test_the_number_of_parameters_is_that_of_the_paper():
    criterion = SelfAnalysis(((100,), (256,)))
    counts = [
        sum(p.numel() for module in (encoder, decoder) for p in module.parameters())
        for encoder, decoder in zip(
            criterion.teacher_encoders, criterion.teacher_decoders, strict=True
        )
    ]
    assert counts == [124580, 223076]


@pytest.mark.parametrize("stable", [False, True])
def test_the_product_of_the_analysis_teaches_the_student(tmp_path, stable):
    torch.save(analysis().state_dict(), tmp_path / "analysis.pth")
    torch.manual_seed(1)
    criterion = MultiGranularity(((10,), (6,)), SHAPES, stable=stable, kd_weight=0.5).double()
    load_weights(criterion, tmp_path / "analysis.pth", parts=True)
    product, vectors = analysis(), signals((4, 6), 0.7, 0.2)
    wanted = [encoder(TEACHER) for encoder in product.teacher_encoders]
    target = SHOWN
    if stable:
        decoders = zip(product.teacher_decoders, wanted, strict=True)
        target = (SHOWN + sum(decoder(code) for decoder, code in decoders)) / 3
    codes = [encoder(vectors) for encoder in criterion.student_encoders]
    expected = granularity(codes, wanted) + 0.5 * kd(LOGITS, target)
    loss = criterion((LOGITS, vectors), (SHOWN, TEACHER), {})
    torch.testing.assert_close(loss, expected)
    loss.backward()
    trained = {name for name, p in criterion.named_parameters() if p.grad is not None}
    assert trained == {name for name, _ in criterion.named_parameters() if "student" in name}


def test_widths_and_temperatures_go_together():
    with pytest.raises(UserError, match="one temperature for each width"):
        SelfAnalysis(SHAPES, widths=[64])
    with pytest.raises(UserError, match="one of each for every granularity"):
        granularity([STUDENT], [TEACHER])
