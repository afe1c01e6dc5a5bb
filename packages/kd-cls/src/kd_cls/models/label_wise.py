"""LabelWise: any network with one embedding a class, from which its logits are computed."""

from collections.abc import Mapping, Sequence

import torch
from kd_core.config.values import PositiveInt
from kd_core.errors import UserError
from kd_core.networks.taps import FeatureTap
from torch import Tensor, nn


class LabelWise(nn.Module):
    """Replaces a network's classifier: every class looks at the last map by itself.

    A query of each class attends to the places of the map and gives an embedding, [N, C, D], which
    L2D distils (role `@label_embeddings`); a linear function of each is the class's logit. It is
    the decoder of Ridnik et al., "ML-Decoder: Scalable and Versatile Classification Head", WACV
    2023, arXiv:2111.12933, with one head and learned queries.

    The other roles are those of the network inside.

    Args:
        network: With a linear layer at its end, which is removed.
        num_classes: Number of logits.
        width: Length D of an embedding.
        tap: Path of the last map, [N, channels, H, W] or tokens [N, L, channels]; None takes what
            is known of the network (its role `map`).
        channels: Of the map; None takes the inputs of the network's last linear layer.

    Raises:
        UserError: If there is no linear layer, or the last map is not known.
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: PositiveInt,
        *,
        width: PositiveInt = 64,
        tap: str | None = None,
        channels: PositiveInt | None = None,
    ) -> None:
        from kd_cls.roles import network_roles

        super().__init__()
        roles = network_roles(network)
        if tap is None and len(roles.get("map", ())) != 1:
            raise UserError(
                f"LabelWise: the last map of {type(network).__name__} is not known; name its path "
                "(tap='...', see --list-taps) and its channels"
            )
        name, head = _last_linear(network)
        owner, _, own = name.rpartition(".")
        setattr(network.get_submodule(owner), own, nn.Identity())
        self.own_roles = _inside(roles) | {"label_embeddings": ("decoder",)}
        self.network, self.tap = network, tap or roles["map"][0]
        self.channels = channels or head.in_features
        self.decoder = LabelDecoder(self.channels, num_classes, width)
        self.weight = nn.Parameter(torch.randn(num_classes, width) / width**0.5)
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [N, C] of images [N, 3, H, W]."""
        # Copied, since a later layer of the network may work in place on the same memory.
        with FeatureTap(self.network, self.tap, copy=self.tap) as seen:
            self.network(image)
            embeddings = self.decoder(self._tokens(seen[self.tap]))
        return (embeddings * self.weight).sum(2) + self.bias

    def _tokens(self, values: Tensor) -> Tensor:
        tokens = values.flatten(2).mT if values.dim() == 4 else values
        if tokens.dim() != 3 or tokens.shape[2] != self.channels:
            raise UserError(
                f"LabelWise: tap {self.tap!r} gives {list(values.shape)}; wanted a map [N, "
                f"{self.channels}, H, W] or tokens [N, L, {self.channels}]: set tap and channels"
            )
        return tokens


class LabelDecoder(nn.Module):
    """From tokens [N, L, channels] to one embedding a class, [N, C, width].

    Args:
        channels: Of the tokens.
        num_classes: Number of embeddings.
        width: Length of each.
    """

    def __init__(self, channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_classes, width))
        self.embed = nn.Sequential(nn.Linear(channels, width), nn.ReLU())
        self.keys, self.values = nn.Linear(width, width), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the embeddings."""
        tokens = self.embed(tokens)
        scores = self.queries @ self.keys(tokens).mT / tokens.shape[2] ** 0.5  # [N, C, L]
        seen = scores.softmax(2) @ self.values(tokens)
        seen = self.norm1(self.queries + seen)
        return self.norm2(seen + self.feed(seen))


def _last_linear(network: nn.Module) -> tuple[str, nn.Linear]:
    linear = [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise UserError(f"LabelWise: {type(network).__name__} has no linear layer to replace")
    return linear[-1]


def _inside(roles: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {role: tuple(f"network.{path}" for path in paths) for role, paths in roles.items()}
