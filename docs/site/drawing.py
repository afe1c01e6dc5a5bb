"""Pictures of what a method taps, as SVG inside a page."""

from html import escape
from typing import Any

WIDTH, ROW, TOP = 640, 34, 30


def taps_picture(terms: dict[str, dict[str, Any]]) -> str:
    """Return a picture: the student's taps, the criterion, the teacher's; a band for each term."""
    shapes, y = [], TOP
    for name, term in terms.items():
        student, teacher = places(term.get("student")), places(term.get("teacher"))
        height = max(len(student), len(teacher), 1) * ROW
        middle = y + height / 2
        shapes.append(box(250, middle - 14, 140, name, "criterion"))
        for left, right, taps in ((10, 190, student), (450, 630, teacher)):
            for index, tap in enumerate(taps):
                row = y + (height - len(taps) * ROW) / 2 + index * ROW + ROW / 2
                shapes.append(box(left, row - 12, right - left, tap, "tap"))
                ends = (right, 250) if left == 10 else (left, 390)
                shapes.append(f'<line x1="{ends[0]}" y1="{row}" x2="{ends[1]}" y2="{middle}"/>')
        y += height + 12
    heads = "".join(
        f'<text x="{x}" y="18" class="head">{text}</text>'
        for x, text in ((100, "student"), (320, "criterion"), (540, "teacher"))
    )
    body = "".join([heads, *shapes])
    style = (
        "rect{fill:none;stroke:currentColor;rx:5}line{stroke:currentColor;opacity:.5}"
        "text{fill:currentColor;font:13px sans-serif;text-anchor:middle}"
        ".head{font-weight:bold}.criterion rect{stroke-width:2}"
    )
    svg = (
        f'<div class="taps"><svg viewBox="0 0 {WIDTH} {y}" role="img" '
        f'aria-label="taps of the method" style="max-width:{WIDTH}px;width:100%">'
        f"<style>{style}</style>{body}</svg></div>"
    )
    return f"```{{raw}} html\n{svg}\n```"


def places(taps: Any) -> list[str]:
    """Return the names of taps; without any, the logits."""
    if taps is None:
        return ["logits"]
    if isinstance(taps, dict):
        return [f"{name}: {tap}" for name, tap in taps.items()]
    return [str(tap) for tap in (taps if isinstance(taps, (list, tuple)) else [taps])]


def box(x: float, y: float, width: float, text: str, kind: str) -> str:
    """Return a labelled rectangle."""
    label = escape(text if len(text) <= 26 else f"{text[:25]}…")
    return (
        f'<g class="{kind}"><rect x="{x}" y="{y}" width="{width}" height="24"/>'
        f'<text x="{x + width / 2}" y="{y + 16}">{label}</text></g>'
    )
