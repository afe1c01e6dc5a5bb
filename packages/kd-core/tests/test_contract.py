"""Every criterion keeps every rule, and every rule catches a criterion that breaks it."""

from typing import ClassVar

import pytest
import torch
from kd_core.criteria.criterion import Criterion
from kd_core.errors import UserError
from kd_core.functional import batch_mean
from kd_core.testing import RULES, check_contract, contract, discover, make, sample
from torch import nn


@pytest.mark.parametrize("cls", discover(), ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_criterion_keeps_the_rule(rule, cls):
    if rule.__name__ in cls.exempt:
        pytest.skip(cls.exempt[rule.__name__])
    rule(cls)


class Sound(Criterion):
    """A sum of squares, from which the broken ones below differ in one thing each."""

    takes = "vectors"

    def forward(self, student, teacher, batch):
        return batch_mean((student - teacher.detach()).square())


class LeaksIntoTheTeacher(Sound):
    def forward(self, student, teacher, batch):
        return batch_mean((student - teacher).square())


class IgnoresTheStudent(Sound):
    def forward(self, student, teacher, batch):
        return super().forward(student.detach(), teacher, batch) + 0 * student.sum()


class IgnoresItsAdapter(Sound):
    def __init__(self):
        super().__init__()
        self.adapter = nn.Linear(6, 6)


class DoesNotEndAtZero(Sound):
    def forward(self, student, teacher, batch):
        return super().forward(student, teacher, batch) + 1


class IsSteepAtTheEnd(Sound):
    def forward(self, student, teacher, batch):
        return super().forward(student, teacher, batch).sqrt()


class PrefersTheFirstSample(Sound):
    def forward(self, student, teacher, batch):
        return super().forward(student, teacher, batch) + (student - teacher.detach())[:1].sum()


class DividesByTheBatch(Sound):
    def forward(self, student, teacher, batch):
        return (student - teacher.detach()).square().mean()


class NeedsTwoSamples(Sound):
    def forward(self, student, teacher, batch):
        return (student - teacher.detach()).square().sum() / (len(student) - 1)


class DividesByTheOtherClasses(Sound):
    def forward(self, student, teacher, batch):
        other = batch["label"][:, None] != batch["label"]
        mean = (student @ student.mT * other).sum() / other.sum()
        return super().forward(student, teacher, batch) + 0 * mean


class TakesTheRootOfADistance(Sound):
    def forward(self, student, teacher, batch):
        distances = (student[:1] - student[1:]).square().sum(1).sqrt()
        return super().forward(student, teacher, batch) + 0 * distances.sum()


class TakesTheLogarithmOfProbabilities(Sound):
    takes = "logits"

    def forward(self, student, teacher, batch):
        p, q = student.softmax(1), teacher.detach().softmax(1)
        return batch_mean(q * (q / p).log())


class DividesSquares(Sound):
    def forward(self, student, teacher, batch):
        student, teacher = (x**6 for x in (student, teacher.detach()))
        return batch_mean((student - teacher).square() / (student.square() + 1))


class HidesNaN(Sound):
    def forward(self, student, teacher, batch):
        return super().forward(student.nan_to_num(), teacher, batch)


class KeepsTheSamplesApart(Sound):
    def forward(self, student, teacher, batch):
        return (student - teacher.detach()).square().sum(1)


class RoundsToFloat32(Sound):
    def forward(self, student, teacher, batch):
        return super().forward(student, teacher, batch).float()


class ObeysAutocast(Sound):
    __call__ = nn.Module.__call__


class OverwritesItsInput(Sound):
    def forward(self, student, teacher, batch):
        return super().forward(student.mul_(1.5), teacher, batch)


class ForgetsItsState(Sound):
    def __init__(self):
        super().__init__()
        self.scale = torch.rand(())

    def forward(self, student, teacher, batch):
        return self.scale * super().forward(student, teacher, batch)


class DrawsAtRandom(Sound):
    def forward(self, student, teacher, batch):
        return super().forward(nn.functional.dropout(student), teacher, batch)


class ReadsBack(Sound):
    def forward(self, student, teacher, batch):
        loss = super().forward(student, teacher, batch)
        return loss if loss > 1 else 2 * loss


class KeepsItsWeightOnTheHost(Sound):
    exempt: ClassVar = {"state_dict_keeps_the_value": "its weight never changes"}

    def __init__(self):
        super().__init__()
        self.share = torch.full((6,), 0.5)

    def forward(self, student, teacher, batch):
        return batch_mean((student - teacher.detach()).square() * self.share)


class TakesItsWeightFromTheHost(KeepsItsWeightOnTheHost):
    def forward(self, student, teacher, batch):
        return batch_mean((student - teacher.detach()).square() * self.share.to(student.device))


class MakesAConstantOnTheHost(Sound):
    def forward(self, student, teacher, batch):
        return super().forward(student, teacher, batch) * student.new_tensor([2.0]).sum()


class ChoosesTheWrongOnes(Sound):
    def forward(self, student, teacher, batch):
        wrong = (student.argmax(1) != batch["label"]).nonzero().flatten()
        return super().forward(student[wrong], teacher[wrong], batch)


class DrawsOnTheHost(Sound):
    def forward(self, student, teacher, batch):
        noise = torch.randn(student.shape, generator=torch.Generator().manual_seed(0))
        return super().forward(student + noise, teacher, batch)


class ReadsInItsDerivative(Sound):
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            return grad * 2 if grad.sum() > 0 else grad

    def forward(self, student, teacher, batch):
        return super().forward(self.Doubled.apply(student), teacher, batch)


class IsNotDocumented(Sound):
    __doc__ = None


class HidesAnArgument(Sound):
    """Has an argument of which nothing is said."""

    def __init__(self, *, power=2.0):
        super().__init__()
        self.power = power


def hastwodefaults(student, teacher, *, power=2.0):
    return batch_mean((student - teacher).abs() ** power)


class HasTwoDefaults(HidesAnArgument):
    def __init__(self, *, power=3.0):
        super().__init__(power=power)


class IsExemptFromNothing(Sound):
    exempt: ClassVar = {"zero_at_identiti": "misspelt"}


class IsExemptForNoReason(Sound):
    exempt: ClassVar = {"zero_at_identity": ""}


BROKEN = [
    (contract.loss_is_a_scalar, KeepsTheSamplesApart),
    (contract.gradient_reaches_the_student_only, LeaksIntoTheTeacher),
    (contract.gradient_reaches_the_student_only, IgnoresTheStudent),
    (contract.adapters_receive_gradient, IgnoresItsAdapter),
    (contract.zero_at_identity, DoesNotEndAtZero),
    (contract.zero_at_identity, IsSteepAtTheEnd),
    (contract.order_of_the_batch_does_not_matter, PrefersTheFirstSample),
    (contract.empty_batch_is_finite, DividesByTheBatch),
    (contract.single_sample_is_finite, NeedsTwoSamples),
    (contract.one_class_is_finite, DividesByTheOtherClasses),
    (contract.one_class_is_finite, TakesTheRootOfADistance),
    (contract.survives_extreme_logits, TakesTheLogarithmOfProbabilities),
    (contract.survives_extreme_logits, DividesSquares),
    (contract.nan_is_not_hidden, HidesNaN),
    (contract.result_has_the_precision_of_the_input, RoundsToFloat32),
    (contract.autocast_loses_nothing, ObeysAutocast),
    (contract.inputs_are_unchanged, OverwritesItsInput),
    (contract.state_dict_keeps_the_value, ForgetsItsState),
    (contract.two_calls_agree, DrawsAtRandom),
    (contract.nothing_is_read_back, ReadsBack),
    (contract.stays_on_the_gpu, KeepsItsWeightOnTheHost),
    (contract.stays_on_the_gpu, TakesItsWeightFromTheHost),
    (contract.stays_on_the_gpu, MakesAConstantOnTheHost),
    (contract.stays_on_the_gpu, ChoosesTheWrongOnes),
    (contract.stays_on_the_gpu, DrawsOnTheHost),
    (contract.stays_on_the_gpu, ReadsInItsDerivative),
    (contract.stays_on_the_gpu, ReadsBack),
    (contract.arguments_are_documented, HidesAnArgument),
    (contract.arguments_are_documented, IsNotDocumented),
    (contract.class_and_function_share_their_defaults, HasTwoDefaults),
    (contract.exemptions_have_a_rule_and_a_reason, IsExemptFromNothing),
    (contract.exemptions_have_a_rule_and_a_reason, IsExemptForNoReason),
]


@pytest.mark.parametrize(("rule", "cls"), BROKEN, ids=[cls.__name__ for _, cls in BROKEN])
def test_a_broken_criterion_is_caught(rule, cls):
    rule(Sound)
    with pytest.raises(AssertionError):
        rule(cls)


def test_every_rule_is_seen_to_fail():
    assert {rule for rule, _ in BROKEN} | {contract.cuda_agrees_with_cpu} == set(RULES)


def test_the_whole_contract_in_one_call_names_the_broken_rule():
    check_contract(Sound)
    with pytest.raises(AssertionError) as caught:
        check_contract(HidesNaN)
    assert caught.value.__notes__ == ["HidesNaN breaks the rule nan_is_not_hidden"]


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (KeepsTheSamplesApart, r"returned a loss of shape \[4\]; wanted a scalar, .*batch_mean"),
        (DividesByTheBatch, r"a loss of nan of an empty batch; .*batch_mean: a plain .mean\(\)"),
    ],
)
def test_what_a_newcomer_s_loss_lacks_is_told_with_the_remedy(cls, message):
    with pytest.raises(AssertionError, match=message):
        check_contract(cls)


class Learned(Sound):
    """A regression.

    Args:
        width: Has no default.
    """

    exempt: ClassVar = {"zero_at_identity": "a regression stands between"}

    def __init__(self, teacher_shapes, student_shapes, labels, width):
        super().__init__()
        sizes = (student_shapes[0][0], width, teacher_shapes[0][0])
        self.adapter = nn.Sequential(nn.Linear(*sizes[:2]), nn.Linear(*sizes[1:]))
        self.labels = labels

    def forward(self, student, teacher, batch):
        return super().forward(self.adapter(student), teacher, batch)


def test_shapes_and_labels_are_filled_in_and_fit_the_sample():
    criterion, (student, teacher, batch) = make(Learned, width=3), sample(Learned, width=3)
    assert criterion.adapter(student).shape == teacher.shape != student.shape
    assert torch.equal(criterion.labels[batch["index"]], batch["label"])
    check_contract(Learned, width=3)


def test_an_argument_that_nobody_can_fill_in_is_named():
    with pytest.raises(UserError, match="Learned: width has no default"):
        make(Learned)


def test_a_misspelt_kind_of_input_is_named():
    with pytest.raises(UserError, match="did you mean 'logits'"):
        sample(type("Misspelt", (Sound,), {"takes": "logit"}))


def test_discovery_finds_the_criteria_that_a_package_defines(tmp_path, monkeypatch):
    (tmp_path / "out_of_tree").mkdir()
    (tmp_path / "out_of_tree" / "__init__.py").write_text("from kd_core.criteria.kd import KD\n")
    (tmp_path / "out_of_tree" / "mine.py").write_text(
        "from kd_core.criteria.kd import KD\nclass Mine(KD): ...\nclass _Hidden(KD): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert [cls.__name__ for cls in discover("out_of_tree")] == ["Mine"]
    assert {"DKD", "FitNet", "KD"} <= {cls.__name__ for cls in discover()}
