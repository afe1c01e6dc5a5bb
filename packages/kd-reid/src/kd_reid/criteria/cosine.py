"""Cosine: the direction of the teacher's embedding."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F  # noqa: N812 (the name all of torch's users know)
from kd_core.criteria.criterion import Criterion, Shapes
from kd_core.functional import batch_mean, full_precision, require_same_shape
from torch import Tensor, nn


@full_precision
def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Match the directions of embeddings by 1 minus their cosine, mean over the batch.

    Not from one paper: half the squared distance of the vectors scaled to unit length. An embedding
    that is 0 has no direction and counts as orthogonal.

    Args:
        student: Embeddings, [N, D], already of the teacher's width.
        teacher: Embeddings, [N, D]. No gradient flows into it.

    Raises:
        UserError: If the shapes differ.
    """
    require_same_shape(student, teacher)
    own, shown = (F.normalize(side, dim=1) for side in (student, teacher.detach()))
    return batch_mean(1 - (own * shown).sum(1))


class Cosine(Criterion):
    """See `cosine`; where the widths differ, adds a linear projector of the student's embedding.

    The projector has no bias, so the length of an embedding does not count here either. It is
    trained, but not part of the exported student.

    Args:
        student_shapes: [D] of the tapped embedding.
        teacher_shapes: [E] of the tapped embedding.
    """

    takes = "vectors"

    def __init__(self, student_shapes: Shapes, teacher_shapes: Shapes) -> None:
        super().__init__()
        self.check_shapes(student_shapes, teacher_shapes)
        (student,), (teacher,) = student_shapes[0], teacher_shapes[0]
        same = student == teacher
        self.projector = nn.Identity() if same else nn.Linear(student, teacher, bias=False)

    def compared(self, student: Tensor, teacher: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        """Return the directions of both embeddings."""
        return [(F.normalize(self.projector(student)), F.normalize(teacher))]

    def forward(self, student: Tensor, teacher: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of embeddings [N, D]; `batch` is not used."""
        return cosine(self.projector(student), teacher)
