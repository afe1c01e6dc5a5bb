"""Names of identities and cameras: what they mean, however they are written."""

import re
import unicodedata

Key = tuple[list[tuple[int, str]], str]
"""Of `natural`."""
MARKET_NAME = re.compile(r"(-1|[0-9]+)_c([0-9]+)")
"""How a file's name starts in Market-1501, VeRi-776 and sets like them: identity, camera."""
_NUMBER = re.compile(r"([+-]?)0*([0-9]+)(?:\.0*)?")
_NUMBERED = re.compile(r"([^0-9]+)0*([0-9]+)")
_CAMERA_WORD = re.compile(r"(?:camera|cam|c)[\s_-]*(?=[0-9])")
_DIGITS = re.compile(r"([0-9]+)")
_LEADING_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")


def identity_meaning(name: str) -> str:
    """Return what an identity means: `7` for `0007`, `7.0` and ` 7`; `id_7` for `id_07`.

    Texts with several numbers in them, such as codes, mean only themselves.
    """
    name = _composed(name)
    if number := _NUMBER.fullmatch(name):
        sign = "-" if number[1] == "-" and number[2] != "0" else ""
        return sign + number[2]
    if numbered := _NUMBERED.fullmatch(name):
        return numbered[1] + numbered[2]
    return name


def camera_meaning(name: str) -> str:
    """Return what a camera means: `1` for `c1`, `C01`, `cam_001`, `Camera 1` and `1.0`."""
    name = _CAMERA_WORD.sub("", _composed(name).casefold(), count=1)
    return _LEADING_ZEROS.sub("", identity_meaning(name))


def natural(text: str) -> Key:
    """Return a key that sorts texts with numbers in them by these: `2`, `010`, `11`."""
    pieces = _DIGITS.split(text)
    numbers = [piece.lstrip("0") if place % 2 else "" for place, piece in enumerate(pieces)]
    texts = ["" if place % 2 else piece for place, piece in enumerate(pieces)]
    return [(len(n), n or t) for n, t in zip(numbers, texts, strict=True)], text


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip()
