"""Latencies of exported files and other runtimes, as a table of the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from kd_core.experiment.report import cpu_name
from kd_core.networks.latency import Latency, Plan, Timed, measure
from kd_core.runtime.console import out


def measure_and_show(timed: Mapping[str, Timed], plan: Plan) -> dict[str, Any]:
    """Measure in turns what several runtimes take, and print it.

    Returns:
        `processor`, `threads`, and `ms` by runtime and batch size, for a JSON file.
    """
    found = measure(timed, plan)
    threads = plan.thread_count
    where = f"CPU ({cpu_name()}), {threads} thread{'s' * (threads > 1)}"
    out.print(_as_table(found, f"latency, ms a batch: {where}, in turns"))
    return {
        "processor": cpu_name(),
        "threads": threads,
        "ms": {
            runtime: {str(size): latency._asdict() for size, latency in sizes.items()}
            for runtime, sizes in found.items()
        },
    }


def _as_table(found: Mapping[str, Mapping[int, Latency]], title: str) -> Table:
    table = Table("runtime", title=title)
    for name in ("batch", "p50, ms", "p95, ms", "images a second", "calls"):
        table.add_column(name, justify="right")
    for runtime, sizes in found.items():
        for size, (p50, p95, calls) in sizes.items():
            rate = f"{1000 * size / p50:,.0f}" if p50 else ""
            table.add_row(runtime, str(size), f"{p50:.3f}", f"{p95:.3f}", rate, str(calls))
    return table
