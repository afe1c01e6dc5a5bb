"""Pooled features in the plane, by t-SNE."""

from pathlib import Path
from typing import Any

from kd_core.experiment.pictures.tsne import check_perplexity, draw, embed

from kd_cls.analysis.features import choose, collect
from kd_cls.analysis.subject import Subject


def analyse(
    subject: Subject, path: Path, *, limit: int | None = 2000, perplexity: float = 30
) -> dict[str, Any]:
    """Draw the features that every model classifies, coloured by the true class.

    Args:
        subject: The models; the teacher's panel is the first.
        path: PNG file.
        limit: Number of images, see `choose`; the time grows with it.
        perplexity: Of t-SNE, the number of neighbours that it uses.

    Returns:
        `label` of the images, and by model their places in the plane.
    """
    check_perplexity(perplexity)
    loader = choose(subject.test, limit)
    points = {}
    for label, model in subject.all_models.items():
        found = collect(model, loader, "@pooled", title=label)
        points[label] = embed(found.features.cpu().numpy(), perplexity)
    classes = found.label.cpu().numpy()
    draw(points, classes, subject.data.classes, path)
    places = {label: array.round(3).tolist() for label, array in points.items()}
    return {"label": classes.tolist(), "points": places}
