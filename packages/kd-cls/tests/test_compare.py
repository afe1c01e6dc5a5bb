"""Tables whose rows are configs: what is in them, and that nothing finished is run again."""

import csv
import io
import sys
from pathlib import Path

import pytest
from kd_cls.adapter import ADAPTER
from kd_cls.compare import main
from kd_core.errors import RunError
from kd_core.experiment.adapter import TaskAdapter
from kd_core.experiment.runner import Runner
from kd_core.experiment.tables.formats import markdown
from kd_core.experiment.tables.table import tabulate
from kd_core.files.checkpoint import load_json
from kd_core.files.claim import claimed
from kd_core.networks.latency import Plan, measure
from kd_core.runtime.processes import this_process

TINY = """
data = dict(
    type="kd_cls.data.synthetic", num_train=16, num_test=8, batch_size=8, image_size=8, augment=[]
)
student = dict(network=dict(type="kd_cls.models.build_model", name="tiny"))
teacher = dict(
    network=dict(type="kd_cls.models.build_model", name="tiny"), weights="random"
)
optimizer = dict(type="torch.optim.SGD", lr=0.01)
schedule = dict(type="kd_core.training.schedule.constant")
trainer = dict(epochs=1, loggers=[])
"""
KD = "distiller = dict(terms=dict(kd=dict(criterion=dict(type='kd_core.criteria.kd.KD'))))"
ROWS = """
rows = {
    "alone": [],
    "KD": ["{{ fileDirname }}/kd.py"],
    "weak KD": dict(files=["{{ fileDirname }}/kd.py"], options=["distiller.terms.kd.weight=0.1"]),
}
metrics = dict(top1="top-1 %", ece="ECE")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in {"tiny": TINY, "kd": KD, "table": ROWS}.items():
        Path(f"{name}.py").write_text(text)


def cells(text):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def results():
    return load_json(Path("runs/table-table/table.json"))


def test_a_table_has_its_rows_over_the_seeds(capsys):
    assert main(["tiny.py", "--rows", "table.py", "--seeds", "0", "1"]) == 0
    table = cells(capsys.readouterr().out)
    assert [row[0] for row in table[2:]] == ["alone", "KD", "weak KD"]
    assert table[0][1:3] == ["seeds", "top-1 %, last"]
    assert table[0][4] == "ECE"
    found = results()
    values = [run["last"]["top1"] for run in found["KD"]]
    assert table[3][2].startswith(f"{sum(values) / 2:.2f} ± ")
    gaps = [a - b["last"]["top1"] for a, b in zip(values, found["alone"], strict=True)]
    assert table[3][-2].startswith(f"{sum(gaps) / 2:+.2f} ± ")
    assert table[3][-1].endswith(" (n = 2)")
    assert table[2][-2:] == ["", ""]
    assert cells(Path("runs/table-table/table.md").read_text()) == table
    assert [run["seed"] for run in found["weak KD"]] == [0, 1]
    assert found["alone"][0]["teachers"] == {}  # not even built
    assert list(found["KD"][0]["teachers"]) == ["teacher"]


def test_what_is_finished_is_not_run_again_and_what_is_changed_is(capsys):
    arguments = ["tiny.py", "--rows", "table.py", "--seeds", "0"]
    assert main([*arguments, "--only", "alone"]) == 0
    capsys.readouterr()
    assert main([*arguments, "--only", "alone", "KD"]) == 0
    assert capsys.readouterr().err.count("epoch 1/1") == 1
    assert main([*arguments, "--only", "alone", "--cfg-options", "optimizer.lr=0.02"]) == 0
    assert capsys.readouterr().err.count("epoch 1/1") == 1


def test_rows_that_weigh_the_task_otherwise_are_named_once(capsys):
    Path("table.py").write_text(ROWS.replace("terms.kd.weight=0.1", "task_weight=0.5"))
    assert main(["tiny.py", "--rows", "table.py", "--seeds", "0", "--dry-run"]) == 0
    shown = capsys.readouterr().err
    assert shown.count("task_weight differs: 1 in KD; 0.5 in weak KD\n") == 1
    assert main(["tiny.py", "--rows", "table.py", "--only", "KD", "alone", "--dry-run"]) == 0
    assert "task_weight differs" not in capsys.readouterr().err


def table_rows(folder="runs/table-table"):
    """Return the labels and the differences in a table."""
    table = cells(Path(folder, "table.md").read_text())
    return {row[0]: row[-2] for row in table[2:]}


def compare(*options, only=(), seeds=("0",)):
    chosen = ["--only", *only] if only else []
    assert main(["tiny.py", "--rows", "table.py", *chosen, "--seeds", *seeds, *options]) == 0


def test_left_overs_of_killed_runs_beside_the_teachers_go():
    folder = Path("runs/teachers")
    folder.mkdir(parents=True)
    (folder / f".cache.{this_process().machine}-{2**22}-1-0.tmp").touch()  # no such number
    compare(only=["alone"])
    assert not list(folder.glob(".*.tmp"))


def test_a_row_alone_keeps_the_others_in_their_order(capsys, table_curves):
    compare()
    before, files = results(), sorted(Path("runs").rglob("*.pth"))
    names = ("table.md", "table.csv", "table.tex", "curves.png")
    whole = [Path("runs/table-table", name).read_bytes() for name in names]
    for only in (["KD"], ["weak KD", "KD", "KD"]):
        compare(only=only)
        assert results() == before
        assert list(results()) == ["alone", "KD", "weak KD"]
        assert [Path("runs/table-table", name).read_bytes() for name in names] == whole
    Path("runs/table-table/table.json").unlink()  # the folders say it all
    compare(only=["KD"])
    assert results() == before
    assert sorted(Path("runs").rglob("*.pth")) == files


def test_rows_of_other_settings_or_seeds_are_kept_marked_and_not_compared():
    compare()
    before = results()
    compare("--cfg-options", "optimizer.lr=0.02", only=["KD"])
    assert list(table_rows()) == ["alone †", "KD", "weak KD †"]
    assert set(table_rows().values()) == {""}
    assert "† finished before, with other settings" in Path("runs/table-table/table.md").read_text()
    assert [results()[label] == before[label] for label in before] == [True, False, True]
    compare(only=["KD"])  # as at first: nothing is trained, nothing is marked
    assert results() == before
    assert list(table_rows()) == ["alone", "KD", "weak KD"]


def test_rows_of_more_seeds_are_compared_over_the_seeds_that_both_have():
    compare(seeds=["0", "1"])
    compare(only=["weak KD"], seeds=["0", "1", "2"])
    table = cells(Path("runs/table-table/table.md").read_text())
    assert [row[:2] for row in table[2:]] == [["alone", "2"], ["KD", "2"], ["weak KD", "3"]]
    ours, theirs = (
        {run["seed"]: run["last"]["top1"] for run in results()[label]}
        for label in ("weak KD", "alone")
    )
    gap = sum(ours[seed] - theirs[seed] for seed in (0, 1)) / 2
    assert table[4][-2].startswith(f"{gap:+.2f} ± ")
    assert table[4][-1].endswith("(n = 2)")


def test_a_sweep_in_the_folder_of_a_table_keeps_the_rows_of_the_table():
    compare(only=["alone"])
    sweep = ["tiny.py", "--sweep", "optimizer.lr", "0.1", "--seeds", "0"]
    assert main([*sweep, "--work-dir", "runs/table-table"]) == 0
    assert list(table_rows()) == ["optimizer.lr = 0.1", "alone †"]
    compare(only=["KD"])
    assert list(table_rows()) == ["alone", "KD", "optimizer.lr = 0.1 †"]


def test_an_interrupted_comparison_has_what_was_finished_before_and_since(monkeypatch):
    compare(only=["weak KD"])
    before = results()["weak KD"]
    call = Runner.train_seed

    def stop(self, config, seed, work_dir, **options):
        if work_dir.name.startswith("kd"):
            raise KeyboardInterrupt
        return call(self, config, seed, work_dir, **options)

    monkeypatch.setattr(Runner, "train_seed", stop)
    assert main(["tiny.py", "--rows", "table.py", "--seeds", "0"]) == 130
    assert list(results()) == ["alone", "weak KD"]
    assert results()["weak KD"] == before


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", '{"KD": []}', '{"KD": [1]}', '{"KD": [{"last": 1}]}', "\0"]
)
def test_a_damaged_table_is_one_line_before_any_training(text, capsys):
    path = Path("runs/table-table/table.json")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert main(["tiny.py", "--rows", "table.py", "--seeds", "0"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "table.json" in said
    assert "move it elsewhere: the results of its rows are in their own folders" in said
    assert path.read_text() == text


def test_a_comparison_beside_a_live_one_is_refused(capsys):
    with claimed(Path("runs/table-table")):
        assert main(["tiny.py", "--rows", "table.py", "--seeds", "0"]) == 2
    assert "runs/table-table is in use by another run: process" in capsys.readouterr().err


def test_a_sweep_has_a_row_for_every_value():
    arguments = ["tiny.py", "kd.py", "--sweep", "distiller.terms.kd.weight", "0.5", "2"]
    assert main([*arguments, "--seeds", "0", "--work-dir", "sweep"]) == 0
    found = load_json(Path("sweep/table.json"))
    assert list(found) == [f"distiller.terms.kd.weight = {value}" for value in ("0.5", "2")]
    configs = [path.read_text() for path in Path("sweep").glob("*/config.py")]
    assert sorted("weight=0.5" in text for text in configs) == [False, True]


def test_a_dry_run_takes_a_step_of_every_row_and_leaves_nothing(capsys):
    assert main(["tiny.py", "--rows", "table.py", "--dry-run"]) == 0
    assert capsys.readouterr().out.count("one training step done") == 3
    assert not Path("runs").exists()


OPTION = ("--seeds", "0", "--cfg-options")
OWN_ROWS = """rows = dict(one=dict(options=["trainer={'epochs': 1}"]), two=[])"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny.py"], "nothing to compare"),
        (["--rows", "table.py"], "nothing to compare"),
        (
            ["tiny.py", "--rows", "table.py", "--only", "K"],
            "no row 'K'; did you mean 'KD'",
        ),
        (["tiny.py", "--rows", "tabel.py"], "no config file tabel.py; did you mean 'table.py'"),
        (["tiny.py", "--rows", "table.py", "--sweep", "optimizr.lr", "1"], "did you mean 'optim"),
        (
            ["tiny.py", "--sweep", "optimizer.lr", "1", "1"],
            "--sweep optimizer.lr names a value twi",
        ),
        (["tiny.py", "--sweep", "optimizer.lr"], "--sweep optimizer.lr has no values"),
        (
            ["tiny.py", "--sweep", "trainer.epochs", "1", "2", *OPTION, "trainer.epochs=3"],
            "--cfg-options trainer.epochs: row 'trainer.epochs = 1' has its own trainer.epochs",
        ),
        (
            ["tiny.py", "--sweep", "optimizer.lr", "1", *OPTION, "optimizer={'lr': 2}"],
            "--cfg-options optimizer: row 'optimizer.lr = 1' has its own optimizer.lr",
        ),
        (
            ["tiny.py", "--rows", "own.py", *OPTION, "trainer.epochs=3"],
            "--cfg-options trainer.epochs: row 'one' has its own trainer;",
        ),
        (
            ["tiny.py", "--rows", "own.py", "--only", "two", *OPTION, "trainer={'epochz': 3}"],
            "epochz",  # the row that does not run may have its own
        ),
        (["tiny.py", "--rows", "against.py"], "against: there is no row 'alnoe'; did you mean 'al"),
        (["tiny.py", "--rows", "text.py"], "rows['a']: files: wanted a list of texts, got 'kd.py'"),
    ],
)
def test_mistakes_cost_one_line_and_no_time(arguments, message, capsys):
    Path("against.py").write_text(f"{ROWS}\nagainst = dict(KD='alnoe')")
    Path("text.py").write_text("rows = dict(a='kd.py')")
    Path("own.py").write_text(OWN_ROWS)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


def test_an_unknown_metric_names_the_nearest(capsys):
    Path("table.py").write_text(ROWS.replace("ece=", "eec="))
    assert main(["tiny.py", "--rows", "table.py", "--only", "alone", "--seeds", "0"]) == 2
    assert "there is no 'eec'; did you mean 'ece'" in capsys.readouterr().err


def test_a_table_is_written_in_every_format_with_the_curves_of_its_rows(capsys, table_curves):
    compare(only=["alone", "KD"], seeds=["0", "1"])
    folder = Path("runs/table-table")
    head, *rows = csv.reader((folder / "table.csv").read_text().splitlines())
    assert [row[0] for row in rows] == ["alone", "KD"]
    mean = sum(run["last"]["top1"] for run in results()["KD"]) / 2
    assert float(rows[1][head.index("top-1 %, last: mean")]) == mean
    assert r"\begin{tabular}" in (folder / "table.tex").read_text()
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "results in runs/table-table: table.md, table.csv, table.tex, curves.png" in (
        capsys.readouterr().err
    )


def test_curves_that_cannot_be_drawn_are_told_and_the_tables_are_there(
    capsys, monkeypatch, table_curves
):
    compare(only=["alone", "KD"])
    (log,) = Path("runs/table-table").glob("kd-*/log.jsonl")
    log.write_text("{")
    compare(only=["alone"])
    said = capsys.readouterr().err
    assert "curves.png is without KD: " in said
    assert "log.jsonl, line 1: damaged" in said
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    Path("runs/table-table/table.csv").unlink()
    compare(only=["alone"])
    assert "no curves.png: plots need the package matplotlib" in capsys.readouterr().err
    assert Path("runs/table-table/table.csv").is_file()


def test_a_row_that_fails_leaves_whole_files_of_the_others(monkeypatch, capsys):
    call = Runner.train_seed

    def fail(self, config, seed, work_dir, **options):
        if work_dir.name.startswith("kd"):
            raise RunError("the loss is not finite")
        return call(self, config, seed, work_dir, **options)

    monkeypatch.setattr(Runner, "train_seed", fail)
    assert main(["tiny.py", "--rows", "table.py", "--seeds", "0"]) == 1
    assert "the loss is not finite" in capsys.readouterr().err
    assert list(table_rows()) == ["alone"]
    compare(only=["weak KD"])
    assert list(table_rows()) == ["alone", "weak KD"]
    lines = Path("runs/table-table/table.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["row", "alone", "weak KD"]
    assert not list(Path("runs/table-table").glob("*.tmp"))


def latencies():
    """Return the last cells of the rows in Markdown: ms in PyTorch at batch 1."""
    head, _, *rows = cells(Path("runs/table-table/table.md").read_text())
    return {row[0]: row[head.index("PyTorch, batch 1: p50 / p95, ms")] for row in rows}


def test_latencies_are_measured_in_one_run_of_all_rows_and_kept(monkeypatch, capsys):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    asked = []

    def measure_few(timed, plan):
        asked.append(list(timed))
        return measure(timed, Plan(batch_sizes=(1,), repeats=3))

    monkeypatch.setattr("kd_core.experiment.tables.students.measure", measure_few)
    compare(only=["alone"])
    compare("--latency", only=["KD"])
    runtimes = ("PyTorch", "ONNX Runtime")
    assert asked == [[(label, runtime) for label in ("alone", "KD") for runtime in runtimes]]
    before = latencies()
    assert all(" / " in cell for cell in before.values())
    size = next(Path("runs/table-table").glob("kd-*/student.safetensors")).stat().st_size
    head, *rows = csv.reader(Path("runs/table-table/table.csv").read_text().splitlines())
    assert rows[1][head.index("student.safetensors, bytes")] == str(size)
    compare(only=["weak KD"])
    assert latencies() == {**before, "weak KD": ""}
    assert len(asked) == 1
    Path("runs/table-table/latency.json").write_text("{}")
    capsys.readouterr()
    assert main(["tiny.py", "--rows", "table.py", "--seeds", "0"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "latency.json" in said
    assert "move it elsewhere, and --latency measures again" in said


def test_a_task_that_does_not_say_what_is_deployed_is_refused_before_any_work(monkeypatch, capsys):
    monkeypatch.setattr(type(ADAPTER), "deployed", TaskAdapter.deployed)
    assert main(["tiny.py", "--rows", "table.py", "--latency"]) == 2
    assert "--latency: ClassificationAdapter does not say" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_names_of_any_letters_and_length_have_folders_and_cells():
    label = 'a_b | 50 % & λ, "x"\n' + "y" * 300
    Path("table.py").write_text(f"rows = {{{label!r}: []}}")
    compare()
    table = cells(Path("runs/table-table/table.md").read_text())
    assert len(table) == 3
    text = Path("runs/table-table/table.csv").read_text(encoding="utf-8-sig")
    _, row = csv.reader(io.StringIO(text))
    assert row[0] == label


def test_differences_are_between_runs_of_one_seed():
    def run(value):
        scores = {"top1": value, "ece": 0.1}
        return {"last": scores, "best": {**scores, "chosen_on": "test data"}}

    results = {"a": [run(50), run(60)], "b": [run(52), run(61)], "c": [run(53), run(60)]}
    table = cells(markdown(tabulate(results, "top1", {}, against={"c": "b"})))
    assert table[3][:4] == ["b", "2", "56.50 ± 6.36", "56.50 ± 6.36"]
    assert table[3][4:] == ["+1.50 ± 0.71 from a", "-4.85 to +7.85 (n = 2)"]
    assert table[4][-2] == "+0.00 ± 1.41 from b"
    alone = tabulate({"c": results["c"]}, "top1", {}, against={"c": "b"})
    assert cells(markdown(alone))[2][-2:] == ["", ""]
