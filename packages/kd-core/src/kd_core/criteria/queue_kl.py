r"""QueueKL, QueueTokenKL, SEED: how similar an image is to a queue of the teacher's vectors.

.. math::

   L = \mathrm{KL}\big(\sigma(t Q^\top/\tau)\,\|\,\sigma(h(s) Q^\top/\tau)\big)

Q are earlier vectors of the teacher, h is a projection. QueueTokenKL adds the same over the
similarities of positions; SEED has another temperature for the teacher, and puts its own vector
first.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from kd_core.config.values import NonNegative, Positive, PositiveInt
from kd_core.criteria.aligners import linear, project_maps
from kd_core.criteria.banks import BankPrecision, bank_type
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.criteria.kept_heads import KeepsHead, MLPHead
from kd_core.criteria.queues import (
    in_front,
    queue_length,
    random_directions,
    ring_length,
    write_round,
)
from kd_core.criteria.similarities import queue_kl, seed, token_relation
from kd_core.runtime.distributed import gather_rows, print_note

_MOST_TOKENS = 1024


class QueueKL(KeepsHead, Criterion):
    """See `queue_kl`; adds a linear head to the student and a queue of teacher vectors.

    In training a batch's own teacher vectors are put in front of the queue first, so each is
    compared with itself too. The queue starts with zeros, is full after K / N steps, and is saved;
    in evaluation it does not move. Every process has its own, and resumes with it; where there are
    more or fewer than before, all resume with that of the first.

    Args:
        student_shapes: [D] of the tapped vector.
        teacher_shapes: [D] of the tapped vector.
        num_samples: Images of the data set.
        queue_size: Vectors in the queue (K); None chooses it by the size of the data set.
        temperature: Divides the cosines.
        keep_head: Export the head with the student; see `KeepsHead`.
        bank_precision: Of the queue, "fp32" or "fp16"; it is compared in float32.

    Raises:
        UserError: If the queue is longer than the data set, or too cold for fp16.
    """

    takes: ClassVar[str | tuple[str, ...]] = "vectors"
    example_samples = 8192
    exempt: ClassVar = {
        "zero_at_identity": "a head is between the two vectors",
        "two_calls_agree": "the queue moves",
    }
    queue: Tensor  # [K, D]

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        num_samples: int | None = None,
        *,
        queue_size: PositiveInt | None = 8192,
        temperature: Positive = 0.07,
        keep_head: bool = False,
        bank_precision: BankPrecision = "fp32",
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        length = queue_length(type(self).__name__, queue_size, num_samples)
        width = teacher_shapes[0][0]
        self.head = linear(student_shapes[0][0], width)
        self.temperature, self.keep_head = temperature, keep_head
        kind = bank_type(type(self).__name__, bank_precision, temperature)
        self.register_buffer("queue", torch.zeros(length, width, dtype=kind))

    def forward(self, student: Any, teacher: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of vectors [N, D]; `batch` is not used; in training the queue moves."""
        own, shown = _unit(self.head(student)), _unit(teacher.detach())
        queue = self.queue.to(shown)
        if self.training:
            queue = in_front(shown, queue)  # a new tensor, which the backward may keep
            self.queue.copy_(queue)
        return queue_kl(own, shown, queue, temperature=self.temperature)

    def compared(self, student: Any, teacher: Any) -> Sequence[tuple[Tensor, Tensor]]:
        """Return the vectors of both, of unit length."""
        return ((_unit(self.head(student)), _unit(teacher)),)


class QueueTokenKL(QueueKL):
    """`QueueKL` of vectors, and `token_relation` of maps with a linear head of their own.

    The student's map is brought to the teacher's height and width, bilinearly. Cost and memory of
    the relation grow with the square of the positions.

    Args:
        student_shapes: [D] of the tapped vector, [C, H, W] of the tapped map.
        teacher_shapes: [D] of the tapped vector, [C, H, W] of the tapped map.
        num_samples: Images of the data set.
        queue_size: Vectors in the queue (K); None chooses it by the size of the data set.
        temperature: Divides the cosines of vectors.
        local_temperature: Divides the cosines of positions.
        local_weight: Factor of the relation.
        keep_head: Export the head of vectors with the student; see `KeepsHead`.
        bank_precision: Of the queue, "fp32" or "fp16"; it is compared in float32.

    Raises:
        UserError: If the queue is longer than the data set, or too cold for fp16.
    """

    takes = ("vectors", "maps")

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        num_samples: int | None = None,
        *,
        queue_size: PositiveInt | None = 8192,
        temperature: Positive = 0.07,
        local_temperature: Positive = 0.07,
        local_weight: NonNegative = 1.0,
        keep_head: bool = False,
        bank_precision: BankPrecision = "fp32",
    ) -> None:
        super().__init__(
            student_shapes,
            teacher_shapes,
            num_samples,
            queue_size=queue_size,
            temperature=temperature,
            keep_head=keep_head,
            bank_precision=bank_precision,
        )
        channels, height, width = teacher_shapes[1]
        self.local_head = linear(student_shapes[1][0], channels)
        self.local_temperature, self.local_weight = local_temperature, local_weight
        if height * width > _MOST_TOKENS:
            print_note(
                f"QueueTokenKL: the teacher's map has {height} x {width} positions, and the "
                f"relation has {(height * width) ** 2:,} numbers an image; above {_MOST_TOKENS} "
                "positions it is slow: tap a smaller map, or set a smaller `size` of the teacher"
            )

    def forward(self, student: Any, teacher: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of (vectors, maps) of each network; in training the queue moves."""
        loss = super().forward(student[0], teacher[0], batch)
        shown = teacher[1].detach().movedim(1, -1)
        own = project_maps(self.local_head, student[1], shown.shape[1:3])
        own, shown = (_unit(side).flatten(1, 2) for side in (own, shown))
        local = token_relation(own, shown, temperature=self.local_temperature)
        return loss + self.local_weight * local

    def compared(self, student: Any, teacher: Any) -> Sequence[tuple[Tensor, Tensor]]:
        """Return the vectors of both; of the maps only what is inside each image is compared."""
        return super().compared(student[0], teacher[0])


class SEED(KeepsHead, Criterion):
    """See `seed`; adds a head to the student and a ring of teacher vectors.

    The ring starts with random vectors of unit length, the same in every process, and after each
    batch in training gets the teacher vectors of all processes; it is saved. The authors' code
    needs a length that is a multiple of the batch; here a batch may be written round the end.

    Args:
        student_shapes: [D] of the tapped vector.
        teacher_shapes: [D] of the tapped vector.
        num_samples: Images of the data set.
        queue_size: Vectors in the ring (K); None chooses it by the size of the data set.
        student_temperature: Divides the student's cosines.
        teacher_temperature: Divides the teacher's cosines. With the authors' default the target is
            the own vector alone; between 0.01 and 0.07 the others count.
        mlp: The head has a hidden layer of the student's width; otherwise it is linear.
        keep_head: Export the head with the student; see `KeepsHead`.
        bank_precision: Of the ring, "fp32" or "fp16"; it is compared in float32. For fp16 both
            temperatures must be 0.02 or more.
    """

    takes = "vectors"
    exempt: ClassVar = {
        "zero_at_identity": "a cross-entropy, and a head is between the two vectors",
        "two_calls_agree": "the ring of teacher vectors moves",
    }
    queue: Tensor  # [K, D]
    place: Tensor

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        num_samples: int | None = None,
        *,
        queue_size: PositiveInt | None = 65536,
        student_temperature: Positive = 0.2,
        teacher_temperature: Positive = 1e-4,
        mlp: bool = True,
        keep_head: bool = False,
        bank_precision: BankPrecision = "fp32",
    ) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        inputs, outputs = student_shapes[0][0], teacher_shapes[0][0]
        self.head = MLPHead(inputs, inputs, outputs) if mlp else nn.Linear(inputs, outputs)
        self.keep_head = keep_head
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        length = ring_length(queue_size, num_samples)
        coldest = min(student_temperature, teacher_temperature)
        kind = bank_type("SEED", bank_precision, coldest)
        self.register_buffer("queue", random_directions(length, outputs).to(kind))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of vectors [N, D]; `batch` is not used; in training the ring moves."""
        own, shown = _unit(self.head(student)), _unit(teacher.detach())
        loss = seed(
            own,
            shown,
            self.queue.to(own, copy=True),  # it is written to before the backward reads it
            student_temperature=self.student_temperature,
            teacher_temperature=self.teacher_temperature,
        )
        if self.training:
            write_round(self.queue, self.place, gather_rows(shown))
        return loss

    def compared(self, student: Any, teacher: Any) -> Sequence[tuple[Tensor, Tensor]]:
        """Return the vectors of both, of unit length."""
        return ((_unit(self.head(student)), _unit(teacher)),)


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=-1)
