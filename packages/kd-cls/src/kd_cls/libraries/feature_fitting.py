"""Fit a built network to data without classes: no head, or the head that its weights have."""

from collections.abc import Sequence
from dataclasses import dataclass

from kd_core.criteria.headless import without_head
from kd_core.files.weights import load_weights, matching_state
from kd_core.networks.image_channels import input_channels, with_channels
from kd_core.networks.outputs import tensor_in
from kd_core.networks.probe import materialise
from torch import Tensor, nn

from kd_cls.libraries.fitting import key_of
from kd_cls.libraries.heads import (
    ON_OUTPUT,
    Heads,
    Trial,
    followed_back,
    heads_among,
    own_heads,
    require_layer,
    resets_itself,
)
from kd_cls.libraries.outputs import without_auxiliary


@dataclass(frozen=True)
class FeatureFitting:
    """What a node says of a network that is to give features.

    Args:
        images: Zeros, float [N, C, H, W], of the size that the network gets.
        without_head: Whether the classifier is left out; otherwise it is as in the file.
        file: Weights, or None; with a head of any number of classes, or without one.
        head: Paths of the classifier's layers, where the node names them; `output` for none.
        output: Name or number of what counts among the outputs.
    """

    images: Tensor
    without_head: bool
    file: str | None = None
    head: str | Sequence[str] | None = None
    output: str | int | None = None

    def fit(self, network: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
        """Return the network, changed in place, and the paths of the layers that were left out.

        Raises:
            UserError: If its classifier is in doubt, or the file does not fit.
        """
        images = with_channels(self.images, input_channels(network, self.images.shape[1]))
        materialise(network, images)
        own = network.state_dict()
        state = matching_state(self.file, own, silent=True) if self.file else {}
        without_auxiliary(network, state)
        fits = {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in own.items()}
        if not self.without_head and (fits or not self.file):
            paths: tuple[str, ...] = ()
        else:
            paths = self._heads(network, images)
        headless = False
        if self.file:
            rows = [state.get(f"{path}.weight") for path in paths]
            headless = bool(paths) and all(weight is None for weight in rows)
            if headless:
                without_head(network, paths)
            elif rows and rows[0] is not None and not fits:
                network = Heads(network, paths).renewed(len(rows[0])).network
            load_weights(network, self.file)
        if self.without_head and not headless:
            without_head(network, paths)
        return network, paths if self.without_head or headless else ()

    def _heads(self, network: nn.Module, images: Tensor) -> tuple[str, ...]:
        """Return the paths of the layers that give logits; none of a network without them."""
        if self.head == ON_OUTPUT:
            return ()
        if self.head is not None:
            paths = (self.head,) if isinstance(self.head, str) else tuple(self.head)
            for path in paths:
                require_layer(network, path)
            return paths
        if resets_itself(network):
            return own_heads(network)
        key = key_of(network, self.output)
        trial = Trial(images, lambda returned: tensor_in(returned, key, network))
        return heads_among(network, followed_back(network, trial))
