"""Classifiers of other people: evaluation searches with embeddings and needs no logits."""

from pathlib import Path

from kd_core.files.weights import read_state_dict
from kd_core.runtime import distributed
from torch import nn


def fit_heads(network: nn.Module, path: str | Path, identities: int) -> None:
    """Give a network's linear classifiers as many outputs as a file of its weights has.

    So a run is evaluated on data of another number of training people.

    Args:
        network: Made for the data; the classifiers that do not fit are replaced.
        path: The file; it is read as `load_checkpoint` reads it.
        identities: Of the data's training people.

    Raises:
        UserError: If the file cannot be read.
    """
    state = read_state_dict(path)
    for name, module in list(network.named_modules()):
        if not isinstance(module, nn.Linear) or module.out_features != identities:
            continue
        # In a plain file a neck's `classifier.linear` is `classifier`.
        weight = state.get(f"{name}.weight", state.get(f"{name.rpartition('.')[0]}.weight"))
        if weight is None or weight.dim() != 2 or weight.shape[1] != module.in_features:
            continue
        if len(weight) != identities:
            bias, place = module.bias is not None, {"device": module.weight.device}
            parent, _, last = name.rpartition(".")
            head = nn.Linear(module.in_features, len(weight), bias=bias, **place)
            setattr(network.get_submodule(parent), last, head)
            distributed.print_note(
                f"{path}: was trained on {len(weight):,} people, the data has {identities:,}; "
                "the embeddings are evaluated"
            )
