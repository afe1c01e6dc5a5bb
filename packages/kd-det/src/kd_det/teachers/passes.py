"""How a network of another library is run for its maps, and what is said where it fails."""

from collections.abc import Sequence
from typing import Any

from kd_core.errors import UserError
from kd_core.networks.tap_paths import entries
from kd_core.runtime.failures import explain, first_line
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.ssd import SSD


class FlatOutput(nn.Module):
    """A network whose output is a dict without others inside: `feature_maps.0` and so on.

    Args:
        net: A network whose output holds tuples or dicts, such as a backbone of transformers.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the tensors of the output by the path to them."""
        return tensors_in(self.net(images))


class StageMaps(FlatOutput):
    """A network of timm whose output is the maps of its stages, as timm itself makes them.

    Args:
        net: A network with `forward_intermediates`.
        levels: Which of its levels; None for all.
        norm: Whether its last norm is applied to them.
    """

    def __init__(self, net: nn.Module, levels: Sequence[int] | None, *, norm: bool) -> None:
        super().__init__(net)
        self.levels = None if levels is None else list(levels)
        self.norm = norm

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps [N, C, H, W] by their places."""
        net: Any = self.net
        maps = net.forward_intermediates(
            images,
            indices=self.levels,
            norm=self.norm,
            stop_early=True,
            output_fmt="NCHW",
            intermediates_only=True,
        )
        return tensors_in(maps)


def whole(network: nn.Module) -> nn.Module:
    """Return the network that a config names, without what `find_maps` puts around it."""
    return network.net if isinstance(network, FlatOutput) else network


def runner_of(network: Any) -> Any:
    """Return the part that makes the maps: of torchvision's detectors the backbone alone."""
    detectors = (GeneralizedRCNN, RetinaNet, FCOS, SSD)
    return network.backbone if isinstance(network, detectors) else network


class failing:  # noqa: N801 - reads as a sentence: `with failing(...)`
    """Turns an error of a network inside a `with` into one line that names its remedy."""

    def __init__(self, network: Any, size: int) -> None:
        self.network, self.size = whole(network), size

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None or not isinstance(error, Exception) or explain(error):
            return
        settings = getattr(self.network, "pretrained_cfg", None) or {}
        own = (settings.get("input_size") or [getattr(self.network, "image_size", 0)])[-1]
        hint = f" ({own}, as it says)" if isinstance(own, int) and own else ""
        raise UserError(
            f"KD.TEACHER.NETWORK: {type(self.network).__name__} failed on images [1, 3, "
            f"{self.size}, {self.size}] ({type(error).__name__}: {first_line(error)}); if it takes "
            f"one size, set KD.TEACHER.INPUT.SIZE{hint}, or let it take any, as timm's "
            "transformers do with KD.TEACHER.ARGS.dynamic_img_size True; if it takes multiples of "
            "a number, set KD.TEACHER.INPUT.MULTIPLE"
        ) from error


def tensors_in(value: Any, path: str = "") -> dict[str, Tensor]:
    """Return the tensors inside a value by the path to them; "" where it is one itself."""
    if isinstance(value, Tensor):
        return {path: value}
    found: dict[str, Tensor] = {}
    for name, item in entries(value).items():
        found |= tensors_in(item, f"{path}.{name}" if path else name)
    return found
