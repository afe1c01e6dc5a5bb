"""Appearance of a synthetic identity: build, clothes and carried things."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Colour = tuple[int, int, int]

# Parts of an appearance. The fewer and the more similar, the more often two identities share some.
SKINS = ((242, 204, 178), (222, 172, 136), (168, 112, 76), (98, 64, 44))
HAIRS = ((28, 24, 24), (84, 56, 36), (196, 160, 96), (150, 146, 142))
UPPERS = (
    *((34, 34, 38), (228, 226, 220), (128, 130, 134), (176, 40, 44)),
    *((40, 64, 132), (52, 112, 72), (216, 176, 60), (196, 128, 150)),
)
LOWERS = ((32, 32, 38), (52, 68, 108), (134, 134, 138), (170, 146, 108), (104, 62, 56))
SHOES = ((30, 28, 30), (216, 214, 210), (120, 76, 48))
BAGS = ((36, 36, 40), (150, 44, 48), (60, 84, 60), (150, 110, 70))
PATTERNS = ("plain", "plain", "stripes", "jacket", "halves", "print")
LEGWEAR = ("trousers", "trousers", "trousers", "shorts", "skirt")
CARRIED = ("nothing", "nothing", "backpack", "shoulder bag", "handbag")

_SHADE = 10  # standard deviation of a cloth's colour about its palette's, of 255


class Appearance(NamedTuple):
    """The properties of an identity; lengths are shares of an average person's height."""

    height: float
    width: float  # of the body, 1 on average
    legs: float  # their share of the person's height
    skin: Colour
    hair: Colour
    long_hair: bool
    hat: bool  # of the second colour
    upper: Colour
    second: Colour  # of the upper clothing's pattern
    pattern: str  # one of PATTERNS
    long_sleeves: bool
    hem: float  # how far the upper clothing hangs below the hips
    lower: Colour
    legwear: str  # one of LEGWEAR
    shoes: Colour
    carried: str  # one of CARRIED
    bag: Colour


def draw_appearance(rng: np.random.Generator) -> Appearance:
    """Choose an identity's build, clothes and things."""
    return Appearance(
        height=rng.uniform(0.88, 1.1),
        width=rng.uniform(0.85, 1.3),
        legs=rng.uniform(0.44, 0.51),
        skin=_pick(rng, SKINS),
        hair=_pick(rng, HAIRS),
        long_hair=rng.random() < 0.4,
        hat=rng.random() < 0.15,
        upper=_dyed(rng, UPPERS),
        second=_dyed(rng, UPPERS),
        pattern=_pick(rng, PATTERNS),
        long_sleeves=rng.random() < 0.5,
        hem=_pick(rng, (0.0, 0.0, 0.03, 0.14)),
        lower=_dyed(rng, LOWERS),
        legwear=_pick(rng, LEGWEAR),
        shoes=_pick(rng, SHOES),
        carried=_pick(rng, CARRIED),
        bag=_pick(rng, BAGS),
    )


def _pick(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


def _dyed(rng: np.random.Generator, palette: Sequence[Colour]) -> Colour:
    """Choose a colour about one of a palette's."""
    return brightened(np.array(_pick(rng, palette)) + rng.normal(0, _SHADE, 3), 1)


def brightened(colour: Sequence[float] | np.ndarray, light: float) -> Colour:
    """Return a colour that is this many times as bright."""
    red, green, blue = (light * np.asarray(colour)).clip(0, 255).astype(int).tolist()
    return red, green, blue
