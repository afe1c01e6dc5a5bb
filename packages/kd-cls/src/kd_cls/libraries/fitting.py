"""Fit a built network to the data's classes: new heads, weights from a file, a frozen backbone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from kd_core.criteria.headless import with_layers, without_head
from kd_core.files.weights import load_weights, matching_state
from kd_core.networks.image_channels import input_channels, with_channels
from kd_core.networks.outputs import known_key, tensor_in
from kd_core.networks.probe import materialise
from kd_core.runtime.console import err
from torch import Tensor, nn

from kd_cls.libraries.heads import Trial, find_heads
from kd_cls.libraries.outputs import without_auxiliary
from kd_cls.libraries.positions import with_positions
from kd_cls.models.with_head import WithHead


@dataclass(frozen=True)
class Fitting:
    """What a node says of its network's head and weights.

    Args:
        num_classes: Of the data.
        images: Zeros, float [N, C, H, W], of the size that the network gets; of its channels where
            it takes others than the data has.
        file: Weights, or None.
        new_head: Whether the heads are replaced.
        linear_probe: Whether the heads are replaced and all else is frozen; the heads in the file
            may have other classes.
        head: Paths of the heads' layers, where the node names them.
        output: Name or number of what counts among the outputs.
    """

    num_classes: int
    images: Tensor
    file: str | None = None
    new_head: bool = False
    linear_probe: bool = False
    head: str | Sequence[str] | None = None
    output: str | int | None = None

    def fit(self, network: nn.Module) -> nn.Module:
        """Return the network with heads and weights as they should be; changed in place.

        Raises:
            UserError: If its heads are not found, or the file does not fit.
        """
        images = with_channels(self.images, input_channels(network, self.images.shape[1]))
        materialise(network, images)
        own = network.state_dict()
        state = matching_state(self.file, own, silent=True) if self.file else {}
        off = without_auxiliary(network, state)
        if self.new_head or self.linear_probe:
            network = self._with_new_heads(network, state, images)
        else:
            self._load(network)
        if without_auxiliary(network) or off:
            err.print(
                f"{type(network).__name__}: its auxiliary classifiers are switched off; only its "
                "logits are trained"
            )
        return network

    def _with_new_heads(
        self, network: nn.Module, state: Mapping[str, Tensor], images: Tensor
    ) -> nn.Module:
        key = key_of(network, self.output)
        trial = Trial(images, lambda returned: tensor_in(returned, key, network))
        heads = find_heads(network, self.num_classes, self.head, trial)
        if isinstance(heads.network, WithHead):
            heads.network.output = key
        of_file = state.get(f"{heads.paths[0]}.weight")
        if self.file and of_file is None and not isinstance(heads.network, WithHead):
            old = dict(zip(heads.paths, heads.layers(), strict=True))
            self._load(without_head(heads.network, heads.paths))  # of a student of features
            with_layers(heads.network, old)
            heads = heads.renewed(self.num_classes)
        elif not self.linear_probe:
            heads = heads.renewed(self.num_classes)
            self._load(heads.network)
        else:
            if of_file is not None:  # so that the whole file must fit
                heads = heads.renewed(len(of_file))
            self._load(heads.network)
            heads = heads.renewed(self.num_classes)
        if not self.linear_probe:
            return heads.network
        heads.network.requires_grad_(False)
        for layer in heads.layers():
            layer.requires_grad_(True)
        return heads.network

    def _load(self, network: nn.Module) -> None:
        """Load the file; where a head was added, it may be of the network without it."""
        if self.file is None:
            return
        if isinstance(network, WithHead):
            found = matching_state(self.file, network.state_dict(), silent=True)
            if not any(name.startswith("backbone.") for name in found):
                network = network.backbone
        load_weights(network, self.file, adapt=partial(with_positions, network))


def key_of(network: nn.Module, output: str | int | None) -> str | int | None:
    """Return where the logits are among what a network returns; None if it returns them alone."""
    if isinstance(network, WithHead):
        return None
    return known_key(network) if output is None else output
