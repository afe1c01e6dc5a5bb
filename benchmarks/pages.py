"""Numbers in tables, and tables of results between marks in the pages of docs/."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from kd_core.errors import UserError
from kd_core.files.checkpoint import load_json, save_json, save_text


def spread(values: Sequence[float | None]) -> str:
    """Return mean ± standard deviation, with more digits for small numbers."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    digits = 3 if abs(mean(known)) < 2 else 1
    text = f"{mean(known):.{digits}f}"
    return text if len(known) < 2 else f"{text} ± {stdev(known):.{digits}f}"


def write(text: str, page: Path, script: str) -> None:
    """Put a text between the marks of a script in a page.

    Raises:
        UserError: If the page has not both marks.
    """
    begin, end = f"<!-- begin: {script} -->", f"<!-- end: {script} -->"
    old = page.read_text(encoding="utf-8")
    if old.count(begin) != 1 or old.count(end) != 1:
        raise UserError(f"{page}: wanted the lines {begin} and {end}, once each")
    before, after = old.split(begin)[0], old.split(end)[1]
    save_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", page)


def publish(
    collect: Callable[[], dict[str, Any]] | None,
    table: Callable[[dict[str, Any]], str],
    results: Path,
    page: Path,
    script: str,
    *,
    whole: bool,
) -> None:
    """Print the table of results; keep them and write it into its page if they are whole.

    Args:
        collect: Runs what is missing and returns all results; None reads the kept ones.
        table: Returns the text of results.
        results: File of whole results.
        page: Page of the table.
        script: What the marks in the page name.
        whole: Whether everything was asked for, and no option changed it.

    Raises:
        UserError: See `write`; or there are no kept results.
    """
    found = load_json(results) if collect is None else collect()
    text = table(found)
    print(text)
    if collect is not None and whole:
        save_json(found, results)
    if collect is None or whole:
        write(text, page, script)
