"""What networks return for images: embeddings in evaluation, logits and embeddings in training."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core.errors import UserError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_WITH_FLAG = {
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout),
    *(F.feature_alpha_dropout, F.rrelu, F.batch_norm, F.multi_head_attention_forward),
}
"""Functions with an argument `training`."""


class Embedding(NamedTuple):
    """Output of a network for images.

    In evaluation, a user's network may give the embedding alone. Logits and features are
    empty then; `Embedder.embed` runs it again for them.
    """

    embedding: Tensor  # [N, D], for the search
    logits: tuple[Tensor, ...]  # of each head, [N, identities of the training set]
    features: tuple[Tensor, ...]  # before each head, [N, D]; input of metric losses


class Pair(NamedTuple):
    """What a network gives in training."""

    logits: tuple[Tensor, ...]
    features: tuple[Tensor, ...]


@contextmanager
def all_outputs(network: nn.Module) -> Iterator[None]:
    """Let a network return its training outputs, its layers in their present mode.

    In evaluation most of these networks return no logits. The flag of the network itself decides
    that. The flags of its layers are not changed, and in evaluation functions that get the
    network's flag, such as `F.dropout`, act as in evaluation.
    """
    before, network.training = network.training, True
    try:
        if before:
            yield
        else:
            with _AsInEvaluation():
                yield
    except AssertionError as error:  # of HACNN, which takes one size only
        raise UserError(
            f"{type(network).__name__}: {error}; give its node size=[height, width]"
        ) from error
    finally:
        network.training = before


class _AsInEvaluation(TorchFunctionMode):
    """Calls functions that take `training` with False."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            return func(
                *args[:4], **{**given, **dict(zip(_REST, args[4:], strict=False)), "dropout_p": 0.0}
            )
        if func in _WITH_FLAG:
            call = inspect.signature(func).bind(*args, **given)
            named = call.arguments
            # Without running statistics, a BatchNorm has those of the batch in both modes.
            if func is not F.batch_norm or named.get("running_mean") is not None:
                named["training"] = False
            return func(*call.args, **call.kwargs)
        return func(*args, **given)


_REST = ("dropout_p", "is_causal", "scale", "enable_gqa")


def training_pair(given: Any, network: nn.Module) -> Pair:
    """Return the logits and the features of each head.

    Raises:
        UserError: If the network returned anything else.
    """
    found = pair_in(given)
    if found is None:
        pair = isinstance(given, tuple | list) and len(given) == 2
        came = f"a {type(given).__name__}" if not pair else "something else in them"
        raise UserError(
            f"{type(network).__name__} returned {came}; in training mode it must return logits "
            "[N, identities] and an embedding [N, D] (in torchreid: loss='triplet'; "
            "kd_reid.models.build_model does that)"
        )
    return found


def pair_in(given: Any) -> Pair | None:
    """Return logits and features, each a matrix or several; None if it is not that."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        return None
    found = Pair(*map(_matrices, given))
    return found if found.logits and found.features else None


def in_evaluation(given: Any, network: nn.Module) -> Embedding:
    """Return what a user's network gave in evaluation: an embedding, or as in training.

    Raises:
        UserError: If it gave anything else.
    """
    if isinstance(given, Tensor) and given.dim() == 2:
        return Embedding(given, (), ())
    found = pair_in(given)
    if found is None:
        came = f"{list(given.shape)}" if isinstance(given, Tensor) else f"a {type(given).__name__}"
        raise UserError(
            f"{type(network).__name__} returned {came} in evaluation; wanted the embedding [N, D] "
            "that images are searched by, or logits and embedding as in training"
        )
    return Embedding(joined(found.features), *found)


def joined(features: tuple[Tensor, ...]) -> Tensor:
    """Return the embeddings of several heads as one, [N, sum of D], each scaled to length 1."""
    if len(features) == 1:
        return features[0]
    return torch.cat([F.normalize(rows) for rows in features], 1)


def _matrices(part: Any) -> tuple[Tensor, ...]:
    parts = tuple(part) if isinstance(part, tuple | list) else (part,)
    return parts if all(isinstance(x, Tensor) and x.dim() == 2 for x in parts) else ()
