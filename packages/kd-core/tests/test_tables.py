"""Tables: paired intervals, hostile names in every format, rows that differ."""

import csv
import io
import re

import pytest
from kd_core.errors import UserError
from kd_core.experiment.tables.formats import latex, markdown, spreadsheet
from kd_core.experiment.tables.paired import difference, t_quantile
from kd_core.experiment.tables.rows_file import read_rows_file
from kd_core.experiment.tables.students import folder_of, with_latency
from kd_core.experiment.tables.table import tabulate

HOSTILE = [
    "a_b & 50 % | c",
    "quotes \" and ' , commas; #1 $x$ {y} ~ ^ \\",
    "two\nlines\r\nand\ta tab",
    "λ = 0,5 → 日本 ±",
    "=SUM(A1:A9)",
    "+ KD",
    "-1",
    "@stages",
    "[b] and *",
    "<b>bold</b> `code`",
    "",
    "x" * 400,
]


def run(value, seed, **scores):
    last = {"top1": value, **scores}
    return {"seed": seed, "last": last, "best": {**last, "chosen_on": "test data"}}


def texts(table, label):
    return next([cell.text for cell in row] for row in table.rows if row[0].values[0] == label)


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (99, 1.9842)],
)
def test_the_quantile_is_that_of_student_s_tables(freedom, expected):
    assert t_quantile(0.95, freedom) == pytest.approx(expected, abs=5e-5)


def test_the_interval_is_that_of_the_paired_test_over_common_seeds():
    ours = {0: 62.31, 1: 61.9, 2: 63.0, 7: 10.0}
    theirs = {2: 61.1, 0: 60.0, 1: 60.7, 5: 99.0}
    found = difference(ours, theirs)
    assert found.seeds == 3
    assert found.mean == pytest.approx(1.8033333)
    assert found.sd == pytest.approx(0.5612783)
    of_scipy = (0.4090407, 3.1976259)  # ttest_rel(...).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(of_scipy)


def test_one_seed_has_no_interval_and_no_common_seed_no_difference():
    assert difference({0: 2.0}, {0: 1.5}) == (0.5, None, None, None, 1)
    assert difference({0: 2.0}, {1: 1.5}) is None
    table = tabulate({"a": [run(50, 0)], "b": [run(52, 0)], "c": [run(51, 3)]}, "top1", {})
    assert texts(table, "b")[-2:] == ["+2.00 from a", "none (n = 1)"]
    assert texts(table, "c")[-2:] == ["no seed in common with a", ""]


def test_runs_are_paired_by_their_seed_and_not_by_their_place():
    results = {"a": [run(50, 0), run(60, 1)], "b": [run(61, 1), run(51, 0), run(99, 2)]}
    table = tabulate(results, "top1", {})
    assert texts(table, "b")[1] == "3"
    assert texts(table, "b")[-2:] == ["+1.00 ± 0.00 from a", "+1.00 to +1.00 (n = 2)"]
    assert "n seeds that both rows have" in table.notes[-1]


def test_a_metric_that_a_row_lacks_leaves_its_cell_empty():
    nan = float("nan")
    results = {"a": [run(50, 0, ece=0.1)], "b": [run(52, 0)], "c": [run(52, 0, ece=nan)]}
    table = tabulate(results, "top1", {"ece": "ECE"}, ["top1", "ece"])
    assert [row[4].text for row in table.rows] == ["0.1000", "", ""]
    assert [row[4].values for row in table.rows] == [(0.1, None), (None, None), (None, None)]
    with pytest.raises(UserError, match="there is no 'eec'; did you mean 'ece'"):
        tabulate(results, "top1", {}, ["eec"])


def test_headings_have_the_unit_of_their_metric():
    table = tabulate({"a": [run(50, 0)]}, "top1", {"top1": "top-1 %"})
    assert [column.heading for column in table.columns[2:5]] == [
        "top-1 %, last",
        "top-1 %, best (chosen on test data)",
        "top-1 %, last: difference",
    ]
    assert all("top-1 %" in name for name in table.columns[2].names)


@pytest.fixture(scope="module")
def hostile():
    results = {name: [run(50 + 1 / 3, 0), run(51.0, 1)] for name in HOSTILE}
    return tabulate(results, "top1", {"top1": "top-1 %"}, against={HOSTILE[1]: HOSTILE[3]})


def test_markdown_keeps_hostile_names_in_their_cells(hostile):
    lines = markdown(hostile).splitlines()[: 2 + len(HOSTILE)]
    cells = [re.split(r"(?<!\\)\|", line) for line in lines]
    assert {len(row) for row in cells} == {2 + len(hostile.columns)}
    assert r"\<b>bold\</b> \`code\`" in cells[2 + HOSTILE.index("<b>bold</b> `code`")][1]


def test_csv_has_hostile_names_and_numbers_in_full_precision(hostile):
    text = spreadsheet(hostile)
    assert text.startswith("\ufeff")  # or spreadsheets would misread the letters
    head, *rows = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    assert {len(row) for row in rows} == {len(head)}
    assert [row[0].removeprefix(" ") for row in rows] == HOSTILE
    assert [row[0] for row in rows if row[0][:1] in ("=", "+", "-", "@")] == []
    place = head.index("top-1 %, last: mean")
    assert float(rows[0][place]) == (50 + 1 / 3 + 51) / 2
    assert rows[0][head.index("numbers of the seeds")] == "0 1"
    assert rows[0][head.index("top-1 %, last: difference")] == ""
    assert rows[1][head.index("compared with")] == HOSTILE[3]


def test_csv_of_plain_names_begins_with_its_first_column():
    assert spreadsheet(tabulate({"a": [run(50, 0)]}, "top1", {})).startswith("row,")


def test_latex_escapes_hostile_names(hostile):
    text = latex(hostile)
    body = text[text.index("\\hline") : text.index("\\end{tabular}")].splitlines()
    rows = [line for line in body if line != "\\hline"]
    assert len(rows) == 1 + len(HOSTILE)
    for row in rows:
        assert row.endswith(r" \\")
        cells = re.split(r"(?<!\\)&", row)
        assert len(cells) == len(hostile.columns)
        ours = r"\\(?:text(?:backslash|asciitilde|asciicircum|less|greater|bar)\{\}|[&%$#_{}])"
        plain = re.sub(ours, "", row[:-3]).replace("{[}", "").replace("{*}", "")
        plain = re.sub(r"\$\\pm\$|\$\\dagger\$|\$-\$", "", plain)
        assert not re.search(r"[\\%$#_{}~^<>|\[*]", plain), row


def test_results_outside_the_folder_of_a_table_are_not_read(tmp_path):
    assert folder_of({"folder": "kd-1/seed-0"}, tmp_path) == tmp_path / "kd-1/seed-0"
    for name in ("../other", "/etc", "", None, 3, "a/../../b"):
        assert folder_of({"folder": name}, tmp_path) is None


def test_latencies_stand_beside_the_rows_that_they_were_measured_for():
    results = {
        "a": [{**run(50, 0), "folder": "a-1"}],
        "b": [{**run(50, 0), "folder": "b-2"}],
    }
    found = {"folder": "a-1", "bytes": 2_500_000, "parameters": 1234}
    found["latency_ms"] = {"PyTorch": {"1": {"p50": 1.25, "p95": 1.5, "calls": 9}}}
    rows = {"a": found, "b": {**found, "folder": "b-1"}}  # b was trained again since
    measured = {"processor": "CPU", "threads": 2, "rows": rows}
    table = with_latency(tabulate(results, "top1", {}), results, measured)
    names = ["parameters", "file, MB", "PyTorch, batch 1: p50 / p95, ms"]
    assert [column.heading for column in table.columns[-3:]] == names
    assert texts(table, "a")[-3:] == ["1,234", "2.50", "1.25 / 1.50"]
    assert texts(table, "b")[-3:] == ["", "", ""]
    assert "2 threads" in table.notes[-1]
    assert {len(row) for row in table.rows} == {len(table.columns)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows = []", "rows: wanted a dict by text"),
        ("rows = {1: []}", "rows: wanted a dict by text"),
        ("metrics = ['top1']", "metrics: wanted a dict by text"),
        ("metrics = dict(top1=None)", "metrics: wanted a text for each key"),
        ("against = dict(a=['b'])", "against: wanted a text for each key"),
        ("rowz = {}", "did you mean 'rows'"),
    ],
)
def test_a_file_of_rows_is_checked_when_it_is_read(tmp_path, text, message):
    (tmp_path / "rows.py").write_text(text)
    with pytest.raises(UserError, match=message):
        read_rows_file(str(tmp_path / "rows.py"))
