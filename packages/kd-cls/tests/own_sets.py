"""Data sets as people write them, for the tests of `kd_cls.data.dataset`."""

import random

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset


def pixels(number):
    """Return an image of 10 x 8 pixels that names its number in every one, with a ramp in green."""
    image = np.full((8, 10, 3), number, dtype=np.uint8)
    image[..., 1] = np.arange(10) * 5
    return image


FORMS = {
    "pil": Image.fromarray,
    "array": lambda image: image,
    "float_array": lambda image: image / 255,
    "tensor": lambda image: torch.from_numpy(image).permute(2, 0, 1),
    "float": lambda image: torch.from_numpy(image).permute(2, 0, 1) / 255,
    "bytes": lambda image: torch.from_numpy(image).permute(2, 0, 1).float(),
    "normalised": lambda image: torch.from_numpy(image).permute(2, 0, 1) / 127.5 - 1,
    "long": lambda image: torch.from_numpy(image).permute(2, 0, 1).long(),
    "swapped": lambda image: image.transpose(2, 0, 1),
    "text": lambda image: "a.png",
}


class Own(Dataset):
    """Items of one form; item n is of class n % 3."""

    def __init__(self, form="pil", count=9, *, start=0, as_dict=False, label="int", items=2):
        self.form, self.count, self.start = FORMS[form], count, start
        self.as_dict, self.label, self.items = as_dict, label, items
        self.read = 0

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        if not 0 <= number < self.count:
            raise IndexError(number)
        self.read += 1
        image, of = self.form(pixels(number + self.start)), number % 3
        label = {
            "int": of,
            "numpy": np.int64(of),
            "tensor": torch.tensor(of),
            "several": [1.0, float(of == 1), 0.0],
            "text": "cat",
            "float": 1.5,
            "large": of + 5 * (number == 4),
        }[self.label]
        if self.as_dict:
            return {"image": image, "label": label}
        return (image, label, number)[: self.items]


class Listed(Own):
    """Lists its labels as torchvision's sets do, and shifts them where it is told to."""

    def __init__(self, shift=0, **options):
        super().__init__(**options)
        self.targets = [(number + shift) % 3 for number in range(self.count)]
        self.classes = ["ant", "bee", "cow"]


class Drawing(Own):
    """Mirrors its images at random."""

    def __getitem__(self, number):
        image, label = super().__getitem__(number)
        return image.transpose(
            Image.Transpose.FLIP_LEFT_RIGHT
        ) if random.random() < 0.5 else image, label


class Failing(Own):
    def __getitem__(self, number):
        raise ZeroDivisionError("by zero")


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


def subset(count: int = 6) -> Subset:
    """Return a part of a set, as `random_split` gives it."""
    return Subset(Own(), list(range(3, 3 + count)))


def silent(count=6):
    return Own(count=count)
