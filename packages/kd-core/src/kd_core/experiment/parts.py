"""Parts: what a task package builds from a config for a run."""

from dataclasses import dataclass, field

from kd_core.data.loader import Loader
from kd_core.distill.distiller import Distiller
from kd_core.networks.task import Batch
from kd_core.training.hooks import Evaluate


@dataclass
class Parts:
    """What a task package builds from a config, and a run needs.

    Args:
        distiller: The student with its teachers, on its device.
        loader: Training batches.
        test: Evaluation on the test set.
        val: Evaluation on a held-out part of the training set, or None.
        metric: Name of the metric that defines the best epoch; larger is better.
        metadata: What a user of the exported weights must know, as text.
        sample: A small training batch, to try things on.
        measured_on: What `test` looks at.
    """

    distiller: Distiller
    loader: Loader
    test: Evaluate
    metric: str
    val: Evaluate | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    sample: Batch | None = None
    measured_on: str = "test data"

    @property
    def chosen_on(self) -> str:
        """What the best epoch is chosen on."""
        return "validation split" if self.val else self.measured_on
