"""`kd list runs`: runs found again by their files, which are checked."""

import json

import pytest
from kd_core.experiment import identity
from kd_core.files import checkpoint
from kd_core.files.claim import claimed
from kd_core.front.main import main
from kd_core.front.run_table import list_runs
from kd_core.front.runs import read_run

ABOUT = {"task": "cls", "metric": "top1"}
NETWORK = {"seed": 0, "distiller": {"terms": {"dkd": {}, "kd": {}}}, "trainer": {"epochs": 2}}


def begin(folder, seed=0, log=(), **changes):
    """Make a folder of a run that has begun, with the records of these epochs."""
    identity.keep(folder, {**NETWORK, "seed": seed, **changes}, ABOUT)
    records = [json.dumps({"epoch": n, "top1": value}) for n, value in enumerate(log, 1)]
    (folder / "log.jsonl").write_text("".join(f"{record}\n" for record in records))


def end(folder, value, **more):
    """Let a run finish."""
    scores = {"last": {"top1": value}, "best": {"top1": value + 1.0, "chosen_on": "test data"}}
    made_by = {"made_by": identity.digest_of(folder), "metric": "top1", "epochs": 2}
    checkpoint.save_json({**made_by, **scores, **more}, folder / "result.json")


def shown(folder, capsys):
    list_runs(folder, as_json=True)
    lines = capsys.readouterr().out.splitlines()
    return {run.pop("folder"): run for run in map(json.loads, lines)}


@pytest.fixture
def runs(tmp_path):
    for seed, last in ((0, 70.0), (1, 72.0)):
        begin(tmp_path / f"dkd/seed-{seed}", seed)
        end(tmp_path / f"dkd/seed-{seed}", last)
    begin(tmp_path / "half", log=[30.0, 20.0], trainer={"epochs": 5})
    return tmp_path


def test_a_row_has_the_seeds_of_a_config_and_a_stopped_run_how_far_it_is(runs, capsys):
    list_runs(runs)
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    rows = {cells[0].strip().rpartition("/")[2]: [c.strip() for c in cells] for cells in rows}
    assert rows["dkd"][1:8] == [
        "cls",
        "dkd, kd",
        "top1",
        "71.00 ± 1.41",
        "72.00 ± 1.41",
        "0 1",
        "finished",
    ]
    assert rows["half"][3:8] == ["top1", "20.00", "30.00", "0", "stopped, 2 of 5"]


def test_a_line_of_json_is_a_run(runs, capsys):
    found = shown(runs, capsys)
    assert len(found) == 3
    first = found[str(runs / "dkd/seed-0")]
    wanted = {"task": "cls", "terms": ["dkd", "kd"], "seed": 0, "state": "finished", "last": 70.0}
    assert wanted.items() <= first.items()
    assert first["problem"] is None


def test_a_run_that_was_resumed_for_more_epochs_is_not_finished(tmp_path, capsys):
    begin(tmp_path / "r", log=[1.0, 2.0], trainer={"epochs": 9})
    end(tmp_path / "r", 2.0)
    found = shown(tmp_path, capsys)[str(tmp_path / "r")]
    assert (found["state"], found["done"], found["of"]) == ("stopped", 2, 9)


def test_an_early_stop_is_finished_and_a_live_owner_is_running(tmp_path, capsys):
    begin(tmp_path / "early", trainer={"epochs": 9})
    end(tmp_path / "early", 2.0, stopped_in_epoch=4)
    begin(tmp_path / "live/seed-1", seed=1)
    with claimed(tmp_path / "live"):
        found = shown(tmp_path, capsys)
    states = {name.rpartition("/")[2]: run["state"] for name, run in found.items()}
    assert states == {"early": "finished", "seed-1": "running"}


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("result.json", lambda text: text.replace("70.0", "99.0"), "checksum does not match"),
        ("config.json", lambda text: text[:40], "not JSON"),
        ("config.json", lambda text: "[" * 100_000, "config.json: damaged"),
        ("result.json", lambda text: text.replace("sha256", "sha"), "no checksum"),
    ],
)
def test_what_is_damaged_is_said_and_its_numbers_are_not_shown(runs, capsys, name, change, said):
    file = runs / "dkd/seed-0" / name
    file.write_text(change(file.read_text()))
    run = shown(runs, capsys)[str(file.parent)]
    assert (run["state"], run["last"]) == ("damaged", None)
    assert said in run["problem"]
    list_runs(runs)
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_result_of_another_run_is_not_taken_for_this_one_s(runs):
    begin(runs / "other", distiller={})
    (runs / "other/result.json").write_bytes((runs / "dkd/seed-0/result.json").read_bytes())
    assert "is not of the run" in read_run(runs / "other").problem


def test_values_of_other_kinds_and_control_characters_do_no_harm(tmp_path, capsys):
    begin(tmp_path / "r", seed="x", distiller={"terms": {"a\x1b[31m": {}}}, trainer=["odd"])
    end(tmp_path / "r", 1.0, metric=["top1"], best="none", epochs="2")
    run = read_run(tmp_path / "r")
    assert (run.seed, run.of, run.state, run.last) == (None, None, "stopped", None)
    list_runs(tmp_path)
    assert "\x1b" not in capsys.readouterr().out


def test_others_models_and_the_phases_of_a_run_are_not_listed(runs, capsys):
    (runs / "model").mkdir()
    (runs / "model/config.json").write_text('{"architectures": ["ResNet"]}')
    begin(runs / "half/fit-1234")
    assert len(shown(runs, capsys)) == 3


def test_a_detector_is_listed_by_its_own_keys(tmp_path, capsys):
    config = {"KD": {"TERMS": {"fitnet": {}}}, "SOLVER": {"MAX_ITER": 9}, "seed": 3}
    identity.keep(tmp_path / "d", config, {"task": "det"})
    result = {"iterations": 9, "made_by": "its own", "last": {"bbox/AP": 40.5}}
    checkpoint.save_json(result, tmp_path / "d/result.json")
    (run,) = shown(tmp_path, capsys).values()
    wanted = {"task": "det", "terms": ["fitnet"], "metric": "bbox/AP", "last": 40.5, "done": 9}
    assert wanted.items() <= run.items()
    assert run["state"] == "finished"


def test_the_command_lists_a_folder(runs, capsys):
    assert main(["list", "runs", str(runs), "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    (runs / "empty").mkdir()
    assert main(["list", "runs", str(runs / "empty")]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"{runs}/empty has no runs\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is no folder nowhere"),
        ([__file__], "is not a folder"),
        (["--jsn"], "did you mean '--json'"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, said):
    assert main(["list", "runs", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
