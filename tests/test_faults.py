"""The campaign of faults: a small part of it holds, and it sees guards that are broken."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kd_core.experiment import curves, report  # noqa: F401 - what forked processes draw with

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, kills, limits")
NO_MOMENTUM = """
from kd_core.training import training_state
restore = training_state.restore
def forgetful(trainer, state):
    restore(trainer, state)
    trainer.optimizer.state.clear()
training_state.restore = forgetful
"""
TRUSTING = """
import torch
load = torch.load
torch.load = lambda *args, **options: load(*args, **{**options, "weights_only": False})
"""
BLIND = """
from types import SimpleNamespace
from kd_core.files import checksum
class Same:
    def __init__(self, *_): pass
    def update(self, _): pass
    def hexdigest(self): return "0" * 64
checksum.hashlib = SimpleNamespace(sha256=Same)
"""
UNLOCKED = """
from types import SimpleNamespace
from kd_core.files import claim
from kd_core.files import workdir
claim.take = lambda folder: SimpleNamespace(release=lambda: None)
workdir.has_run = lambda folder: False
"""
BROKEN = {
    "kills, classification": (NO_MOMENTUM, "1 12 23 34"),  # of a run that saves at every step
    "flipped bits": (BLIND, "0 6 25 31 50"),
    "hostile weights": (TRUSTING, "0 1"),
    "two at once": (UNLOCKED, "0 3"),
}
"""By kind, what breaks the guard that it tries, and trials that must show it."""


def run(source, runs):
    """Break guards and run campaigns; return the worst status."""
    sys.path.insert(0, str(BENCHMARKS))
    faults = importlib.import_module("faults")
    report.flops = lambda network, image: None  # to trace networks takes longer than their runs
    exec(source, {})
    return max(map(faults.main, runs))


@pytest.fixture
def campaigns(tmp_path, forks):
    """Return a function that runs campaigns in one process, perhaps with broken guards.

    It returns the status, what they found and what they said.
    """
    pytest.importorskip("detectron2")
    pytest.importorskip("torchreid")

    def start(*runs, source=""):
        places = [tmp_path / str(number) for number in range(len(runs))]
        outs = [str(place) + ".json" for place in places]
        given = [
            [*options, "--work-dir", str(place), "--out", out]
            for options, place, out in zip(runs, places, outs, strict=True)
        ]
        status, said = forks.start(run, source, given, folder=tmp_path).end(3600)
        assert all(Path(out).is_file() for out in outs), said
        return status, [json.loads(Path(out).read_text()) for out in outs], said

    return start


@pytest.fixture
def module(monkeypatch):
    """Return what imports a part of the campaign."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_a_small_part_of_the_campaign_holds(campaigns):
    status, (report,), said = campaigns(["--scale", "0.05", "--seed", "0"])
    assert status == 0, said
    kinds = report["kinds"]
    assert len(kinds) == 15
    assert all(counts["tried"] == counts["held"] > 0 for counts in kinds.values())


@pytest.mark.slow
def test_the_whole_campaign_holds(campaigns):
    status, _, said = campaigns([])
    assert status == 0, said


def test_broken_guards_fail_the_campaign(campaigns):
    source = "".join(guard for guard, _ in BROKEN.values())
    runs = [["--only", kind, "--numbers", *n.split()] for kind, (_, n) in BROKEN.items()]
    status, reports, said = campaigns(*runs, source=source)
    assert status == 1
    for kind, found in zip(BROKEN, reports, strict=True):
        assert found["kinds"][kind]["held"] < found["kinds"][kind]["tried"], (kind, said)
        assert f"NOT HELD: {kind} " in said


class TestState:
    @pytest.fixture
    def state(self, module):
        return module("fault_state")

    @pytest.fixture
    def folder(self, tmp_path):
        torch.save({"weight": torch.ones(3), "seconds": 1.0}, tmp_path / "last.pth")
        result = {"last": {"top1": 1.0}, "train_seconds": 1.0}
        (tmp_path / "result.json").write_text(json.dumps(result))
        (tmp_path / "log.jsonl").write_text('{"epoch": 1, "seconds": 2}\n')
        return tmp_path

    def test_times_do_not_count(self, state, folder):
        before = state.state_of(folder)
        torch.save({"weight": torch.ones(3), "seconds": 2.0}, folder / "last.pth")
        result = {"last": {"top1": 1.0}, "train_seconds": 9.0}
        (folder / "result.json").write_text(json.dumps(result))
        (folder / "log.jsonl").write_text('{"epoch": 1, "seconds": 3}\n')
        assert len(before) == 3
        assert state.difference(before, state.state_of(folder)) == ""

    def test_one_bit_counts(self, state, folder):
        before = state.state_of(folder)
        weight = torch.ones(3)
        weight.view(torch.int32)[1] ^= 1
        torch.save({"weight": weight, "seconds": 1.0}, folder / "last.pth")
        assert "last.pth differs" in state.difference(before, state.state_of(folder))

    def test_a_score_a_line_of_the_log_and_a_left_over_file_count(self, state, folder):
        before = state.state_of(folder)
        (folder / "log.jsonl").write_text('{"epoch": 1}\n{"epoch": 1}\n')
        assert "log.jsonl differs" in state.difference(before, state.state_of(folder))
        (folder / "log.jsonl").unlink()
        assert "log.jsonl is missing" in state.difference(before, state.state_of(folder))
        (folder / "log.jsonl").write_text('{"epoch": 1}\n')
        (folder / ".last.pth.123").touch()
        assert ".last.pth.123 was left" in state.difference(before, state.state_of(folder))

    def test_a_damaged_file_equals_no_other(self, state, folder):
        before = state.state_of(folder)
        (folder / "last.pth").write_bytes(b"")
        assert "unreadable" in state.difference(before, state.state_of(folder))


class TestProcesses:
    @pytest.fixture
    def process(self, module):
        return module("fault_process")

    @pytest.mark.parametrize(
        ("status", "err", "held"),
        [
            (2, "networks\nerror: no file x\n", True),
            (1, "error: no room\n", True),
            (0, "error: said and yet ended well\n", False),
            (-9, "error: killed\n", False),
            (2, "usage: x\n", False),
            (2, "error: one\nerror: two\n", False),
            (1, "Traceback (most recent call last):\nerror: x\n", False),
        ],
    )
    def test_only_one_line_with_its_status_is_an_error_that_was_told(
        self, process, status, err, held
    ):
        assert bool(process.Ended(status, "", err, 0.0).error) == held

    def test_a_forked_process_has_folder_output_limit_and_status_of_its_own(
        self, process, tmp_path
    ):
        def work():
            print(Path.cwd().name)
            Path("large").write_bytes(bytes(2000))
            return 0

        ended = process.run(work, tmp_path)
        assert (ended.status, ended.out) == (0, f"{tmp_path.name}\n")
        ended = process.run(work, tmp_path, largest_file=1000)
        assert ended.status == 1
        assert "OSError" in ended.err

    def test_a_kill_ends_a_process_and_its_workers(self, process, tmp_path):
        program = "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"

        def work():
            return subprocess.run([sys.executable, "-c", program]).returncode

        child = process.Child(work, tmp_path)
        assert child.wait(0.3) is None
        assert child.kill().status == -9  # its output is closed: nothing of it is left


def test_a_trial_that_cannot_be_made_did_not_hold(module, tmp_path):
    place = module("fault_place")
    (tmp_path / "configs").mkdir()

    def fail(*_):
        raise ValueError("no such maker")

    outcome = place.attempt(place.Trial("kills", 3, 0), fail, place.Place(tmp_path))
    assert (outcome.held, outcome.kind, outcome.number) == (False, "kills", 3)
    assert "no such maker" in outcome.came


class TestTwins:
    @pytest.fixture
    def unlike(self, module):
        process, place = module("fault_process"), module("fault_place")
        good = process.Ended(0, "", "", 0.0)
        refused = process.Ended(2, "", "error: in use\n", 0.0)
        alone = {"runs/kd/result.json": "1", "runs/teachers/t/result.json": "2"}
        judge = module("fault_twins").unlike

        def unlike(found, *, refuses=False, **options):
            ended = [good, refused if refuses else good]
            return judge(ended, found, place.Reference(alone, "", 0.0), **options)

        return unlike

    def test_two_folders_with_whole_results_are_fine(self, unlike):
        teacher = {"runs/teachers/t/result.json": "2"}
        two = {"runs/kd/result.json": "1", "runs/kd-2/result.json": "1", **teacher}
        assert unlike(two) == ""
        assert unlike({"runs/kd/result.json": "1", **teacher}, refuses=True) == ""
        assert "runs/kd-2: " in unlike({**two, "runs/kd-2/result.json": "mixed"})
        assert "t/result.json is missing" in unlike({"runs/kd/result.json": "1"}, refuses=True)

    def test_a_lost_result_is_seen(self, unlike):
        one = {"runs/kd/result.json": "1", "runs/teachers/t/result.json": "2"}
        assert "2 ended well" in unlike(one)

    def test_in_one_folder_only_those_that_may_end_well(self, unlike):
        one = {"runs/kd/result.json": "1", "runs/teachers/t/result.json": "2"}
        assert unlike(one, most_in_one=2) == unlike(one, most_in_one=1, refuses=True) == ""
        assert "2 ended well" in unlike(one, most_in_one=1)


def test_the_table_is_written_into_its_page(module, tmp_path):
    table, place = module("fault_table"), module("fault_place")
    outcomes = [
        place.Outcome("x", held, "y", kind, 0, 2.0)
        for kind, held in (("kills", True), ("kills", False), ("cut files", True))
    ]
    report = table.report(
        outcomes, {"commit": "a" * 40, "device": "cpu"}, seed=3, jobs=2, minutes=4
    )
    assert report["kinds"]["kills"] == {"tried": 2, "held": 1, "seconds": 4.0}
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write_into(page, table.table(report))
    text = page.read_text()
    assert "| kills | 2 | 1 | 2.0 |" in text
    assert "| **all** | **3** | **2** |" in text
    assert "Seed 3, 2 trials at a time, 4 minutes; cpu, commit aaaaaaa." in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    page.write_text("no place\n")
    with pytest.raises(ValueError, match="has no lines"):
        table.write_into(page, "")


def test_the_page_on_faults_has_a_place_for_the_table(module):
    text = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
    table = module("fault_table")
    assert text.count(table.BEGIN) == text.count(table.END) == 1


def test_every_kind_of_hostile_file_is_given_to_a_tool(module):
    hostile = module("fault_hostile")
    makers = {kind: hostile.traps(kind) for kind in hostile.COMMANDS}
    assert makers.keys() == importlib.import_module("hostile_files").KINDS.keys()
    assert all(len(made) >= 15 for made in makers.values())
