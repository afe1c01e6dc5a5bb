"""A grid of images with the class activation map of every model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core.errors import UserError, located
from kd_core.experiment.pictures.figure import add_height_of_titles, set_title
from kd_core.experiment.tables.plots import new_figure, save_png
from torch import Tensor

from kd_cls.analysis.choices import Method, Target
from kd_cls.analysis.class_maps import class_maps
from kd_cls.analysis.features import choose
from kd_cls.analysis.subject import Subject
from kd_cls.prediction import load_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_IMAGES = 40  # more rows make no picture
_PANEL = 1.45  # inches
_SHORT = 14  # characters of a name beside which a number has room


class Grid(NamedTuple):
    """Images of the grid.

    Attributes:
        images: uint8 [N, 3, H, W].
        names: A name for each: the true class, or the file.
        label: The true classes, int64 [N]; None where they are unknown.
    """

    images: Tensor
    names: list[str]
    label: Tensor | None


class Heat(NamedTuple):
    """Result of a model: heat in [0, 1], [N, H, W]; classes and their probabilities."""

    heat: Tensor
    classes: list[str]
    probability: list[float]


def analyse(
    subject: Subject,
    path: Path,
    *,
    limit: int | None = 6,
    files: Sequence[str] = (),
    method: Method = "auto",
    target: Target = "predicted",
    layer: str | None = None,
) -> dict[str, Any]:
    """Draw, over every image, where each model finds a class.

    Args:
        subject: The models; the teacher's column is the first.
        path: PNG file.
        limit: Number of test images, see `choose`.
        files: Image files to use instead.
        method: See `class_maps`.
        target: Whether to show the predicted or the true class.
        layer: See `class_maps`; for all models.

    Returns:
        By model: a list of `image`, `class` and `probability`.

    Raises:
        UserError: If there are too many images, or files whose true classes are asked for.
    """
    shown = _files(subject, files) if files else _test_images(subject, limit)
    if target == "true" and shown.label is None:
        raise UserError("the true classes of image files are not known; use --target predicted")
    wanted = shown.label if target == "true" else None
    seen = {}
    for label, model in subject.all_models.items():
        with located(label):
            maps, logits = class_maps(model, shown.images, wanted, method=method, layer=layer)
        seen[label] = _seen(maps, logits, wanted, shown.images, subject.data.classes)
    draw(shown, seen, path)
    return {
        label: [
            {"image": image, "class": name, "probability": round(probability, 4)}
            for image, name, probability in zip(
                shown.names, found.classes, found.probability, strict=True
            )
        ]
        for label, found in seen.items()
    }


def as_heat(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps [N, h, w] in the size of the images, from 0 (no evidence) to 1 (the most)."""
    heat = F.interpolate(maps[:, None].float(), tuple(size), mode="bilinear")[:, 0].relu()
    return heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-12)


def draw(shown: Grid, seen: Mapping[str, Heat], path: Path) -> None:
    """Draw a row for each image and a column for each model, after the column of images.

    Args:
        shown: The images.
        seen: By model.
        path: PNG file.
    """
    columns = 1 + len(seen)
    figure = new_figure(_PANEL * columns + 0.4, _PANEL * (len(shown.images) + 0.2))
    # A row of no height has the headers, so that they are above titles of any length.
    heights = [0.001, *(1.0 for _ in shown.images)]
    axes = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights)
    for panel, label in zip(axes[0], ("image", *seen), strict=True):
        panel.axis("off")
        set_title(panel, label, inches=_PANEL, weight="bold", fontsize="small")
    pictures = shown.images.permute(0, 2, 3, 1).cpu().numpy()
    for row, (picture, name) in enumerate(zip(pictures, shown.names, strict=True)):
        first, *others = axes[row + 1]
        _show(first, picture, name)
        for panel, found in zip(others, seen.values(), strict=True):
            _show(panel, picture, _label(found.classes[row], found.probability[row]))
            heat = found.heat[row].cpu().numpy()
            panel.imshow(heat, cmap="jet", vmin=0, vmax=1, alpha=0.45)
    add_height_of_titles(figure, axes)
    save_png(figure, path)


def _label(name: str, probability: float) -> str:
    """Return a title in which a long name, which is cut, leaves the probability."""
    gap = " " if len(name) <= _SHORT else "\n"
    return f"{name}{gap}{probability:.2f}"


def _show(panel: "Axes", picture: Any, title: str) -> None:
    panel.imshow(picture)
    panel.set(xticks=[], yticks=[])
    set_title(panel, title, inches=_PANEL, fontsize="small")


def _seen(
    maps: Tensor, logits: Tensor, wanted: Tensor | None, images: Tensor, classes: Sequence[str]
) -> Heat:
    chosen = logits.argmax(1) if wanted is None else wanted
    probability = logits.float().softmax(1).gather(1, chosen[:, None])[:, 0]
    names = [classes[number] for number in chosen.tolist()]
    return Heat(as_heat(maps, images.shape[-2:]), names, probability.tolist())


def _test_images(subject: Subject, limit: int | None) -> Grid:
    part = choose(subject.test, limit)
    count = len(part.labels) if part.sampler is None else len(part.sampler)
    _require_few(count)
    batch = part.sample(count)
    names = [subject.data.classes[label] for label in batch["label"].tolist()]
    return Grid(batch["image"], names, batch["label"])


def _files(subject: Subject, files: Sequence[str]) -> Grid:
    _require_few(len(files))
    data = subject.data
    images = torch.stack([load_image(file, data.image_size, data.shorter_side) for file in files])
    return Grid(images.to(subject.test.device), [Path(file).name for file in files], None)


def _require_few(count: int) -> None:
    if count > MOST_IMAGES:
        raise UserError(f"{count} images are too many for one picture: at most {MOST_IMAGES}")
