"""TrainStep: accumulation, clipping, precision, and that the host reads nothing."""

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.kd import KD
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.networks.task import Task, network_of
from kd_core.testing import NoHostReads
from kd_core.training.ema import ModelAverage
from kd_core.training.meter import LossMeter
from kd_core.training.optimizer import build_optimizer
from kd_core.training.step import TrainStep, sum_losses
from torch import nn


class Toy(Task):
    """Classifies images [N, 12]."""

    def forward(self, batch):
        logits = self.network(batch["image"])
        return {"ce": F.cross_entropy(logits, batch["label"])} if self.training else logits


class Detached(nn.Module):
    def forward(self, x):
        return x.detach()


def batch(seed, size=4):
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randn(size, 12, generator=generator),
        "label": torch.randint(3, (size,), generator=generator),
        "index": torch.arange(size),
    }


def joined(*batches):
    return {key: torch.cat([part[key] for part in batches]) for key in batches[0]}


def toy(width, seed):
    torch.manual_seed(seed)
    return Toy(nn.Sequential(nn.Linear(12, width), nn.ReLU(), nn.Linear(width, 3)))


def make_step(optimizer="torch.optim.SGD", lr=0.1, **options):
    kd = Term(KD(), weight=0.5, warmup_epochs=1.0)
    distiller = Distiller(toy(8, seed=0), toy(16, seed=1), {"kd": kd}, sample=batch(0))
    distiller.begin(steps_per_epoch=10)
    built = build_optimizer({"type": optimizer, "lr": lr}, distiller)
    return TrainStep(distiller.train(), built, **options)


def weights(step):
    return torch.cat([parameter.detach().flatten() for parameter in step.distiller.parameters()])


def test_a_student_whose_output_has_no_gradient_is_told():
    step = make_step()
    step.distiller.student.network.append(Detached())
    with pytest.raises(UserError, match="no loss depends on a weight that is trained"):
        step([batch(0)])


def test_accumulated_batches_equal_one_big_batch():
    parts = [batch(seed) for seed in range(3)]
    accumulated, at_once = make_step(), make_step()
    for _ in range(2):
        losses = accumulated(parts)
        expected = at_once([joined(*parts)])
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(weights(accumulated), weights(at_once))
    assert accumulated.distiller.steps == 2


def test_losses_are_named_detached_and_those_of_the_distiller():
    step = make_step()
    expected = {name: loss.detach() for name, loss in step.distiller(batch(3)).items()}
    losses = step([batch(3)])
    assert list(losses) == ["ce", "kd"]
    assert not any(loss.requires_grad for loss in losses.values())
    torch.testing.assert_close(losses, expected, rtol=0, atol=0)


def test_a_large_gradient_is_clipped_and_a_small_one_is_not():
    plain, clipped, loose = (
        make_step(lr=1.0),
        *(make_step(lr=1.0, clip_norm=norm) for norm in (0.01, 1e6)),
    )
    before = weights(plain)
    for step in (plain, clipped, loose):
        step([batch(1)])
    assert (weights(plain) - before).norm() > 0.1
    torch.testing.assert_close((weights(clipped) - before).norm(), torch.tensor(0.01))
    torch.testing.assert_close(weights(loose), weights(plain), rtol=0, atol=0)


def test_bf16_computes_the_network_in_bf16_and_keeps_weights_and_losses_in_float32():
    step, seen = make_step(precision="bf16"), []
    network = network_of(step.distiller.student)
    network[0].register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    before = weights(step)
    losses = step([batch(1)])
    assert seen == [torch.bfloat16]
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert weights(step).dtype == torch.float32
    assert weights(step).isfinite().all()
    torch.testing.assert_close(losses["ce"], make_step()([batch(1)])["ce"], rtol=0.02, atol=0)
    assert not torch.equal(weights(step), before)


def test_a_failed_step_does_not_poison_the_next():
    failed, never_failed = make_step(), make_step()
    broken = {**batch(1), "label": torch.zeros(3, dtype=torch.int64)}
    with pytest.raises(ValueError, match="batch"):
        failed([batch(0), broken])  # the first of them has left its gradient already
    assert failed.distiller.steps == 0
    for step in (failed, never_failed):
        step([batch(2)])
    torch.testing.assert_close(weights(failed), weights(never_failed), rtol=0, atol=0)


@pytest.mark.parametrize("optimizer", ["torch.optim.SGD", "torch.optim.AdamW"])
@pytest.mark.parametrize(
    "options",
    [{}, {"clip_norm": 1.0}, {"precision": "bf16"}, {"clip_norm": 1.0, "precision": "fp16"}],
    ids=str,
)
def test_a_step_with_meter_and_average_reads_nothing_back_to_the_host(optimizer, options):
    step = make_step(optimizer, **options)
    network = network_of(step.distiller.student)
    meter, average = LossMeter(), ModelAverage(network, 0.9)
    before = copy.deepcopy(average.network.state_dict())
    with NoHostReads():
        for seed in range(3):
            meter.update(step([batch(seed), batch(seed + 10)]))
            average.update(network)
    assert meter.means()["ce"] > 0
    assert not torch.equal(before["0.weight"], average.network[0].weight)


def test_an_unknown_precision_is_refused_by_name():
    with pytest.raises(UserError, match=r"precision: .*got 'bf61'; did you mean 'bf16'"):
        make_step(precision="bf61")


@pytest.mark.parametrize("norm", [-1.0, 0, float("nan"), "1", True])
def test_a_norm_that_clips_nothing_is_refused(norm):
    with pytest.raises(UserError, match="TrainStep: clip_norm: wanted a"):
        make_step(clip_norm=norm)


def test_losses_are_added_in_float32_and_none_at_all_is_an_error():
    half = torch.tensor(2049.0, dtype=torch.float32)
    total = sum_losses({"a": half, "b": torch.tensor(1.0, dtype=torch.bfloat16)})
    assert total.dtype == torch.float32
    assert total == 2050
    with pytest.raises(UserError, match="nothing to learn"):
        sum_losses({})


def test_a_loss_of_the_student_s_own_that_is_no_scalar_is_named():
    losses = {"ce": torch.zeros(()), "each": torch.zeros(16)}
    with pytest.raises(UserError, match=r"loss 'each' .*shape \[16\]; wanted a scalar"):
        sum_losses(losses)
