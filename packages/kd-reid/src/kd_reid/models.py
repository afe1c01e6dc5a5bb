"""Networks of torchreid by name, as this package uses them: logits and embedding at once."""

import ast
import io
from contextlib import redirect_stdout
from typing import Any

from kd_core.errors import UserError, nearest
from torch import nn

from kd_reid import torchreid


def build_model(
    name: str, num_classes: int, *, pretrained: bool = False, **options: Any
) -> nn.Module:
    """Build a network of torchreid, such as `osnet_x0_25` or `resnet50`.

    While training, it returns logits [N, identities] and an embedding [N, D].

    Args:
        name: One of `model_names()`.
        num_classes: Identities of the training set.
        pretrained: Whether torchreid is to download weights trained on ImageNet, where it knows a
            place that has them; see `backbone_weights` of a config's node for a file of yours.
        options: Further arguments of the network's own function, such as `dropout_p`.

    Raises:
        UserError: If torchreid has no network of this name.
    """
    names = model_names()
    if name not in names:
        raise UserError(f"torchreid has no network {name!r}{nearest(name, names)}")
    return torchreid.models.build_model(
        name, num_classes, loss="triplet", pretrained=pretrained, use_gpu=False, **options
    )


def model_names() -> list[str]:
    """Return the names of torchreid's networks."""
    with redirect_stdout(io.StringIO()) as printed:  # it gives them in no other way
        torchreid.models.show_avai_models()
    return list(ast.literal_eval(printed.getvalue()))
