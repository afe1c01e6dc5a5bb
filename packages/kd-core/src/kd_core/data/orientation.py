"""How an image file is turned: EXIF orientation in any format, without decoding where possible."""

import os
from typing import Any, BinaryIO

_ORIENTATION = 0x0112  # of EXIF, and the same number in TIFF
_SIDES_SWAPPED = (5, 6, 7, 8)
_XMP = ("XML:com.adobe.xmp", "xmp")  # where Pillow keeps it; it may name the orientation too


def orientation(image: Any) -> int:
    """Return the EXIF orientation of an image, 1 (upright) where it has none or a damaged one."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow raises many types; the pixels do not depend on it
        return 1
    return int(value) if value in range(1, 9) else 1


def upright_size(image: Any, late: bool) -> tuple[int, int]:
    """Return width and height after `as_rgb`, decoding no pixels where the header says enough."""
    width, height = image.size
    may_turn = late or "exif" in image.info or any(key in image.info for key in _XMP)
    if width == height or (image.format == "PNG" and not may_turn):  # else Pillow would decode it
        return width, height
    # Of a TIFF file, Pillow has swapped the sides already.
    done = getattr(image, "tag_v2", {}).get(_ORIENTATION) in _SIDES_SWAPPED
    swapped = orientation(image) in _SIDES_SWAPPED and not done
    return (height, width) if swapped else (width, height)


def has_late_metadata(stream: BinaryIO) -> bool:
    """Return whether a PNG file has chunks after its pixels, such as EXIF; the stream restarts."""
    late = pixels = False
    if stream.read(8) == b"\x89PNG\r\n\x1a\n":
        while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
            late |= pixels and head[4:] != b"IDAT"
            pixels |= head[4:] == b"IDAT"
            stream.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    stream.seek(0)
    return late
