"""Heads from a student's vector to the teacher's space, which leave with training or stay."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from torch import Tensor, nn

from kd_core.config.kinds import MODULE
from kd_core.config.values import PositiveInt
from kd_core.errors import UserError
from kd_core.networks.taps import FeatureTap

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}


class MLPHead(nn.Sequential):
    """Two linear layers with an activation between them.

    Args:
        inputs: Width of the student's vector.
        hidden: Width between the layers.
        outputs: Width of the teacher's vector.
        activation: Between the layers.
    """

    def __init__(
        self,
        inputs: PositiveInt,
        hidden: PositiveInt,
        outputs: PositiveInt,
        activation: Literal["relu", "gelu"] = "relu",
    ) -> None:
        between = _ACTIVATIONS[activation]()
        super().__init__(nn.Linear(inputs, hidden), between, nn.Linear(hidden, outputs))
        self.activation = activation


class KeepsHead:
    """Mixin of a criterion on vectors, left of `Criterion`: its head can stay with the student.

    The class sets `keep_head` in its constructor and has a `head`, or another `kept_head`. With
    True, what is evaluated and exported is an `EmbeddingNetwork`; with False, the student alone.
    """

    keep_head: bool
    head: nn.Module

    def kept_head(self) -> nn.Module:
        """Return what stays: a linear layer or an `MLPHead`, from the first tap of the student."""
        return self.head

    def bind(
        self, student: nn.Module, teacher: nn.Module, taps: tuple[Sequence[str], Sequence[str]]
    ) -> None:
        """Note where the student's vector is."""
        self.tap = taps[0][0]

    def deploy(self, student: nn.Module) -> nn.Module:
        """Return the student, or with `keep_head` the student and its head, shared, not copied."""
        return EmbeddingNetwork(student, self.tap, self.kept_head()) if self.keep_head else student

    def deploy_node(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the config node of what `deploy` returns."""
        if not self.keep_head:
            return node
        kind = f"{EmbeddingNetwork.__module__}.{EmbeddingNetwork.__name__}"
        head = node_of(self.kept_head())
        return {"type": kind, "network": dict(node), "tap": self.tap, "head": head}


class EmbeddingNetwork(nn.Module):
    """A student that also gives embeddings in the space of its teacher's vectors.

    Called, it returns what the student returns, such as logits. `with_embedding` returns the
    embeddings too; in every pass they are the output of the module `head`, for a tap.

    Args:
        network: The student's network.
        tap: Path of its vector, see `FeatureTap`.
        head: From that vector to one of the teacher's width.
    """

    def __init__(
        self,
        network: Annotated[nn.Module, MODULE],
        tap: str,
        head: Annotated[nn.Module, MODULE],
    ) -> None:
        super().__init__()
        self.network = network
        self.tap = tap
        self.head = head

    def forward(self, image: Tensor) -> Any:
        """Return what the student returns for images [N, C, H, W]."""
        return self.with_embedding(image)[0]

    def with_embedding(self, image: Tensor) -> tuple[Any, Tensor]:
        """Return what the student returns for images [N, C, H, W], and embeddings [N, D]."""
        # Copied, since a later layer of the network may work in place on the same memory.
        with FeatureTap(self.network, self.tap, copy=self.tap) as seen:
            output = self.network(image)
        return output, self.head(seen[self.tap])


def node_of(head: nn.Module) -> dict[str, Any]:
    """Return the config node that builds a head again, to load its weights into.

    Raises:
        UserError: If it is neither a linear layer nor an `MLPHead`.
    """
    if isinstance(head, MLPHead):
        first, _, last = head
        widths: dict[str, Any] = {"inputs": first.in_features, "hidden": first.out_features}
        widths |= {"outputs": last.out_features, "activation": head.activation}
        return {"type": f"{MLPHead.__module__}.{MLPHead.__name__}", **widths}
    if type(head) is nn.Linear:
        sizes = {"in_features": head.in_features, "out_features": head.out_features}
        return {"type": "torch.nn.Linear", "bias": head.bias is not None, **sizes}
    raise UserError(
        f"keep_head: a {type(head).__name__} cannot stay with the student; it must be a "
        "torch.nn.Linear or an MLPHead"
    )
