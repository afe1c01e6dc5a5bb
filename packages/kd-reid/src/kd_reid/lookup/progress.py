"""How far a long pass over pictures is: a bar on a terminal, lines in a log."""

import time
from collections.abc import Iterable, Iterator

from kd_core.networks.task import Batch
from kd_core.runtime import distributed
from kd_core.runtime.console import err
from rich.progress import track

from kd_reid.metrics.blocks import in_words

_SECONDS = 30.0  # between lines, and before the first


def watched(batches: Iterable[Batch], total: int) -> Iterator[Batch]:
    """Yield batches, and show how many of them are done and how long the others will take."""
    if distributed.rank() > 0:
        yield from batches
    elif err.is_terminal:
        yield from track(batches, "embedding", total=total, console=err, transient=True)
    else:
        yield from _with_lines(batches, total)


def _with_lines(batches: Iterable[Batch], total: int) -> Iterator[Batch]:
    started = printed = time.monotonic()
    for done, batch in enumerate(batches, 1):
        yield batch
        now = time.monotonic()
        if now - printed >= _SECONDS and done < total:
            left = in_words((now - started) * (total - done) / done)
            err.print(f"embedded {done / total:.0%}, about {left} left")
            printed = now
