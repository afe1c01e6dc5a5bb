r"""CRD: contrast each sample's embedding with the other network's embeddings of other classes.

.. math::

   L = -\log h(s_i,t_i)-\sum_{j}\log\big(1-h(s_i,t_j)\big),
   \qquad h(s,t)=\frac{e^{s^\top t/\tau}}{e^{s^\top t/\tau}+M/N}

s and t are embeddings of unit length; M samples j of other classes come from a memory of all N;
the same with the roles exchanged is added.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 (the name all of torch's users know)
from torch import Tensor, nn

from kd_core.config.values import Positive, PositiveInt, Share
from kd_core.criteria.banks import BankPrecision, bank_type, products, products_with_all
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.errors import UserError, nearest
from kd_core.runtime.distributed import gather_rows

# Up to so many samples none is drawn twice; it takes random keys for all, 17 MB at batch 64.
_SMALL = 2**16

_SLOWEST_IN_FP16 = 0.9


class CRD(Criterion):
    """Find a sample by its embedding among samples of other classes in the other network's memory.

    Tian et al., "Contrastive Representation Distillation", ICLR 2020, arXiv:1910.10699. Adds linear
    embeddings, and memories of those of all training samples. RepDistiller weights it by 0.8.

    Positives and negatives are `batch["contrast"]`, int64 [N, 1 + K], the positive first; where
    there is none they are drawn on the device, uniformly, without replacement from up to 65,536
    samples. Under DDP every process remembers the embeddings of all; of equal indices the last.

    With `bank_precision="fp16"` the memories, and the rows of them that the backward keeps, take
    half the bytes; embeddings are mixed and compared in float32. Losses change by less than 1e-3.

    Differs from the authors' code: the constants keep no graph, and a small set repeats no sample.

    Args:
        student_shapes: [D] of the tapped vector.
        teacher_shapes: [D] of the tapped vector.
        labels: Class of every training sample, int64 [num_samples].
        dim: Length of the embeddings.
        num_negatives: Negatives a sample (K), but no more than the largest class leaves.
        temperature: Divides the cosines.
        momentum: Share of the old embedding in the memory's new one.
        mode: The positive is "exact"ly the sample, or "relax"ed to any sample of its class.
        bank_precision: Of the memories, "fp32" or "fp16".

    Raises:
        UserError: If there is one class only, the mode is unknown, or fp16 is too coarse for
            temperature or momentum.
    """

    takes = "vectors"
    exempt: ClassVar = {
        "zero_at_identity": "a contrast with other samples has no zero",
        "order_of_the_batch_does_not_matter": "each sample draws its own negatives",
        "two_calls_agree": "negatives are drawn, and the memories move",
    }
    memories: Tensor  # [2, num_samples, dim], of student and teacher
    constants: Tensor  # [2]; negative: not yet set
    labels: Tensor
    by_class: Tensor
    blocks: Tensor

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        labels: Tensor,
        *,
        dim: PositiveInt = 128,
        num_negatives: PositiveInt = 16384,
        temperature: Positive = 0.07,
        momentum: Share = 0.5,
        mode: str = "exact",
        bank_precision: BankPrecision = "fp32",
    ) -> None:
        super().__init__()
        kind = bank_type("CRD", bank_precision, temperature)
        if kind == torch.float16 and momentum > _SLOWEST_IN_FP16:
            raise UserError(
                f"CRD: with momentum={momentum:g} an embedding moves by less than float16 can "
                f"hold; set momentum={_SLOWEST_IN_FP16} or less, or bank_precision='fp32'"
            )
        self.check_shapes(student_shapes, teacher_shapes)
        if mode not in ("exact", "relax"):
            raise UserError(f"CRD: mode is {mode!r}{nearest(mode, ('exact', 'relax'))}")
        if labels.dim() != 1:
            raise UserError("CRD needs one label an image, these are [N, C]; use another method")
        sizes = labels.bincount()
        others = len(labels) - int(sizes.max())
        if others == 0:
            raise UserError("CRD: all samples have the same label; it needs two classes at least")
        self.student_embedding = nn.Linear(student_shapes[0][0], dim)
        self.teacher_embedding = nn.Linear(teacher_shapes[0][0], dim)
        self.num_negatives = min(num_negatives, others)
        self.temperature, self.momentum, self.mode = temperature, momentum, mode
        # A fixed seed: all processes must start with the same memories.
        generator, bound = torch.Generator().manual_seed(0), math.sqrt(3 / dim)
        memories = torch.empty(2, len(labels), dim).uniform_(-bound, bound, generator=generator)
        self.register_buffer("memories", memories.to(kind))
        self.register_buffer("constants", -torch.ones(2))
        self.register_buffer("labels", labels, persistent=False)
        self.register_buffer("by_class", labels.argsort(stable=True), persistent=False)
        blocks = torch.stack([sizes.cumsum(0) - sizes, sizes])  # start and size in `by_class`
        self.register_buffer("blocks", blocks, persistent=False)

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of vectors [N, D] and `batch["index"]` [N]; the memories move."""
        index = batch["index"]
        contrast = batch["contrast"] if "contrast" in batch else self.draw(index)
        embedded = self.student_embedding(student), self.teacher_embedding(teacher.detach())
        vectors = F.normalize(torch.stack(embedded), dim=2)
        sides = zip(self.memories.unbind()[::-1], vectors, strict=True)  # each with the other's
        products = torch.stack([_products(memory, contrast, side) for memory, side in sides])
        scores = products / self.temperature  # [2, N, 1 + K]
        self._update(index, vectors.detach(), scores.detach().exp().mean(2))
        scores = scores - self.constants.log()[:, None, None]
        # With P = exp(score), a positive gives log(1 + P / share) - log(P / share), which is
        # -log(P / (P + share)), and a negative -log(share / (P + share)), the first of the two.
        share = (contrast.shape[1] - 1) / len(self.labels)
        every = ((scores.exp() + 1e-7) / share).log1p().sum()
        return (every - (scores[..., 0] - math.log(share)).sum()) / max(len(index), 1)

    @torch.no_grad()
    def draw(self, index: Tensor) -> Tensor:
        """Draw for samples [N] a positive each, then negatives of other classes: [N, 1 + K]."""
        label = self.labels[index].unsqueeze(1)
        start, size = self.blocks[:, label]
        positive, total = index.unsqueeze(1), len(self.labels)
        if self.mode == "relax":
            positive = self.by_class[start + _random_below(size)]
        if total <= _SMALL:
            keys = torch.rand(len(index), total, device=index.device)
            keys.masked_fill_(self.labels == label, -1)
            negatives = keys.topk(self.num_negatives, sorted=False).indices
        else:
            place = _random_below((total - size).expand(-1, self.num_negatives))
            negatives = self.by_class[place + size * (place >= start)]
        return torch.cat([positive, negatives], 1)

    def _update(self, index: Tensor, vectors: Tensor, means: Tensor) -> None:
        """Write vectors [2, N, dim] to the memories; set the constants, once, from means [2, N]."""
        rows = torch.cat([vectors, means.unsqueeze(2)], 2).transpose(0, 1)
        index, rows = gather_rows(index), gather_rows(rows).transpose(0, 1)
        if len(index) == 0:
            return
        constants = rows[:, :, -1].mean(1) * len(self.labels)
        self.constants.copy_(torch.where(self.constants < 0, constants, self.constants))
        # Equal indices get equal rows, so that it does not matter which is written last.
        same = index[:, None] == index
        last = torch.where(same, torch.arange(len(index), device=index.device), -1).amax(1)
        mixed = torch.lerp(rows[:, last, :-1], self.memories[:, index].to(rows), self.momentum)
        self.memories.index_copy_(1, index, F.normalize(mixed, dim=2).to(self.memories))


def _products(memory: Tensor, contrast: Tensor, vectors: Tensor) -> Tensor:
    """Multiply each vector [N, D] with its rows of the memory: [N, 1 + K]."""
    if len(memory) <= 8 * contrast.shape[1]:
        return products_with_all(memory, vectors).gather(1, contrast)  # fewer numbers than the rows
    rows = F.embedding(contrast, memory)  # on a CPU twice as fast as indexing
    return products(rows, vectors)


def _random_below(limits: Tensor) -> Tensor:
    """Draw for each limit an integer from 0 to below it."""
    return torch.randint(2**62, limits.shape, device=limits.device) % limits
