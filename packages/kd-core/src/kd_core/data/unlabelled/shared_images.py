"""Images that two sets have in common: the same files, or files of the same content."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

_END = 4096  # bytes of the beginning and of the end of a file that are compared
_READERS = 16  # threads: they wait for the disk

Key = tuple[int, str]


def shared_images(files: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Return which files are also among the others: by path or link, or by content.

    Contents count as the same if size, beginning and end are: compressed images that differ do so
    there. Only files whose size occurs on both sides are read.

    Args:
        files: Paths.
        others: Paths of the other set.

    Returns:
        Pairs of a file and one of the others, in the order of the files.
    """
    sizes = [{os.path.getsize(file) for file in each} for each in (files, others)]
    both = sizes[0] & sizes[1]
    known = {key: file for file, key in _keys(others, both)}
    return [(file, known[key]) for file, key in _keys(files, both) if key in known]


def _keys(files: Iterable[str], sizes: set[int]) -> list[tuple[str, Key]]:
    candidates = [file for file in files if os.path.getsize(file) in sizes]
    with ThreadPoolExecutor(_READERS) as readers:
        return list(zip(candidates, readers.map(_key, candidates), strict=True))


def _key(file: str) -> Key:
    with open(file, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        seen = stream.read(_END)
        stream.seek(max(size - _END, 0))
        return size, hashlib.sha256(seen + stream.read(_END)).hexdigest()
