"""A table of results: means, deviations and paired differences, as text and as numbers."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

from kd_core.errors import UserError, nearest
from kd_core.experiment.seeds import DIGITS, spread_of, stops_of
from kd_core.experiment.tables.paired import difference
from kd_core.experiment.tables.rows import Results
from kd_core.training.resuming.forms import is_number

EARLIER = "† finished before, with other settings or seeds than asked for now: not compared"
_INTERVALS = (
    "95 % interval: of the mean difference, by the paired t-test over the n seeds that both rows "
    "have; not corrected for the number of rows"
)

Value = float | int | str | None
Run = Mapping[str, Any]


class Column(NamedTuple):
    """A column: its heading for readers, and a name for each of its values in CSV."""

    heading: str
    names: tuple[str, ...]


class Cell(NamedTuple):
    """A cell: its text for readers, and its values in full precision, None where there is none."""

    text: str
    values: tuple[Value, ...]


class Table(NamedTuple):
    """A table.

    Attributes:
        columns: Of all rows; the first has the labels.
        rows: As many cells as there are columns.
        notes: Sentences below the table.
    """

    columns: list[Column]
    rows: list[list[Cell]]
    notes: list[str]


def tabulate(
    results: Results,
    metric: str,
    headings: Mapping[str, str],
    others: Collection[str] = (),
    against: Mapping[str, str] | None = None,
    earlier: Collection[str] = (),
) -> Table:
    """Return a table: last and best epoch, other metrics, difference from another row.

    Args:
        results: Of every row, its results; `seed` says which belong together.
        metric: Of the first columns.
        headings: Titles of metrics, with their unit.
        others: Further metrics, of the last epoch.
        against: By label, what a row is compared with: the first row, unless this says another.
        earlier: Rows that are marked and not compared, since other settings or seeds made them.

    Raises:
        UserError: If no row has one of the metrics.
    """
    compared = {label: runs for label, runs in results.items() if label not in earlier}
    first = next(iter(compared or results))
    shown = [("last", metric), ("best", metric)]
    shown += [("last", name) for name in others if name != metric]
    _check_metrics(shown, list((compared or results).values()))
    rows = []
    for label, runs in results.items():
        numbers = [run["seed"] for run in runs if "seed" in run]
        cells = [
            Cell(f"{label} †", (label, "yes")) if label in earlier else Cell(label, (label, "no")),
            Cell(str(len(runs)), (len(runs), " ".join(map(str, numbers)))),
            *(_spread(runs, which, name) for which, name in shown),
        ]
        other = (against or {}).get(label, first)
        both = other != label and {other, label} <= compared.keys()
        cells += _difference(runs, results[other], metric, other) if both else _no_difference()
        rows.append(cells)
    chosen = results[first][0]["best"]["chosen_on"]
    columns = [*_columns(shown, headings, chosen), *_difference_columns(metric, headings)]
    return Table(columns, rows, list(_notes(rows, compared, earlier)))


def _columns(
    shown: Sequence[tuple[str, str]], headings: Mapping[str, str], chosen: str
) -> Iterator[Column]:
    yield Column("", ("row", "finished before with other settings or seeds"))
    yield Column("seeds", ("seeds", "numbers of the seeds"))
    for place, (which, name) in enumerate(shown):
        title = headings.get(name, name)
        whole = f"{title}, last" if which == "last" else f"{title}, best (chosen on {chosen})"
        heading = whole if place < 2 else title  # only the first metric has a best
        yield Column(heading, (f"{whole}: mean", f"{whole}: sd"))


def _difference_columns(metric: str, headings: Mapping[str, str]) -> list[Column]:
    name = f"{headings.get(metric, metric)}, last: difference"
    ends = (f"{name}, 95 % low", f"{name}, 95 % high", "seeds that both rows have")
    return [
        Column(name, (name, f"{name}, sd", "compared with")),
        Column("95 % interval of the difference", ends),
    ]


def _spread(runs: Sequence[Run], which: str, metric: str) -> Cell:
    """Return mean and deviation of a metric; an empty cell where not every run has it."""
    values = [run[which].get(metric) for run in runs]
    if not all(map(is_number, values)):
        return Cell("", (None, None))
    centre, sd = mean(values), stdev(values) if len(values) > 1 else None
    return Cell(_plus_minus(f"{centre:.{_digits(metric)}f}", sd, metric), (centre, sd))


def _difference(ours: Sequence[Run], theirs: Sequence[Run], metric: str, other: str) -> list[Cell]:
    found = difference(_by_seed(ours, metric), _by_seed(theirs, metric))
    if found is None:
        return [Cell(f"no seed in common with {other}", (None, None, other)), Cell("", (None,) * 3)]
    digits = _digits(metric)
    text = _plus_minus(f"{found.mean:+.{digits}f}", found.sd, metric)
    interval = f"none (n = {found.seeds})"
    if found.low is not None:
        interval = f"{found.low:+.{digits}f} to {found.high:+.{digits}f} (n = {found.seeds})"
    return [
        Cell(f"{text} from {other}", (found.mean, found.sd, other)),
        Cell(interval, (found.low, found.high, found.seeds)),
    ]


def _no_difference() -> list[Cell]:
    return [Cell("", (None, None, None)), Cell("", (None, None, None))]


def _by_seed(runs: Sequence[Run], metric: str) -> dict[int, float]:
    return {
        run.get("seed", place): run["last"][metric]
        for place, run in enumerate(runs)
        if is_number(run["last"].get(metric))
    }


def _check_metrics(shown: Sequence[tuple[str, str]], rows: Sequence[Sequence[Run]]) -> None:
    """Reject a metric that no row has: it is misspelt; rows may differ in what they measure."""
    for which, name in shown:
        known = [key for runs in rows for run in runs for key in run[which]]
        if name not in known:
            raise UserError(f"metrics: there is no {name!r}{nearest(name, known)}")


def _notes(
    rows: Sequence[Sequence[Cell]], compared: Results, earlier: Collection[str]
) -> Iterator[str]:
    if note := spread_of([run.get("data_seed") for runs in compared.values() for run in runs]):
        yield note
    stops = {label: stops_of(runs) for label, runs in compared.items()}
    yield from (f"{label}: {stop}" for label, stop in stops.items() if stop)
    if any(cells[-1].text for cells in rows):
        yield _INTERVALS
    if earlier:
        yield EARLIER


def _plus_minus(text: str, sd: float | None, metric: str) -> str:
    return text if sd is None else f"{text} ± {sd:.{_digits(metric)}f}"


def _digits(metric: str) -> int:
    return DIGITS.get(metric, 2)
