"""Images of a synthetic camera: background, viewpoint and light."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from kd_reid.synthetic.appearance import Appearance, draw_appearance
from kd_reid.synthetic.figures import Pose, draw_figure

_FINER = 4  # subpixels per side of a pixel in drawing
_PANORAMA = 6  # width of a camera's scenery, in images

# How much the images of one camera differ
_TURN = 0.7  # standard deviation of the direction that people walk in, in radians
_MOST_STRIDE = 0.5  # radians
_SHIFT = 0.06  # standard deviation of a person's place, of the image's width
_ZOOM = 0.05  # standard deviation of the logarithm of its size
_FLICKER = 0.1  # standard deviation of the logarithm of the brightness
_HIDDEN = 0.25  # how often something is in front of a person
_PASSERS_BY = 0.2  # how often somebody else is behind


class Domain(NamedTuple):
    """A place and time with its own cameras; each camera takes values from these ranges."""

    walls: tuple[float, float] = (80, 200)  # brightness of the scenery, of 255
    gains: tuple[float, float] = (0.6, 1.4)  # brightness
    tint: tuple[float, float, float] = (0, 0, 0)  # logarithm of red's, green's and blue's gain
    casts: float = 0.13  # standard deviation of the logarithm of a colour channel's gain
    gammas: tuple[float, float] = (0.75, 1.35)
    hazes: tuple[float, float] = (0, 0.3)  # share of ambient light
    blurs: tuple[float, float] = (0.3, 1.1)  # radius, in pixels of an image 64 high
    noises: tuple[float, float] = (3, 13)  # standard deviation, of 255
    sizes: tuple[float, float] = (0.74, 0.88)  # an average person's height, of the image's


DOMAINS = {
    "day": Domain(),
    "night": Domain(
        walls=(75, 160),
        gains=(0.7, 1.0),
        tint=(0.2, 0, -0.3),  # lamplight
        casts=0.05,
        gammas=(0.9, 1.15),
        hazes=(0, 0.12),
        blurs=(0.3, 0.7),
        noises=(6, 16),
    ),
}


class Camera(NamedTuple):
    """The properties of a camera."""

    scenery: Image.Image  # its background over time, finer than the images
    turn: float  # direction that most people walk in, see Pose
    size: float  # an average person's height, of the image's
    ground: float  # where they stand, of the image's height from the top
    gain: np.ndarray  # of red, green and blue, [3]
    gamma: float
    haze: float
    slope: float  # how much brighter the right is than the left
    blur: float  # radius, in pixels of an image 64 high
    noise: float  # standard deviation, of 255


def draw_camera(rng: np.random.Generator, height: int, domain: Domain = DOMAINS["day"]) -> Camera:
    """Draw place and properties of a camera of a domain, for images of this height in pixels."""
    ground = rng.uniform(0.93, 0.97)
    return Camera(
        scenery=_scenery(rng, _FINER * height, domain.walls),
        turn=rng.uniform(0, 2 * np.pi),
        size=rng.uniform(*domain.sizes),
        ground=ground,
        gain=rng.uniform(*domain.gains) * np.exp(domain.tint + rng.normal(0, domain.casts, 3)),
        gamma=rng.uniform(*domain.gammas),
        haze=rng.uniform(*domain.hazes),
        slope=rng.uniform(-0.4, 0.4),
        blur=rng.uniform(*domain.blurs),
        noise=rng.uniform(*domain.noises),
    )


def photograph(
    rng: np.random.Generator, camera: Camera, look: Appearance | None, height: int
) -> Image.Image:
    """Return a camera's image, twice as high as wide.

    Args:
        rng: Generator of everything that differs between a camera's images.
        camera: The camera, of `draw_camera` for the same height.
        look: The person in it; None for nobody.
        height: Of the image, in pixels.
    """
    tall, wide = _FINER * height, _FINER * height // 2
    left = int(rng.integers((_PANORAMA - 1) * wide))
    image = camera.scenery.crop((left, 0, left + wide, tall))
    size = camera.size * tall * np.exp(rng.normal(0, _ZOOM))
    x, y = wide * rng.normal(0.5, _SHIFT), tall * rng.normal(camera.ground, 0.01)
    if rng.random() < _PASSERS_BY:
        _passer_by(rng, camera, image, y - 0.03 * tall, 0.93 * size)
    if look is not None:
        draw_figure(image, look, _pose(rng, camera), (x, y), size)
    if rng.random() < _HIDDEN:
        _hide(rng, camera, image, y + 0.03 * tall, 1.07 * size)
    return _exposed(rng, camera, image.reduce(_FINER))


def _pose(rng: np.random.Generator, camera: Camera) -> Pose:
    turn = camera.turn + rng.normal(0, _TURN)
    phase = np.sin(rng.uniform(0, 2 * np.pi))
    return Pose(turn % (2 * np.pi), _MOST_STRIDE * phase, rng.uniform(0, 0.5) * abs(phase))


def _passer_by(
    rng: np.random.Generator, camera: Camera, image: Image.Image, y: float, size: float
) -> None:
    """Draw another person at one edge."""
    x = image.width * (0.5 + rng.choice([-1, 1]) * rng.uniform(0.38, 0.6))
    draw_figure(image, draw_appearance(rng), _pose(rng, camera), (x, y), size)


def _hide(
    rng: np.random.Generator, camera: Camera, image: Image.Image, y: float, size: float
) -> None:
    """Draw another person, a post or something low in front of the person."""
    draw, (wide, tall) = ImageDraw.Draw(image), image.size
    kind = rng.integers(3)
    colour = _rgb(rng.uniform(40, 190) + rng.normal(0, 25, 3))
    if kind == 0:
        _passer_by(rng, camera, image, y, size)
    elif kind == 1:
        x = rng.uniform(0.1, 0.9) * wide
        draw.rectangle((x, 0, x + rng.uniform(0.05, 0.12) * wide, tall), colour)
    else:
        left, right = wide * (np.array([0, 1]) + rng.uniform(-0.7, 0.7))
        top = rng.uniform(0.66, 0.85) * tall
        draw.rounded_rectangle((left, top, right, 1.1 * tall), 0.1 * wide, colour)


def _exposed(rng: np.random.Generator, camera: Camera, image: Image.Image) -> Image.Image:
    """Apply a camera's light, lens and sensor to a scene."""
    image = image.filter(ImageFilter.GaussianBlur(camera.blur * image.height / 64))
    light = np.linspace(1 - camera.slope / 2, 1 + camera.slope / 2, image.width)[:, None]
    gain = camera.gain * np.exp(rng.normal(0, _FLICKER))
    pixels = (np.asarray(image) / 255) ** camera.gamma * light * gain
    pixels += camera.haze * (gain.mean() / 2 - pixels)
    pixels = 255 * pixels + rng.normal(0, camera.noise, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _scenery(rng: np.random.Generator, tall: int, walls: tuple[float, float]) -> Image.Image:
    """Draw a wall with windows, doors or trees, and the ground in front of it."""
    wide = _PANORAMA * tall // 2
    wall, ground, trim = (rng.uniform(*walls) + rng.normal(0, 15, 3) for _ in range(3))
    image = Image.new("RGB", (wide, tall), _rgb(wall))
    draw = ImageDraw.Draw(image)
    horizon = rng.uniform(0.5, 0.72) * tall
    x = 0.0
    while x < wide:
        width, top = tall * rng.uniform(0.1, 0.4), tall * rng.uniform(-0.1, 0.4)
        bottom = horizon if rng.random() < 0.5 else top + rng.uniform(0.1, 0.4) * tall
        shade = _rgb(trim + rng.normal(0, 25) + rng.normal(0, 10, 3))
        shape = draw.rectangle if rng.random() < 0.7 else draw.ellipse
        shape((x, top, x + width, max(bottom, top + 1)), shade)
        x += width + tall * rng.uniform(0, 0.25)
    draw.rectangle((0, horizon, wide, tall), _rgb(ground))
    for depth in np.linspace(0, 1, 5)[1:-1] ** 2:  # joints of the pavement
        y = horizon + depth * (tall - horizon)
        draw.line((0, y, wide, y), _rgb(0.88 * ground), tall // 100 + 1)
    grain = rng.normal(0, 14, (tall // 12, wide // 12)).clip(-60, 60) + 128
    rough = Image.fromarray(grain.astype(np.uint8)).resize(image.size, Image.Resampling.BILINEAR)
    pixels = np.asarray(image) + (np.asarray(rough, dtype=np.float32) - 128)[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _rgb(colour: np.ndarray) -> tuple[int, ...]:
    return tuple(colour.clip(0, 255).astype(int).tolist())
