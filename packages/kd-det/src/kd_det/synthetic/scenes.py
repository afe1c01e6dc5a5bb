"""Draw an image of coloured shapes on a noisy background."""

from colorsys import hsv_to_rgb
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

_MOST_SHAPES = 7
_RADII = (0.05, 0.2)  # of a shape, of the image's side
_MOST_HIDDEN = 0.4  # share of a shape's area hidden by others
_MOST_TURN = 0.4  # rotation of a shape, in radians
_STROKES = 5  # lines of clutter
_SPREAD = 0.08  # standard deviation of a category's hue, in turns; the next is 1/6 away
_CONTRAST = 80  # least distance of a shape's colour from its background, in RGB of 255
_NOISE = 12  # standard deviation of a pixel's noise, of 255
_FINER = 4  # subpixels per side of a pixel in masks


class Shape(NamedTuple):
    """A shape of a scene: its category and its corners, [P, 2], x and y in pixels."""

    category: str
    corners: np.ndarray


def _spokes(*radii: float) -> np.ndarray:
    """Return corners at these distances from the centre and at equal angles, [P, 2]."""
    angle = np.arange(len(radii)) * (2 * np.pi / len(radii)) - np.pi / 2
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.array(radii)[:, None]


_CROSS = [(3, -1), (3, 1), (1, 1), (1, 3), (-1, 3), (-1, 1)]  # the other half is its mirror image

OUTLINES = {
    "circle": _spokes(*[1] * 32),
    "triangle": _spokes(1, 1, 1),
    "square": np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) / 2**0.5,
    "pentagon": _spokes(1, 1, 1, 1, 1),
    "star": _spokes(*[1, 0.45] * 5),
    "cross": np.array(_CROSS + [(-x, -y) for x, y in _CROSS]) / 10**0.5,
}
"""Corners of every category, in a circle of radius 1 around the origin, [P, 2]."""


def draw_scene(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[Shape]]:
    """Draw a background, clutter of no category, and one to seven shapes.

    The colour is only a hint of the category. Up to 40 % of a shape may be hidden by others.

    Args:
        rng: Generator of all random numbers.
        size: Side of the image in pixels.

    Returns:
        The image, uint8 [size, size, 3] in RGB, and its shapes, with hidden parts.
    """
    pixels = _background(rng, size)
    shapes: list[Shape] = []
    visible: list[np.ndarray] = []  # masks of the shapes, without their hidden parts
    areas: list[float] = []
    for _ in range(rng.integers(1, _MOST_SHAPES + 1)):
        shape = _shape(rng, size)
        mask = _mask(shape.corners, size)
        left = [seen * (1 - mask) for seen in visible]
        shares = [seen.sum() / area for seen, area in zip(left, areas, strict=True)]
        if min(shares, default=1) < 1 - _MOST_HIDDEN:
            continue
        behind = (pixels * mask[..., None]).sum((0, 1)) / mask.sum()
        colour = _colour(rng, shape.category, behind)
        pixels += mask[..., None] * (_texture(rng, size, colour) - pixels)
        shapes.append(shape)
        visible = [*left, mask]
        areas.append(mask.sum())
    pixels += rng.normal(0, _NOISE, pixels.shape)
    return pixels.clip(0, 255).astype(np.uint8), shapes


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw soft patches of colour, and lines and arcs over them; float [size, size, 3]."""
    cells = rng.integers(2, 9)
    tone = rng.uniform(70, 150) + rng.normal(0, 10, 3)
    patches = tone + rng.normal(0, 20, (cells, cells, 1)) + rng.normal(0, 8, (cells, cells, 3))
    coarse = Image.fromarray(patches.clip(0, 255).astype(np.uint8))
    image = coarse.resize((size, size), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(_STROKES + 1)):
        left, top = rng.uniform(-0.2, 0.9, 2) * size
        right, bottom = (left, top) + rng.uniform(0.1, 0.6, 2) * size
        colour, width = tuple(rng.integers(256, size=3).tolist()), int(rng.integers(1, 4))
        start, turn = rng.uniform((0, 60), (360, 200))
        if rng.random() < 0.5:
            draw.line((left, top, right, bottom), colour, width)
        else:
            draw.arc((left, top, right, bottom), start, start + turn, colour, width)
    return np.asarray(image, dtype=np.float64).copy()


def _shape(rng: np.random.Generator, size: int) -> Shape:
    """Draw a category, an angle, a size (small ones are most frequent) and a place."""
    category = list(OUTLINES)[rng.integers(len(OUTLINES))]
    smallest, largest = _RADII
    radius = size * smallest * (largest / smallest) ** rng.random()
    angle = rng.uniform(-_MOST_TURN, _MOST_TURN)
    rotation = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    corners = radius * OUTLINES[category] @ np.array(rotation)
    low, high = corners.min(0), corners.max(0)
    return Shape(category, corners + rng.uniform(-low, size - high))


def _mask(corners: np.ndarray, size: int) -> np.ndarray:
    """Return the part of each pixel that a shape covers, in [0, 1], [size, size]."""
    image = Image.new("L", (_FINER * size, _FINER * size))
    ImageDraw.Draw(image).polygon([tuple(corner) for corner in _FINER * corners - 0.5], fill=255)
    return np.asarray(image.reduce(_FINER), dtype=np.float64) / 255


def _texture(rng: np.random.Generator, size: int, colour: np.ndarray) -> np.ndarray:
    """Return stripes, a chequered pattern, a gradient or the plain colour, [size, size, 3]."""
    dark = colour * rng.uniform(0.3, 0.7)
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    period = rng.uniform(5, 12)
    y, x = np.mgrid[:size, :size] * (2 * np.pi / period)
    u = np.cos(angle) * x + np.sin(angle) * y + phase
    v = np.cos(angle) * y - np.sin(angle) * x + phase
    stripes, signals = np.sin(u) > 0, 0.5 + 0.5 * np.sin(u / 5)
    patterns = [stripes, stripes ^ (np.sin(v) > 0), signals, np.zeros_like(u)]
    share = patterns[rng.integers(len(patterns))][..., None]
    return colour + share * (dark - colour)


def _colour(rng: np.random.Generator, category: str, behind: np.ndarray) -> np.ndarray:
    """Draw a bright colour near the category's colour that contrasts with another, [3]."""
    while True:
        hue = list(OUTLINES).index(category) / len(OUTLINES) + rng.normal(0, _SPREAD)
        saturation, value = rng.uniform(0.6, 1, 2)
        colour = 255 * np.array(hsv_to_rgb(hue % 1, saturation, value))
        if np.linalg.norm(colour - behind) > _CONTRAST:
            return colour
