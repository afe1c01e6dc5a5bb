"""Measures of an embedder without identities, and its search of a labelled set, if there is one."""

from collections.abc import Mapping
from typing import Any

from kd_core.distill import label_free
from kd_core.distill.label_free import matrix
from kd_core.distill.term import Term
from torch import Tensor, nn

from kd_reid.evaluation import Evaluation
from kd_reid.unlabelled.folder import CropSplits


class LabelFree(label_free.LabelFree):
    """Measures a student on held-out crops, and by rank-1 and mAP if labelled images are given.

    See `kd_core.distill.label_free.LabelFree`. The features are the embeddings that images are
    searched by.

    Args:
        student: In its task.
        teachers: By name.
        terms: By name, with paths as taps.
        sources: The teacher of each term.
        data: Held-out crops, and labelled images.
        evaluation: Arguments of an `Evaluation`.

    Raises:
        UserError: If there is nothing by which the best epoch could be chosen.
    """

    def __init__(
        self,
        student: nn.Module,
        teachers: Mapping[str, nn.Module],
        terms: Mapping[str, Term],
        sources: Mapping[str, str],
        data: CropSplits,
        evaluation: Mapping[str, Any],
    ) -> None:
        sample = data.train.sample(2)
        super().__init__(
            *(student, teachers, terms, sources, data.test, sample),
            advice="set data.evaluate_on to labelled images",
        )
        self._search = None if data.searched is None else Evaluation(data.searched, **evaluation)
        searched = self._search is not None
        self.metric = "rank1" if searched else self.measurable(sample, student)

    def labelled(self, model: nn.Module) -> dict[str, float]:
        """Return rank-1, mAP and what else the search gives."""
        return {} if self._search is None else self._search(model)

    def vector(self, prediction: Any, values: Mapping[str, Any], name: str) -> Tensor | None:
        """Return the embedding [N, D]."""
        return matrix(getattr(prediction, "embedding", prediction))
