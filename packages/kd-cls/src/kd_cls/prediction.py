"""Predictions of a finished student for image files."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from kd_core.data.image_files import read_image
from kd_core.errors import UserError, located
from kd_core.runtime.console import out
from kd_core.runtime.failures import explain, first_line
from rich.table import Table
from rich.text import Text
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from kd_cls.classifier import Classifier
from kd_cls.student import classes_of, find_student, load_student, read_facts, sides_of


class Prediction(NamedTuple):
    """One class and its probability."""

    name: str
    probability: float


def show(student: str, images: Sequence[str], *, top: int, as_json: bool) -> None:
    """Print the likeliest classes of every image, as a table or as JSON; see `predict`."""
    predictions = predict(student, images, top=top)
    if as_json:
        print(json.dumps(_as_json(predictions), indent=2))
    else:
        out.print(_as_table(predictions))


def predict(
    student: str | Path, images: Sequence[str], *, top: int = 5
) -> dict[str, list[Prediction]]:
    """Return the most likely classes of every image, the most likely first.

    Args:
        student: Folder of a finished run, or its `student.safetensors`.
        images: Image files; each is scaled and cropped to the student's image size.
        top: Number of classes, at most all.

    Raises:
        UserError: If the student or an image cannot be read.
    """
    if top < 1:
        raise UserError(f"--top {top}: wanted a number of classes, at least 1")
    file = find_student(student)
    facts = read_facts(file)
    names = classes_of(facts, file)
    side, shorter = sides_of(facts, file)
    classifier = load_student(file)
    predictions = {}
    for image in images:
        pixels = load_image(image, side, shorter)
        with located(str(file)), _explained():
            found = probabilities(classifier, pixels)
        if len(found) != len(names):
            raise UserError(
                f"{file}: names {len(names)} classes, but its network gives {len(found)} logits; "
                "name a file that the training tool wrote"
            )
        best = found.topk(min(top, len(names)))
        predictions[image] = [
            Prediction(names[index], probability)
            for probability, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
    return predictions


def load_image(file: str, size: int, shorter_side: int | None = None) -> Tensor:
    """Read an image upright, scale it, crop the centre of `size` pixels; uint8 [3, H, W].

    `resize_rule` says it in words.

    Args:
        file: The image.
        size: Of the crop.
        shorter_side: Of the image before the crop; None is `size`.

    Raises:
        UserError: If the file is missing or damaged.
    """
    image = vision.resize(read_image(file), [shorter_side or size])
    return vision.pil_to_tensor(vision.center_crop(image, [size]))


@torch.inference_mode()
def probabilities(classifier: Classifier, image: Tensor) -> Tensor:
    """Return the probability of every class for one image; [3, H, W] to [C].

    Of several labels an image each has its own, and they do not add up to 1.
    """
    logits = classifier({"image": image[None]})[0].float()
    return logits.sigmoid() if classifier.multi_label else logits.softmax(dim=0)


@contextmanager
def _explained() -> Iterator[None]:
    """Explain in one line that the network of a file fails: it may come from anybody."""
    try:
        yield
    except Exception as error:
        if explain(error) is not None:  # an error of the machine, such as lack of memory
            raise
        raise UserError(
            f"its network fails with an image ({type(error).__name__}: {first_line(error)}); "
            "name a file that the training tool wrote"
        ) from error


def _as_json(predictions: dict[str, list[Prediction]]) -> list[dict[str, object]]:
    return [
        {"image": image, "predictions": [found._asdict() for found in best]}
        for image, best in predictions.items()
    ]


def _as_table(predictions: dict[str, list[Prediction]]) -> Table:
    table = Table("image", "class")
    table.add_column("probability", justify="right")
    for image, best in predictions.items():
        for rank, (name, probability) in enumerate(best):
            last = rank == len(best) - 1
            # Text: names in brackets are not markup.
            row = (Text("" if rank else image, overflow="fold"), Text(name), f"{probability:.4f}")
            table.add_row(*row, end_section=last)
    return table
