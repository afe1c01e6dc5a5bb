"""Drawing of a person, from some side and at some moment."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from kd_reid.synthetic.appearance import Appearance, Colour, brightened

Point = tuple[float, float]

_CHEST = -0.81  # where the body is widest, in units of the height from the ground
_FAR = 0.72  # brightness of limbs behind the body


class Pose(NamedTuple):
    """One moment; angles in radians."""

    turn: float  # 0 faces the camera, pi shows the back, pi / 2 walks to the right
    stride: float  # of the leading leg, out of the vertical
    bend: float  # of the rear knee


def draw_figure(
    image: Image.Image, look: Appearance, pose: Pose, feet: Point, height: float
) -> None:
    """Draw a person into an image.

    Args:
        image: RGB, changed in place.
        look: The person.
        pose: The pose.
        feet: Position of the feet, x and y in pixels.
        height: Of an average person, in pixels.
    """
    body = _Body(ImageDraw.Draw(image), look, pose, feet, height * look.height)
    near = 1 if np.sin(pose.turn) < 0 else -1  # the side whose limbs are in front of the body
    backpack = look.carried == "backpack"
    body.shadow()
    if backpack and not body.back:
        body.backpack()
    body.arm(-near, _FAR)
    body.leg(-near, _FAR)
    body.leg(near)
    body.torso()
    body.head()
    if backpack and body.back:
        body.backpack()
    body.arm(near)
    body.bags()


class _Body:
    """Draws the parts; x and y in units of the person's height, from the point between the feet."""

    def __init__(
        self, draw: ImageDraw.ImageDraw, look: Appearance, pose: Pose, feet: Point, height: float
    ) -> None:
        self.draw, self.look, self.pose = draw, look, pose
        self.feet, self.scale = np.array(feet), height
        self.front, self.side = np.cos(pose.turn), np.sin(pose.turn)
        self.back = self.front < 0.15
        self.hip = -look.legs
        self.shoulders, self.waist = (
            look.width * np.hypot(wide * self.front, deep * self.side)
            for wide, deep in ((0.11, 0.07), (0.085, 0.065))
        )

    def shadow(self) -> None:
        self._ellipse((0, 0), 0.16, 0.02, (60, 60, 62))

    def leg(self, which: int, light: float = 1) -> None:
        """Draw a leg, 1 or -1: the one on the right of a person seen from the front."""
        look, half = self.look, -self.hip / 2
        angle = which * self.pose.stride
        lower = angle - (self.pose.bend if angle < 0 else 0)
        hip = (which * 0.05 * look.width * self.front, self.hip)
        knee = self._swung(hip, angle, half)
        ankle = self._swung(knee, lower, half - 0.03)
        thick = 0.075 * look.width
        cloth, skin = brightened(look.lower, light), brightened(look.skin, light)
        self._limb(hip, knee, thick, skin if look.legwear == "skirt" else cloth)
        self._limb(knee, ankle, 0.8 * thick, cloth if look.legwear == "trousers" else skin)
        toe = (ankle[0] + 0.045 * self.side, ankle[1] + 0.015)
        self._limb(ankle, toe, 0.045, brightened(look.shoes, light))

    def arm(self, which: int, light: float = 1) -> None:
        look = self.look
        angle = -0.8 * which * self.pose.stride
        shoulder = (which * 0.95 * self.shoulders * self.front, -0.795)
        elbow = self._swung(shoulder, angle, 0.16)
        elbow = (elbow[0] + which * 0.02 * self.front, elbow[1])
        hand = self._swung(elbow, angle + 0.25, 0.15)
        thick = 0.05 * look.width
        cloth, skin = brightened(look.upper, light), brightened(look.skin, light)
        self._limb(elbow, hand, 0.75 * thick, skin)
        self._limb(shoulder, elbow, thick, cloth)
        if look.long_sleeves:
            wrist = (elbow[0] + 0.8 * (hand[0] - elbow[0]), elbow[1] + 0.8 * (hand[1] - elbow[1]))
            self._limb(elbow, wrist, 0.85 * thick, cloth)

    def torso(self) -> None:
        look = self.look
        if look.legwear == "skirt":
            self._slab(self.hip - 0.04, 0.55 * self.hip, self.waist, 1.5 * self.waist, look.lower)
        self._slab(self.hip - 0.06, self.hip + 0.02, self.waist, self.waist, look.lower)
        self._slab(-0.85, _CHEST, 0.035, self.shoulders, look.upper)
        self._cloth(0, 1, look.upper)
        if look.pattern == "stripes":
            for start in np.arange(0.12, 1, 0.25):
                self._cloth(start, start + 0.12, look.second)
        elif look.pattern == "halves":
            self._cloth(0.5, 1, look.second)
        elif look.pattern == "print" and abs(self.front) > 0.4:
            self._cloth(0.22, 0.5, look.second, 0.55)
        elif look.pattern == "jacket" and not self.back:  # open, over something else
            self._cloth(0, 1, look.second, 0.4, 0.3 * self.side)

    def head(self) -> None:
        look = self.look
        lean = 0.012 * self.side
        if look.long_hair and not self.back:
            self._limb((-2 * lean, -0.93), (-3 * lean, -0.81), 0.115, look.hair)
        self._limb((0, -0.82), (lean, -0.9), 0.06, look.skin)
        self._ellipse((lean, -0.925), 0.05, 0.068, look.skin)
        if self.back:
            self._ellipse((-lean, -0.932), 0.052, 0.066, look.hair)
        else:
            self._ellipse((-0.8 * lean, -0.967), 0.052, 0.036, look.hair)
            self._ellipse((-2.6 * lean, -0.94), 0.03 + 0.01 * abs(self.side), 0.05, look.hair)
            self._ellipse((2 * lean, -0.915), 0.038, 0.048, look.skin)
        if look.long_hair and self.back:
            self._limb((-lean, -0.93), (-lean, -0.8), 0.1, look.hair)
        if look.hat:
            self._ellipse((0, -0.97), 0.058, 0.035, look.second)
            self._limb((0, -0.955), (0.08 * self.side, -0.952), 0.018, look.second)

    def backpack(self) -> None:
        behind = -0.1 * self.side
        half = 0.085 * abs(self.front) + 0.05 * abs(self.side)
        self._slab(-0.8, -0.56, half, half, self.look.bag, behind)

    def bags(self) -> None:
        look, wide = self.look, self.shoulders
        if look.carried == "backpack" and not self.back:
            for sign in (-1, 1):
                x = 0.6 * sign * wide
                self._limb((x, -0.8), (1.1 * x, -0.62), 0.022, look.bag)
        elif look.carried == "shoulder bag":
            x = wide * self.front
            self._limb((-0.7 * x, -0.81), (x, self.hip - 0.02), 0.02, look.bag)
            self._slab(self.hip - 0.05, self.hip + 0.07, 0.06, 0.065, look.bag, x)
        elif look.carried == "handbag":
            x = -1.15 * wide * self.front
            self._slab(-0.44, -0.33, 0.045, 0.055, look.bag, x)

    def _cloth(
        self, start: float, end: float, colour: Colour, share: float = 1, shift: float = 0
    ) -> None:
        """Draw the upper clothing between two shares of its length and of its width."""
        top, bottom = _CHEST, self.hip + 0.01 + self.look.hem
        halves = [
            share * (self.shoulders + t * (1.05 * self.waist - self.shoulders))
            for t in (start, end)
        ]
        y, end_y = (top + t * (bottom - top) for t in (start, end))
        self._slab(y, end_y, halves[0], halves[1], colour, shift * self.shoulders)

    def _swung(self, start: Point, angle: float, length: float) -> Point:
        """Return the end of a limb that hangs from a point and swings in walking direction."""
        x, y = start
        return x + np.sin(angle) * length * self.side, y + np.cos(angle) * length

    def _slab(
        self, top: float, bottom: float, upper: float, lower: float, colour: Colour, x: float = 0
    ) -> None:
        """Draw a part with a horizontal top and bottom, of these half widths."""
        corners = [(x - upper, top), (x + upper, top), (x + lower, bottom), (x - lower, bottom)]
        self.draw.polygon(self._pixels(corners), colour)

    def _limb(self, start: Point, end: Point, thick: float, colour: Colour) -> None:
        self.draw.line(self._pixels([start, end]), colour, max(1, round(thick * self.scale)))
        for point in (start, end):
            self._ellipse(point, thick / 2, thick / 2, colour)

    def _ellipse(self, centre: Point, across: float, down: float, colour: Colour) -> None:
        (x, y), reach = centre, (across, down)
        box = [(x - reach[0], y - reach[1]), (x + reach[0], y + reach[1])]
        self.draw.ellipse(self._pixels(box), colour)

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        return [tuple(point) for point in (self.feet + self.scale * np.array(points)).tolist()]
