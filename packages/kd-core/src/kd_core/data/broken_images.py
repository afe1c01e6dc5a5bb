"""Which image files cannot be decoded, and why."""

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from kd_core.data.image_files import read_image
from kd_core.errors import UserError

_READERS = 8  # threads: decoders release Python's lock
_AT_ONCE = 256  # files, between looks at the clock


def why_broken(file: str) -> str:
    """Return why an image file cannot be decoded; "" if it can be."""
    try:
        read_image(file)
    except UserError as error:
        return str(error)
    return ""


def each_problem(files: Sequence[str], seconds: float = math.inf) -> Iterator[str]:
    """Decode image files in threads, and yield `why_broken` of each, in their order.

    Args:
        files: Their paths.
        seconds: After this time no further files are begun.
    """
    end = time.monotonic() + seconds
    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(files), _AT_ONCE):
            if time.monotonic() >= end:
                return
            yield from readers.map(why_broken, files[start : start + _AT_ONCE])
