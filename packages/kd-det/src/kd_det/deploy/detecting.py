"""Objects in a picture, found by a finished detector or by an exported file."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from detectron2.structures import Instances
from kd_core.errors import UserError
from kd_core.runtime.failures import explain, first_line

from kd_det.deploy.categories import Categories
from kd_det.deploy.deployment import score_threshold
from kd_det.deploy.description import FORMATS, read_description
from kd_det.deploy.finished import load_finished
from kd_det.deploy.runtimes import EAGER, NAMES, load_runtime
from kd_det.deploy.scaling import Scaling, scaling_of, to_input, to_picture
from kd_det.deploy.traceable import Run, Traceable, instances


class Detecting(NamedTuple):
    """What finds objects.

    Attributes:
        run: From an input to `outputs`.
        runtime: Its name.
        scaling: From a picture to an input.
        outputs: Names.
        categories: Of the classes.
        score_threshold: Objects below it are never found.
    """

    run: Run
    runtime: str
    scaling: Scaling
    outputs: Sequence[str]
    categories: Categories
    score_threshold: float


def load_detecting(
    path: Path, weights: str | None, options: Sequence[str], threads: int | None = None
) -> Detecting:
    """Load a run, a config with weights, or an exported file.

    Args:
        path: Folder, config or file.
        weights: Of a run or config; see `load_finished`.
        options: KEY VALUE pairs that change its config.
        threads: Of ONNX Runtime.
    """
    if path.suffix in FORMATS.values() and path.is_file():
        what = read_description(path)
        run = load_runtime(path, path.suffix, threads)
        known = what.categories, what.score_threshold
        return Detecting(run, NAMES[path.suffix], what.scaling, what.outputs, *known)
    finished = load_finished(path, weights, options)
    network = Traceable(finished.network)
    known = finished.categories, score_threshold(finished.network)
    return Detecting(network, EAGER, scaling_of(finished.cfg), network.names, *known)


@torch.inference_mode()
def detect(detecting: Detecting, pixels: np.ndarray, threshold: float) -> Instances:
    """Return the objects in a picture, the most certain first.

    Args:
        detecting: What finds them.
        pixels: uint8 [H, W, 3] in RGB.
        threshold: Least score.

    Raises:
        UserError: If an exported file gives what it does not say.
    """
    image, size = to_input(pixels, detecting.scaling)
    try:
        found = list(detecting.run(image))
    except Exception as error:  # runtimes raise many types
        if detecting.runtime == EAGER or explain(error) is not None:
            raise
        raise UserError(
            f"{detecting.runtime} fails with an image of {image.shape[1]} x {image.shape[2]} "
            f"pixels ({first_line(error)}); export the detector again"
        ) from error
    if len(found) != len(detecting.outputs):
        raise UserError(
            f"the file gives {len(found)} outputs, its JSON names {len(detecting.outputs)}; export "
            "the detector again"
        )
    whole = instances(found, detecting.outputs, size)
    kept = whole[whole.scores >= threshold]
    return to_picture(kept[kept.scores.argsort(descending=True, stable=True)], size, pixels)
