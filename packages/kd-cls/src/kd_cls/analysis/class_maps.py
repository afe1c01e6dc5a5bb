"""Class-activation maps, and Grad-CAM for any network."""

from collections import Counter
from contextlib import suppress

import torch
from kd_core.criteria.heads import find_head
from kd_core.errors import UserError
from kd_core.functional import full_precision
from kd_core.networks.layouts import for_kind
from kd_core.networks.map_layout import MapLayout
from kd_core.networks.probe import untouched
from kd_core.networks.roles import tap_list
from kd_core.networks.taps import FeatureTap, OverwrittenTapError
from torch import Tensor

from kd_cls.analysis.choices import Method
from kd_cls.analysis.features import run_batch, watch
from kd_cls.classifier import Classifier

_TOLERANCE = 1e-3  # of the largest logit


@torch.inference_mode(False)  # Grad-CAM needs gradients
def class_maps(
    classifier: Classifier,
    images: Tensor,
    target: Tensor | None = None,
    *,
    method: Method = "auto",
    layer: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Return where in each image one class is found, and the logits.

    Args:
        classifier: In evaluation mode.
        images: As in batches, uint8 or floats in [0, 1], [N, 3, H, W].
        target: The class of each image, int64 [N]; None takes the predicted one.
        method: `cam` is `activation_maps` before the classifier, `gradcam` is `gradient_maps`;
            `auto` takes the first where the network supports it and no layer is named.
        layer: Tap whose map Grad-CAM uses; None takes `@map`, or the last map.

    Returns:
        Maps [N, h, w], negative where there is evidence against the class (`cam` alone), and
        logits [N, C].

    Raises:
        UserError: If the network has no map, or does not support class-activation maps.
    """
    images = images.clone()  # tensors of inference mode cannot have a gradient
    if method != "gradcam" and layer is None:
        found = _class_activation_maps(classifier, images)
        if found is not None:
            maps, logits = found
            rows = torch.arange(len(images), device=images.device)
            return maps[rows, logits.argmax(1) if target is None else target], logits
    if method == "cam":
        raise UserError(
            f"{type(classifier.network).__name__} does not average a map and then apply one linear "
            "layer, which class-activation maps need; use --method gradcam"
        )
    return gradient_maps(classifier, images, target, layer or _map_of(classifier, images))


@full_precision
def activation_maps(maps: Tensor, weight: Tensor) -> Tensor:
    """Return the class-activation maps of all classes; averaged, they are logits without bias.

    Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016,
    arXiv:1512.04150.

    Args:
        maps: What is averaged before the classifier, [N, D, H, W].
        weight: Of the classifier, [C, D].

    Returns:
        [N, C, H, W].
    """
    return torch.einsum("cd,ndhw->nchw", weight, maps)


def gradient_maps(
    classifier: Classifier, images: Tensor, target: Tensor | None, tap: str
) -> tuple[Tensor, Tensor]:
    """Weigh a layer's channels by the mean gradient of a class's logit, and keep what is positive.

    Selvaraju et al., "Grad-CAM", ICCV 2017, arXiv:1610.02391.

    Args:
        classifier: In evaluation mode.
        images: [N, 3, H, W].
        target: The class of each image, int64 [N]; None takes the predicted one.
        tap: Path of a layer whose output is [N, D, h, w].

    Returns:
        Maps [N, h, w] and logits [N, C].

    Raises:
        UserError: If the layer gives no map.
    """
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images
    tap = for_kind(tap, "maps")
    watched, layout = FeatureTap(classifier.network, tap), MapLayout(classifier.network, [tap])
    # If a later layer overwrites the map, map and gradient are those of that layer.
    with torch.enable_grad(), suppress(OverwrittenTapError), layout, watched as seen:
        logits = classifier({"image": pixels.detach().requires_grad_()})
    layout.check()
    maps = seen[tap]
    if not isinstance(maps, Tensor) or maps.dim() != 4:
        came = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise UserError(f"Grad-CAM takes a map [N, C, H, W], but tap {tap!r} gives {came}")
    classes = logits.argmax(1) if target is None else target
    (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), maps)
    weight = gradient.mean((2, 3), keepdim=True)
    return (weight * maps).sum(1).relu().detach(), logits.detach()


def _class_activation_maps(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the class-activation maps [N, C, h, w] and logits of a network that has them."""
    if not classifier.roles.get("map"):
        return None
    (path,) = (for_kind(tap, "maps") for tap in tap_list("@map", classifier))
    tap = watch(classifier, [path], {"image": images[:1]})
    with torch.no_grad():
        logits, (maps,) = run_batch(classifier, tap, {"image": images})
        with suppress(UserError):
            head = find_head(classifier.network, maps.shape[1], logits.shape[1])
            found = activation_maps(maps, head.weight)
            bias = 0 if head.bias is None else head.bias
            # Only the numbers show what happens between the map and the logits.
            error = (found.mean((2, 3)) + bias - logits).abs().max()
            if error <= _TOLERANCE * logits.abs().max():
                return found, logits
    return None


def _map_of(classifier: Classifier, images: Tensor) -> str:
    """Return the path of the map before the classifier: `@map`, or the last map in the network."""
    if classifier.roles.get("map"):
        return tap_list("@map", classifier)[0]
    runs: Counter[str] = Counter()
    maps: list[str] = []

    def look(path: str, output: object) -> None:
        runs[path] += 1
        if isinstance(output, Tensor) and output.dim() == 4 and output[0, 0].numel() > 1:
            maps.append(path)

    modules = [(path, m) for path, m in classifier.network.named_modules() if path]
    handles = [
        m.register_forward_hook(lambda m, args, out, path=path: look(path, out))
        for path, m in modules
    ]
    try:
        with untouched(classifier):
            classifier({"image": images[:1]})
    finally:
        for handle in handles:
            handle.remove()
    once = [path for path in maps if runs[path] == 1]
    if not once:
        raise UserError(
            f"no layer of {type(classifier.network).__name__} gives a map [N, C, H, W]; Grad-CAM "
            "does not suit it"
        )
    return once[-1]
