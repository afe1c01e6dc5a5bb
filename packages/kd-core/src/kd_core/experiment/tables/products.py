"""The files of a comparison: its table in every format, and the curves of its rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_core.errors import UserError
from kd_core.experiment.results import read_history
from kd_core.experiment.tables.formats import latex, markdown, spreadsheet
from kd_core.experiment.tables.plots import Histories, plot_curves
from kd_core.experiment.tables.rows import Rows
from kd_core.experiment.tables.students import FILE as LATENCIES
from kd_core.experiment.tables.students import folder_of, with_latency
from kd_core.experiment.tables.table import Table, tabulate
from kd_core.files import checkpoint
from kd_core.runtime.console import err

TABLE = "table.json"
CURVES = "curves.png"


@dataclass(frozen=True)
class Products:
    """Writes what a comparison has, each file whole or not at all.

    Args:
        work_dir: Folder of the comparison.
        metric: Of the first columns and of the curves, where no run says another.
        headings: Titles of metrics, with their unit.
        others: Further metrics of the table.
        against: By label, what a row is compared with.
    """

    work_dir: Path
    metric: str
    headings: Mapping[str, str]
    others: tuple[str, ...] = ()
    against: Mapping[str, str] | None = None

    def write(self, rows: Rows, measured: Mapping[str, Any]) -> str:
        """Write the table and the curves; return the table in Markdown.

        Args:
            rows: What is known of all rows.
            measured: Sizes and latencies, see `measure_students`.
        """
        table = self._table(rows, measured)
        checkpoint.save_json(rows.results, self.work_dir / TABLE)
        if measured:
            checkpoint.save_json(measured, self.work_dir / LATENCIES)
        text = markdown(table)
        checkpoint.save_text(text + "\n", self.work_dir / "table.md")
        checkpoint.save_text(spreadsheet(table), self.work_dir / "table.csv")
        checkpoint.save_text(latex(table), self.work_dir / "table.tex")
        self.draw(rows)
        return text

    def draw(self, rows: Rows) -> None:
        """Draw the curves of all rows; a line says what cannot be drawn."""
        histories, missing = self._histories(rows)
        metric = self._metric(rows)
        title = f"{self.headings.get(metric, metric)}, mean ± sd of the seeds"
        try:
            drawn = plot_curves(histories, metric, self.work_dir / CURVES, ylabel=title)
        except UserError as error:
            err.print(f"no {CURVES}: {error}")
            return
        missing |= {label: f"no {metric} in its log" for label in histories.keys() - drawn}
        for label, reason in missing.items():
            err.print(f"{CURVES} is without {label}: {reason}")

    def _table(self, rows: Rows, measured: Mapping[str, Any]) -> Table:
        metric = self._metric(rows)
        table = tabulate(
            rows.results, metric, self.headings, self.others, self.against, rows.earlier
        )
        return with_latency(table, rows.results, measured)

    def _metric(self, rows: Rows) -> str:
        """Return the metric of which the first run says that it defines its best epoch."""
        runs = (run for of_row in rows.results.values() for run in of_row)
        return next((run["metric"] for run in runs if "metric" in run), self.metric)

    def _histories(self, rows: Rows) -> tuple[Histories, dict[str, str]]:
        """Return the epochs' records of every row, and why some have none."""
        found, missing = {}, {}
        for label, runs in rows.results.items():
            folders = [folder_of(run, self.work_dir) for run in runs]
            name = f"{label} †" if label in rows.earlier else label
            try:
                found[name] = [read_history(folder) for folder in folders if folder is not None]
            except UserError as error:
                missing[name] = str(error)
        return found, missing
