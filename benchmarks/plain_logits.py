"""Criteria on logits as one would write them at first, from their formulas."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.criterion import Criterion
from torch import Tensor

Batch = Mapping[str, Any]


def divergence(student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
    """KL of softened probabilities, mean over the batch, times temperature²."""
    own, shown = (student / temperature).log_softmax(1), (teacher / temperature).softmax(1)
    return F.kl_div(own, shown, reduction="batchmean") * temperature**2


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of softened probabilities, [N]."""
    shown = (teacher / temperature).softmax(1)
    return -(shown * (student / temperature).log_softmax(1)).sum(1)


def kd(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """Hinton's divergence."""
    return divergence(student, teacher, criterion.temperature)


def lskd(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """The divergence of standardised logits."""

    def standard(logits: Tensor) -> Tensor:
        deviation = logits.std(1, keepdim=True)
        return (logits - logits.mean(1, keepdim=True)) / (deviation + 1e-7)

    return divergence(standard(student), standard(teacher), criterion.temperature)


def ctkd(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """The divergence at a temperature whose gradient a hook multiplies."""
    progress = (batch["epoch"].floor() + 1).clamp(max=criterion.ramp_epochs)
    factor = ((torch.pi * progress / criterion.ramp_epochs).cos() - 1) / 2
    theta = criterion.theta.clone()
    theta.register_hook(lambda gradient: factor * gradient)
    return divergence(student, teacher, 1 + 20 * theta.sigmoid())


def dkd_rows(
    student: Tensor, teacher: Tensor, label: Tensor, alpha: float, beta: float, temperature: float
) -> Tensor:
    """Target against the rest, and the rest among themselves, by a mask; [N]."""
    student, teacher = student / temperature, teacher / temperature
    target = F.one_hot(label, student.shape[1])

    def pair(logits: Tensor) -> Tensor:
        shares = logits.softmax(1)
        return torch.stack([(shares * target).sum(1), (shares * (1 - target)).sum(1)], 1)

    tckd = F.kl_div(pair(student).log(), pair(teacher), reduction="none").sum(1)
    own, shown = (logits - 1000 * target for logits in (student, teacher))
    nckd = F.kl_div(own.log_softmax(1), shown.softmax(1), reduction="none").sum(1)
    return (alpha * tckd + beta * nckd) * temperature**2


def dkd(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """Mean of `dkd_rows`."""
    weights = criterion.alpha, criterion.beta, criterion.temperature
    return dkd_rows(student, teacher, batch["label"], *weights).mean()


def rld(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """Two bins of each network, and the divergence of logits with -1e9 for classes left out."""
    label, temperature = batch["label"].unsqueeze(1), criterion.temperature
    own, shown = ((logits / temperature).softmax(1) for logits in (student, teacher))
    true, largest = own.gather(1, label), shown.amax(1, keepdim=True)
    own, shown = torch.cat([true, 1 - true], 1), torch.cat([largest, 1 - largest], 1)
    loss = criterion.alpha * F.kl_div(own.log(), shown, reduction="batchmean")
    left_out = teacher >= teacher.gather(1, label)
    own, shown = (logits.masked_fill(left_out, -1e9) / temperature for logits in (student, teacher))
    kl = F.kl_div(own.log_softmax(1), shown.softmax(1), reduction="batchmean")
    return (loss + criterion.beta * kl) * temperature**2


def nkd_rows(
    student: Tensor, teacher: Tensor, label: Tensor, gamma: float, temperature: float
) -> Tensor:
    """Cross-entropies of the target and of the other classes, which a mask selects; [N]."""
    target = F.one_hot(label, student.shape[1]).bool()
    first = -teacher.softmax(1)[target] * student.log_softmax(1)[target]
    own, shown = (logits[~target].view(len(logits), -1) for logits in (student, teacher))
    return first + gamma * temperature**2 * soft_cross_entropy(own, shown, temperature)


def nkd(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """Mean of `nkd_rows`."""
    weights = criterion.gamma, criterion.temperature
    return nkd_rows(student, teacher, batch["label"], *weights).mean()


def wsld(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """Soft cross-entropy, weighted by the ratio of the cross-entropies with the label."""
    own = F.cross_entropy(student.detach(), batch["label"], reduction="none")
    shown = F.cross_entropy(teacher, batch["label"], reduction="none")
    weight = 1 - (-own / (shown + 1e-7)).exp()
    loss = (weight * soft_cross_entropy(student, teacher, criterion.temperature)).mean()
    return criterion.alpha * criterion.temperature**2 * loss


def soft_label(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """Soft cross-entropy."""
    losses = soft_cross_entropy(student, teacher, criterion.temperature)
    return criterion.temperature**2 * losses.mean()


def sl_enc(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """Soft cross-entropy with what the generator makes of the noise."""
    perturbed = teacher + criterion.generator(batch["noise"]).softmax(1)
    return soft_label(criterion, student, perturbed, batch)


def hard_label(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy with the teacher's class."""
    return F.cross_entropy(student, teacher.argmax(1))


def topk_labels(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """The largest probabilities by topk, and an equal part of the rest for all others."""
    value, index = (teacher / criterion.temperature).softmax(1).topk(criterion.k)
    rest = (1 - value.sum(1, keepdim=True)) / (student.shape[1] - criterion.k)
    label = rest.expand(student.shape).scatter(1, index, value)
    return -(label * (student / criterion.temperature).log_softmax(1)).sum(1).mean()


def label_smoothing(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """Torch's."""
    return F.cross_entropy(student, batch["label"], label_smoothing=criterion.epsilon)


def ttm(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """KL with the teacher's probabilities to a power."""
    shown = (criterion.gamma * teacher).softmax(1)
    return F.kl_div(student.log_softmax(1), shown, reduction="batchmean")


def wttm(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """The same, weighted by the sum of the powers."""
    powers = teacher.softmax(1) ** criterion.gamma
    total = powers.sum(1)
    losses = F.kl_div(student.log_softmax(1), powers / total[:, None], reduction="none").sum(1)
    return (total * losses).mean()


def dist(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """Pearson correlations of rows and of columns."""

    def distance(one: Tensor, other: Tensor) -> Tensor:
        one, other = one - one.mean(1, keepdim=True), other - other.mean(1, keepdim=True)
        return 1 - ((one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1) + 1e-8)).mean()

    own, shown = ((logits / criterion.temperature).softmax(1) for logits in (student, teacher))
    inside, between = distance(own, shown), distance(own.T, shown.T)
    return criterion.temperature**2 * (criterion.beta * inside + criterion.gamma * between)


def kept(values: Tensor) -> Tensor:
    """Share of values up to the median."""
    return (values <= values.quantile(0.5)).to(values.dtype).mean()


def mlkd(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """KD and two Gram matrices at every temperature."""
    shares = teacher.softmax(1)
    samples, classes = kept(shares.amax(1)), kept(shares.sum(0))
    total = torch.zeros((), device=student.device)
    for temperature in criterion.temperatures:
        own, shown = ((logits / temperature).softmax(1) for logits in (student, teacher))
        batchwise = (own @ own.T - shown @ shown.T).square().sum() / len(own)
        classwise = (own.T @ own - shown.T @ shown).square().sum() / own.shape[1]
        total = total + samples * (divergence(student, teacher, temperature) + batchwise)
        total = total + classes * classwise
    return total


def clkd(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """Unit rows, unit columns, and covariances."""
    rows, columns = (
        F.mse_loss(F.normalize(student, dim=dim), F.normalize(teacher, dim=dim)) for dim in (1, 0)
    )
    own, shown = (logits - logits.mean(0) for logits in (student, teacher))
    classes = student.shape[1]
    covariance = ((own.T @ own - shown.T @ shown) / (classes - 1)).norm() / classes**2
    return criterion.mu * (rows + criterion.beta * columns) + criterion.nu * covariance


def skd(criterion: Criterion, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """KD, and Mahalanobis distances by the inverse of the covariance."""
    own, shown = F.normalize(student), F.normalize(teacher)
    difference = (own @ own.T - shown @ shown.T) / own.shape[1]
    ridge = criterion.ridge * torch.eye(len(own), device=own.device)
    factor = torch.linalg.cholesky(torch.cov(difference.T) + ridge)
    inverse = torch.cholesky_inverse(factor)
    direction = ((difference @ inverse) * difference).sum(1).sqrt().mean()
    shares = teacher.softmax(1)
    loss = kept(shares.amax(1)) * divergence(student, teacher, criterion.temperature)
    return loss + criterion.direction_weight * kept(shares.sum(0)) * direction
