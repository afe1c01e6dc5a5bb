"""Features in the plane, by t-SNE."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kd_core.errors import UserError
from kd_core.experiment.pictures.figure import FEW_CLASSES, panels, set_title
from kd_core.experiment.tables.plots import add_legend, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEWEST = 5  # t-SNE needs at least so many images


def check_perplexity(perplexity: float) -> None:
    """Reject a number of neighbours that is not above 0.

    Raises:
        UserError: If it is not.
    """
    if not perplexity > 0:
        raise UserError(f"--perplexity {perplexity}: wanted a number of neighbours, above 0")


def check_count(count: int) -> None:
    """Reject fewer images than t-SNE can place.

    Raises:
        UserError: If there are too few.
    """
    if count < FEWEST:
        raise UserError(f"t-SNE of {count} images: wanted {FEWEST} at least")


def require_package() -> None:
    """Reject an installation without the package, before any work.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import sklearn.manifold  # noqa: F401 - slow to import
    except ImportError as error:
        raise UserError("t-SNE needs the package scikit-learn") from error


def embed(features: np.ndarray, perplexity: float = 30) -> np.ndarray:
    """Return places in the plane, [N, 2], always the same for the same features.

    Van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008, initialised with the
    two principal components.

    Args:
        features: [N, D].
        perplexity: Cut to a third of the images, since it must be below their number.

    Raises:
        UserError: If there are too few images, features that are not finite, a perplexity of 0 or
            less, or scikit-learn is not installed.
    """
    check_perplexity(perplexity)
    check_count(len(features))
    if not np.isfinite(features).all():
        raise UserError("t-SNE: the features of this model are not finite")
    require_package()
    from sklearn.manifold import TSNE

    fitted = TSNE(init="pca", random_state=0, perplexity=min(perplexity, (len(features) - 1) / 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of principal components without variance
        return fitted.fit_transform(features)


def draw(
    points: Mapping[str, np.ndarray], label: np.ndarray, classes: Sequence[str], path: Path
) -> None:
    """Draw one panel a model.

    Args:
        points: By model, places [N, 2].
        label: True classes, int64 [N].
        classes: Their names.
        path: PNG file.
    """
    figure, axes = panels(len(points))
    for panel, (name, places) in zip(axes, points.items(), strict=True):
        _scatter(panel, places, label, classes)
        set_title(panel, name)
        panel.set(xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
    if len(classes) <= FEW_CLASSES:
        entries = dict(zip(classes, axes[0].collections, strict=True))
        add_legend(figure, entries, "outside right center", markerscale=3, frameon=False)
    save_png(figure, path)


def _scatter(panel: "Axes", places: np.ndarray, label: np.ndarray, classes: Sequence[str]) -> None:
    from matplotlib import colormaps

    several = len(classes) <= FEW_CLASSES
    named = colormaps["tab10" if len(classes) <= 10 else "tab20"]
    size = min(12.0, 6000 / len(places))
    for number in range(len(classes)):
        colour = named(number) if several else colormaps["hsv"](number / len(classes))
        of_class = places[label == number]
        x, y = of_class.T
        panel.scatter(x, y, s=size, color=colour, alpha=0.6, linewidths=0)
