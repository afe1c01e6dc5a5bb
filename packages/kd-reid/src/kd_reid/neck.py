"""The batch-normalisation neck between the embedding of the metric loss and the classifier."""

from collections.abc import Mapping

import torch
from kd_core.errors import UserError
from torch import Tensor, nn

_EPS = 1e-5
CLASSIFIER = "classifier"  # of all torchreid's networks that have one linear head


class BNNeck(nn.Module):
    """Normalise the embedding, then classify it without a bias.

    Luo et al., "Bag of Tricks and A Strong Baseline for Deep Person Re-identification", CVPRW 2019,
    arXiv:1903.07071: the metric loss takes the embedding before it, the search the one after `bn`,
    by cosine distance. The shift of the normalisation stays 0.

    Args:
        width: Of the embedding.
        num_classes: Identities.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(width, eps=_EPS)
        self.bn.bias.requires_grad_(False)
        self.linear = nn.Linear(width, num_classes, bias=False)
        nn.init.normal_(self.linear.weight, std=0.001)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return logits [N, C] of embeddings [N, D]."""
        return self.linear(self.bn(embedding))


def attach(network: nn.Module) -> None:
    """Replace a network's classifier by a neck.

    Raises:
        UserError: If the network has not one linear classifier with the usual name.
    """
    head = getattr(network, CLASSIFIER, None)
    if not isinstance(head, nn.Linear):
        found = type(head).__name__ if head is not None else "none"
        raise UserError(
            f"bnneck: wanted a linear layer {CLASSIFIER!r} in {type(network).__name__}, got {found}"
        )
    setattr(network, CLASSIFIER, BNNeck(head.in_features, head.out_features))


def neck_of(network: nn.Module) -> BNNeck | None:
    """Return the neck of a network, or None."""
    head = getattr(network, CLASSIFIER, None)
    return head if isinstance(head, BNNeck) else None


@torch.no_grad()
def without_neck(network: nn.Module) -> dict[str, Tensor]:
    """Convert the weights of a network with a neck to those of the plain network.

    In evaluation the neck is one linear map; its weight and bias become those of the plain
    classifier, so the plain network gives the same logits.
    """
    inside = f"{CLASSIFIER}."
    state = {k: v for k, v in network.state_dict().items() if not k.startswith(inside)}
    neck = network.get_submodule(CLASSIFIER).state_dict()
    scale = neck["bn.weight"] / (neck["bn.running_var"] + _EPS).sqrt()
    shift = neck["bn.bias"] - neck["bn.running_mean"] * scale
    state[f"{inside}weight"] = neck["linear.weight"] * scale
    state[f"{inside}bias"] = neck["linear.weight"] @ shift
    return state


def with_neck(plain: Mapping[str, Tensor], neck: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a network with a neck from the two files of a run."""
    inside = f"{CLASSIFIER}."
    body = {k: v for k, v in plain.items() if not k.startswith(inside)}
    return {**body, **{f"{inside}{name}": value for name, value in neck.items()}}
