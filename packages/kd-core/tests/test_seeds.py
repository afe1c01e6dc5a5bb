"""Runs over seeds: their folders, and mean and standard deviation."""

import pytest
from kd_core.errors import UserError
from kd_core.experiment import identity, seeds
from kd_core.experiment.results import read_result
from kd_core.files import checkpoint
from kd_core.files.checksum import sealed_json
from rich.console import Console

TOP1 = {0: 50.0, 1: 52.0, 2: 57.0}


class Runs:
    """Stands for training; remembers what ran."""

    def __init__(self):
        self.ran = []

    def __call__(self, seed, folder):
        self.ran.append(seed)
        result = {
            "metric": "top1",
            "last": {"epoch": 9, "top1": TOP1[seed], "ece": 0.25},
            "best": {"epoch": seed, "top1": TOP1[seed] + 1, "chosen_on": "validation split"},
            "student_parameters": 1234,
            "train_seconds": 2.0 + seed,
        }
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(sealed_json(result))
        (folder / "log.jsonl").write_text(f'{{"epoch": 1, "top1": {TOP1[seed]}}}\n{{"epoch": 2}}\n')
        return result


def nothing(seed, folder):
    """Raise that a run is not finished."""


def there(seed, folder):
    return read_result(folder) if folder.exists() else None


def test_every_seed_runs_in_its_own_folder_and_the_summary_is_written(tmp_path):
    runs = Runs()
    summary = seeds.repeat(runs, [0, 1, 2], tmp_path, finished=nothing)
    assert runs.ran == [0, 1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "seed-0",
        "seed-1",
        "seed-2",
        "summary.json",
    ]
    assert checkpoint.load_json(tmp_path / "summary.json") == summary


def test_mean_and_standard_deviation_are_those_of_the_seeds():
    summary = seeds.summarise([Runs()(seed, _Nowhere()) for seed in TOP1], list(TOP1))
    # of 50, 52, 57: mean 53; squares 9 + 1 + 16 over n - 1 = 2
    assert summary["last"]["top1"] == {"mean": 53.0, "sd": round(13**0.5, 6), "n": 3}
    assert summary["best"]["top1"] == {"mean": 54.0, "sd": round(13**0.5, 6), "n": 3}
    assert summary["last"]["ece"] == {"mean": 0.25, "sd": 0.0, "n": 3}
    assert "chosen_on" not in summary["best"]
    assert summary["chosen_on"] == "validation split"
    assert summary["train_seconds"] == 3.0


def test_one_seed_runs_in_the_folder_itself_and_has_no_deviation(tmp_path):
    summary = seeds.repeat(Runs(), [1], tmp_path / "run", finished=nothing)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "log.jsonl",
        "result.json",
    ]
    assert summary["last"]["top1"] == {"mean": 52.0, "sd": None, "n": 1}


def test_what_is_finished_is_read_and_the_rest_runs(tmp_path):
    seeds.repeat(Runs(), [0, 1], tmp_path, finished=nothing)
    again = Runs()
    summary = seeds.repeat(again, [0, 1, 2], tmp_path, finished=there)
    assert again.ran == [2]
    assert summary["last"]["top1"]["mean"] == 53.0


def test_all_folders_are_looked_at_before_any_run_starts(tmp_path):
    def finished(seed, folder):
        if seed == 2:
            raise UserError("another config's")

    runs = Runs()
    with pytest.raises(UserError, match="another config's"):
        seeds.repeat(runs, [0, 1, 2], tmp_path, finished=finished)
    assert runs.ran == []


def test_a_seed_is_where_its_run_is_or_else_beside_the_others(tmp_path):
    assert seeds.seed_folder(tmp_path, 4, [4]) == tmp_path
    identity.keep(tmp_path, {"seed": 4})
    assert seeds.seed_folder(tmp_path, 4, [4]) == seeds.seed_folder(tmp_path, 4, [3, 4]) == tmp_path
    assert seeds.seed_folder(tmp_path, 3, [3, 4]) == tmp_path / "seed-3"
    assert seeds.seed_folder(tmp_path, 3, [3]) == tmp_path  # where it will be refused
    identity.keep(tmp_path / "seed-3", {"seed": 3})
    assert seeds.seed_folder(tmp_path, 3, [3]) == tmp_path / "seed-3"
    assert seeds.seed_folder(tmp_path, 5, [5]) == tmp_path / "seed-5"


def test_histories_are_read_back_in_the_order_of_the_seeds(tmp_path):
    seeds.repeat(Runs(), [2, 0], tmp_path, finished=nothing)
    histories = seeds.read_histories(tmp_path, [2, 0])
    assert [history[0]["top1"] for history in histories] == [57.0, 50.0]
    assert [len(history) for history in histories] == [2, 2]


@pytest.mark.parametrize(
    ("chosen", "title", "value"),
    [([0, 1, 2], "3 seeds", "53.00 ± 3.61"), ([1], "1 seed", "52.00")],
)
def test_the_table_shows_mean_and_deviation_and_how_the_best_was_chosen(chosen, title, value):
    summary = seeds.summarise([Runs()(seed, _Nowhere()) for seed in chosen], chosen)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(seeds.summary_table(summary))
    shown = capture.get()
    for text in (title, value, "best on validation split", "0.25"):
        assert text in shown


class _Nowhere:
    """A folder that forgets what is written."""

    def mkdir(self, **options):
        pass

    def __truediv__(self, name):
        return self

    def write_text(self, text):
        pass
