import math

import pytest
import torch
from kd_core.criteria.ctkd import CTKD
from kd_core.criteria.kd import kd
from kd_core.errors import UserError
from kd_core.testing import signals

LOGITS = signals((4, 10), 0.7, 0.3, 3), signals((4, 10), 0.7, 1.1, 4)
FIRST_TEMPERATURE = 15.6212  # 1 + 20 * sigmoid(1)


GRADIENTS = {1: -0.0003101994674857797, 5: -0.006337911484937144, 50: -0.012675822969874288}
"""Theta's gradient by epoch, from 1, that the authors' code gives (their cosine from 0 to -1)."""


def batch(epoch):
    return {"epoch": torch.tensor(float(epoch))}


def kd_at(theta, standardize=False):
    temperature = 1 + 20 / (1 + math.exp(-theta))
    return kd(*LOGITS, temperature=temperature, standardize=standardize).item()


@pytest.mark.parametrize(("epoch", "gradient"), GRADIENTS.items())
def test_equals_the_value_and_the_gradient_of_the_authors_code(epoch, gradient, golden):
    criterion = CTKD().double()
    loss = criterion(*LOGITS, {"epoch": torch.tensor(epoch - 1.0, dtype=torch.float64)})
    loss.backward()
    golden(loss.detach(), 1.9964086610576213)
    golden(criterion.theta.grad, gradient)


def test_equals_the_value_of_the_authors_code_at_another_temperature(golden):
    criterion = CTKD().double()
    criterion.theta.data.fill_(-0.5)
    loss = criterion(*LOGITS, {"epoch": torch.tensor(2.0, dtype=torch.float64)})
    loss.backward()
    golden(loss.detach(), 1.9441161630979102)
    golden(criterion.theta.grad, -0.015557237752696797)


@pytest.mark.parametrize("standardize", [False, True])
def test_it_starts_as_kd_at_the_first_temperature(standardize):
    loss = CTKD(standardize=standardize)(*LOGITS, batch(0))
    expected = kd(*LOGITS, temperature=FIRST_TEMPERATURE, standardize=standardize)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_it_has_one_parameter():
    assert [(name, p.numel()) for name, p in CTKD().named_parameters()] == [("theta", 1)]


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(0, -0.02447), (0.9, -0.02447), (1, -0.09549), (4, -0.5), (4.99, -0.5), (9, -1), (50, -1)],
)
@pytest.mark.parametrize("standardize", [False, True])
def test_theta_gets_its_gradient_times_the_factor_of_the_epoch(epoch, factor, standardize):
    criterion = CTKD(standardize=standardize).double()
    criterion(*LOGITS, batch(epoch)).backward()
    slope = (kd_at(1 + 1e-5, standardize) - kd_at(1 - 1e-5, standardize)) / 2e-5
    assert slope != 0
    assert criterion.theta.grad.item() == pytest.approx(factor * slope, rel=1e-3)


def test_the_ramp_can_be_of_another_length():
    gradients = []
    for epochs, epoch in ((10, 4), (2, 0)):  # both are in the middle
        criterion = CTKD(ramp_epochs=epochs)
        criterion(*LOGITS, batch(epoch)).backward()
        gradients.append(criterion.theta.grad)
    torch.testing.assert_close(*gradients)


def test_descent_of_theta_raises_kd():
    criterion = CTKD().double()
    before = criterion(*LOGITS, batch(20))
    before.backward()
    criterion.theta.data -= criterion.theta.grad
    assert criterion(*LOGITS, batch(20)) > before


def test_gradient_of_the_student_is_that_of_finite_differences_in_every_epoch():
    student, teacher = LOGITS
    for epoch in (0, 20):
        assert torch.autograd.gradcheck(
            lambda logits, epoch=epoch: CTKD()(logits, teacher, batch(epoch)),
            student.clone().requires_grad_(),
        )


def test_a_batch_without_epoch_is_refused():
    with pytest.raises(UserError, match=r"CTKD needs batch\['epoch'\], the epochs done so far"):
        CTKD()(*LOGITS, {})


def test_two_classes_are_not_standardised():
    with pytest.raises(UserError, match="standardize=True needs at least 3 classes, there are 2"):
        CTKD(standardize=True).check_shapes(((2,),), ((2,),))
