"""Detectron2's log of a run, `metrics.json`: its lines for programs, and as a picture."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.utils.events import EventWriter, get_event_storage
from kd_core.experiment import curves
from kd_core.runtime import json_lines

FILE = "metrics.json"
_WINDOW = 20  # iterations of a median, as in Detectron2's file
_FIRST = ("bbox/AP", "segm/AP", "keypoints/AP", "sem_seg/mIoU", "panoptic_seg/PQ")
"""The metric that is drawn: the first of these that was measured."""


def record_of(line: bytes) -> dict[str, Any]:
    """Return a line's content, {} for a damaged one."""
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def read_records(folder: Path, length: int) -> list[dict[str, Any]]:
    """Return the lines of a run; `iteration` is the number of iterations that were done.

    Args:
        folder: Of the run.
        length: Iterations of the run. The log counts from 0, but the end is one iteration later.
    """
    records = map(record_of, (folder / FILE).read_bytes().splitlines())
    return [
        {**record, "iteration": min(record["iteration"] + 1, length)}
        for record in records
        if isinstance(record.get("iteration"), int)
    ]


def draw(folder: Path, scores: Mapping[str, Any], length: int) -> None:
    """Draw the metric over the iterations, `curves.png`, where one was measured.

    Args:
        folder: Of the run.
        scores: Those of its end.
        length: Its iterations.
    """
    names = [name for name in _FIRST if name in scores]
    curves.draw_histories(folder, lambda: [read_records(folder, length)], names, over="iteration")


class StdoutWriter(EventWriter):
    """Writes what `metrics.json` gets as lines of JSON to stdout, where `--json` asks for it.

    Args:
        run: Folder of the run.
    """

    def __init__(self, run: str) -> None:
        self.run, self._last = run, -1

    def write(self) -> None:
        """Write what came since the last time."""
        found: dict[int, dict[str, Any]] = {}
        for name, (value, iteration) in (
            get_event_storage().latest_with_smoothing_hint(_WINDOW).items()
        ):
            if iteration > self._last:
                found.setdefault(iteration, {})[name] = value
        for iteration, values in sorted(found.items()):
            self._last = iteration
            record = {"iteration": iteration, **values}
            json_lines.say("iteration", run=self.run, record=record)
