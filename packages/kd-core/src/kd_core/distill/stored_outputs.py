"""StoredOutputs: a teacher without a network, whose logits of the training images are in a file."""

from torch import Tensor, nn

from kd_core.criteria.guarded import is_mixed
from kd_core.errors import UserError
from kd_core.networks.roles import Taps
from kd_core.networks.task import Batch


class StoredOutputs(nn.Module):
    """Returns the row of every image of a training batch, in float32 at least.

    It knows the training images alone, by their `index`, and nothing of how they are augmented.

    Args:
        logits: [training images, classes].
    """

    logits: Tensor

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.register_buffer("logits", logits)

    def prepare(self, images: Tensor) -> Batch:
        """Return what a call takes, where it is measured like the other teachers' networks."""
        return {"image": images, "index": self.logits.new_zeros(len(images)).long()}

    def forward(self, batch: Batch) -> Tensor:
        """Return logits [N, C]; `index` names each image once for each of its views.

        Raises:
            UserError: If the batch has no `index`, or its images are mixed.
        """
        if "index" not in batch:
            raise UserError("stored outputs are found by `index`, which this batch does not have")
        if is_mixed(batch):
            raise UserError(
                "stored outputs are those of single images, but data.augment mixes several; leave "
                "the mixing out, or take a teacher with a network"
            )
        rows = self.logits[batch["index"]]
        return rows if rows.dtype.itemsize > 4 else rows.float()


def require_output(taps: Taps, model: nn.Module) -> None:
    """Reject taps inside a model that has stored outputs and no network.

    Raises:
        UserError: If one is not its output.
    """
    if not isinstance(model, StoredOutputs):
        return
    given = [taps] if isinstance(taps, str) else taps
    inside = [tap for tap in given if tap not in ("output", "@logits")]
    if inside:
        raise UserError(
            f"there is no {inside[0]!r} in a file of outputs, which has logits alone; take a "
            "criterion on logits, or a teacher with a network"
        )


def knows_only_training_images(model: nn.Module) -> bool:
    """Return whether a teacher, or a member of an ensemble, has stored outputs."""
    return any(isinstance(module, StoredOutputs) for module in model.modules())
