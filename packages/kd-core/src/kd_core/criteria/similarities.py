"""How similar vectors are to others of their own network, matched between two networks."""

import torch
from torch import Tensor

from kd_core.functional import batch_mean, full_precision, kl_divergence, require_same_shape


@full_precision
def queue_kl(
    student: Tensor, teacher: Tensor, queue: Tensor, *, temperature: float = 0.07
) -> Tensor:
    """Match an image's similarities to a queue by KL(teacher || student), mean over the batch.

    As in LightlyTrain's first distillation. There is no factor temperature².

    Args:
        student: Vectors of unit length, [N, D].
        teacher: Vectors of unit length, [N, D]. No gradient flows into them.
        queue: Vectors of unit length, or zeros, [K, D]. No gradient flows into them.
        temperature: Divides the cosines.
    """
    require_same_shape(student, teacher)
    rows = queue.detach().to(student).T / temperature
    return kl_divergence((student @ rows).log_softmax(1), (teacher.detach() @ rows).log_softmax(1))


@full_precision
def token_relation(student: Tensor, teacher: Tensor, *, temperature: float = 0.07) -> Tensor:
    """Match how similar the positions of an image are to each other: KL, mean over all rows.

    As in LightlyTrain's third distillation. The student's positions are compared among themselves,
    so its vectors may be turned against the teacher's.

    Args:
        student: Positions of unit length, [N, L, D].
        teacher: Positions of unit length, [N, L, D']. No gradient flows into them.
        temperature: Divides the cosines.
    """
    sides = (student @ student.mT, teacher.detach() @ teacher.detach().mT)
    own, shown = ((side / temperature).log_softmax(2).flatten(0, 1) for side in sides)
    return kl_divergence(own, shown)


@full_precision
def seed(
    student: Tensor,
    teacher: Tensor,
    queue: Tensor,
    *,
    student_temperature: float = 0.2,
    teacher_temperature: float = 1e-4,
) -> Tensor:
    """Match similarities to the own teacher vector and a queue by their cross-entropy.

    Fang et al., "SEED: Self-supervised Distillation For Visual Representation", ICLR 2021,
    arXiv:2101.04731. Mean over the batch; the teacher's entropy is not subtracted.

    Args:
        student: Vectors of unit length, [N, D].
        teacher: Vectors of unit length, [N, D]. No gradient flows into them.
        queue: Vectors of unit length, [K, D]. No gradient flows into them.
        student_temperature: Divides the student's cosines.
        teacher_temperature: Divides the teacher's cosines.
    """
    require_same_shape(student, teacher)
    teacher, queue = teacher.detach(), queue.detach().to(student)
    own, shown = (
        torch.cat([(side * teacher).sum(1, keepdim=True), side @ queue.T], 1)
        for side in (student, teacher)
    )
    target = (shown / teacher_temperature).softmax(1)
    return -batch_mean(target * (own / student_temperature).log_softmax(1))
