"""The benchmarks of steps and epochs run, and say what they measured."""

import importlib
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from documented import make_small

SPEED = Path(__file__).parents[1] / "docs/speed.md"
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALL = ["--pair", "resnet56_resnet20", "--batch-size", "2"]


@pytest.fixture
def small_networks(monkeypatch):
    """Let networks have fewer blocks and channels."""
    make_small(monkeypatch)


@pytest.fixture
def run(monkeypatch, tmp_path, small_networks):
    """Return what runs a benchmark and gives its JSON."""

    def run(name, *options):
        monkeypatch.syspath_prepend(BENCHMARKS)
        out = tmp_path / "out.json"
        monkeypatch.setattr(sys, "argv", [name, *SMALL, *options, "--out", str(out)])
        importlib.import_module(name).main()
        return json.loads(out.read_text())

    return run


def test_steps_in_every_way_beside_the_bare_loop(run, capsys):
    result = run("step", "--repeats", "1", "--warmup", "0", "--method", "kd")
    rows = {row["way"]: row for row in result["ways"]}
    left_out = {"compiled"} if torch.cuda.is_available() else {"compiled", "eager", "eager-bf16"}
    assert set(rows) == set(importlib.import_module("step").WAYS) - left_out
    assert rows["bare"]["to_bare"] == 1
    assert all(row["ms"] > 0 and row["to_bare"] > 0 for row in rows.values())
    printed = capsys.readouterr().out
    assert all(f"| {way} |" in printed for way in rows)
    assert result["environment"]["device"]


def test_ways_can_be_chosen_and_the_method_may_look_at_maps(run):
    options = ["--ways", "default", "--method", "at", "--repeats", "2", "--warmup", "0"]
    (row,) = run("step", *options)["ways"]
    assert "to_bare" not in row


def test_epochs_are_timed_online_and_from_the_cache(run, capsys):
    ways = ["online-fp32", "cached-bf16"]
    rows = run("epoch", "--images", "6", "--epochs", "2", "--ways", *ways, "--method", "kd")["ways"]
    assert [row["way"] for row in rows] == ways
    assert all(row["minutes_of_240"] == pytest.approx(4 * row["seconds"]) for row in rows)
    assert "| online-fp32 |" in capsys.readouterr().out


@pytest.fixture
def gpu(monkeypatch):
    """Return the module of a call of the GPU run."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("gpu")


def test_the_gpu_run_names_files_that_exist_and_options_that_they_have(gpu):
    for call in gpu.CALLS.values():
        parts = call()
        assert sum(min(part.seconds, 60) for part in parts) < gpu.SECONDS
        for command in (part.command(dry=dry) for part in parts for dry in (False, True)):
            files = [word for word in command if word.endswith(".py")]
            assert all((BENCHMARKS.parent / file).is_file() for file in files)
            if files[0].startswith("benchmarks/"):
                source = (BENCHMARKS.parent / files[0]).read_text()
                options = [word for word in command if word.startswith("--") and word != "--"]
                assert all(f'"{option}"' in source for option in options)


def test_tests_that_need_a_gpu_are_found(gpu):
    names = {Path(file).name for file in importlib.import_module("gpu_plan").needing_cuda()}
    assert {"test_captured.py", "test_prefetch.py", "test_contract.py"} <= names


@pytest.fixture
def call(gpu, monkeypatch, tmp_path):
    """Return what runs a call of small scripts, given their source by name."""

    def call(*options, seconds=20.0, resumes=False, **sources):
        parts = []
        for name, source in sources.items():
            script = tmp_path / f"{name}.py"
            script.write_text(source)
            words = "{json} {out}", "{json} tiny"
            parts.append(gpu.Part(name, str(script), *words, seconds, resumes=resumes))
        monkeypatch.setitem(gpu.CALLS, "tests", lambda: parts)
        monkeypatch.setattr(gpu, "no_gpu", str)
        return gpu.main(["tests", "--out", str(tmp_path / "out"), *options])

    return call


COUNTS = """import sys, pathlib
out = pathlib.Path(__file__).with_suffix(".count")
out.write_text(out.read_text() + "x" if out.exists() else "x")
pathlib.Path(sys.argv[1]).write_text('{"word": "%s"}' % sys.argv[2])
"""


def test_what_is_finished_is_left_out_and_what_failed_is_run_again(call, tmp_path):
    fails = COUNTS + "sys.exit(4)"
    assert call(good=COUNTS, bad=fails) == 1
    record = json.loads((tmp_path / "out/good.json").read_text())
    assert record["result"] == {"word": str(tmp_path / "out")}
    assert record["commit"]
    assert call(good=COUNTS, bad=fails) == 1
    assert [(tmp_path / f"{name}.count").read_text() for name in ("good", "bad")] == ["x", "xx"]
    summary = json.loads((tmp_path / "out/tests.summary.json").read_text())["parts"]
    assert summary["good"] == "done before"
    assert summary["bad"].startswith("failed (4)")
    assert call(good=COUNTS, bad=COUNTS) == 0


def test_figures_of_a_dry_run_are_not_taken_for_real_ones(call, tmp_path):
    assert call("--dry", good=COUNTS) == 0
    assert json.loads((tmp_path / "out/good.json").read_text())["result"] == {"word": "tiny"}
    assert call(good=COUNTS) == 0
    assert (tmp_path / "good.count").read_text() == "xx"


def test_records_that_are_damaged_are_made_again(call, tmp_path):
    assert call(good=COUNTS) == 0
    record = tmp_path / "out/good.json"
    for damaged in (record.read_text()[:-9], record.read_text().replace("word", "wood"), "[]"):
        record.write_text(damaged)
        assert call(good=COUNTS) == 0
        assert json.loads(record.read_text())["result"]["word"]
    assert (tmp_path / "good.count").read_text() == "xxxx"
    for cut in ('.write_text("{")', '.with_name("cut.xml").write_text("<testsuites>")', ".parent"):
        assert call(cut="import sys, pathlib\npathlib.Path(sys.argv[1])" + cut) == 1
        assert not (tmp_path / "out/cut.json").exists()


def test_results_are_where_the_call_was_made(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("--out", "here", good=COUNTS) == 0
    assert json.loads((tmp_path / "here/good.json").read_text())["result"]["word"] == str(
        tmp_path / "here"
    )


STAYS = """import signal, subprocess, sys, time
child = subprocess.Popen(["sleep", "50"])
open(sys.argv[1] + ".child", "w").write(str(child.pid))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(50)
"""


def test_a_part_ends_with_its_processes_at_its_limit_though_it_ignores_signals(
    call, gpu, monkeypatch, tmp_path
):
    monkeypatch.setattr(gpu, "GRACE", 0.1)
    assert call(stays=STAYS, seconds=1.5, resumes=True) == gpu.MISSING
    child = int((tmp_path / "out/stays.result.json.child").read_text())
    assert (
        not Path(f"/proc/{child}/cmdline").is_file()
        or not Path(f"/proc/{child}/cmdline").read_bytes()
    )
    assert not (tmp_path / "out/stays.json").exists()


def test_a_call_without_time_starts_nothing_and_says_what_is_missing(call, gpu, capsys):
    assert call("--seconds", "5", good=COUNTS) == gpu.MISSING
    assert "still missing: good" in capsys.readouterr().out


def test_a_part_of_another_name_is_named(call, capsys):
    with pytest.raises(SystemExit):
        call("--only", "step", good=COUNTS)
    assert "no part 'step'" in capsys.readouterr().err


def test_tests_are_told_as_json(call, tmp_path):
    xml = """import sys
xml = '<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure/></testcase>\
<testcase name="c"><skipped/></testcase></testsuite></testsuites>'
open(sys.argv[1].replace("result.json", "xml"), "w").write(xml)
sys.exit(1)
"""
    assert call(tests=xml) == 1
    record = json.loads((tmp_path / "out/tests.json").read_text())
    assert record["result"] == {"tests": 3, "skipped": 1, "failed": ["b"]}


@pytest.mark.usefixtures("small_networks")
def test_the_whole_call_runs_in_tiny_sizes(gpu, monkeypatch, tmp_path):
    """All scripts of the benchmarks with the arguments of a dry run, in this process."""
    if torch.cuda.is_available():
        pytest.skip("a dry run is for machines without a GPU")

    def here(command, log, seconds):
        monkeypatch.setattr(sys, "argv", command[1:])
        monkeypatch.chdir(gpu.ROOT)
        runpy.run_path(command[1], run_name="__main__")
        return 0

    monkeypatch.setattr(gpu, "start", here)
    monkeypatch.syspath_prepend(BENCHMARKS)
    assert gpu.main(["benchmarks", "--dry", "--out", str(tmp_path), "--seconds", "9999"]) == 0
    for part in gpu.CALLS["benchmarks"]():
        record = json.loads((tmp_path / f"{part.name}.json").read_text())
        assert record["dry"]
        assert record["result"]["environment"]["commit"]
    (row,) = json.loads((tmp_path / "cifar10.json").read_text())["result"]["rows"]
    assert "KD" in row.values()


PYTHON = """#!/bin/sh
case "$*" in
    *--missing) [ -e "$0.installed" ] || echo "timm rich" ;;
    "-m venv"*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
    "-m pip"*) echo "$@" && [ -e "$7" ] && touch "$0.installed" ;;
    *) echo "$1" "$2" ;;
esac
"""


@pytest.fixture
def script(tmp_path):
    """Return what runs the shell script with a python that lacks packages."""
    fake = tmp_path / "python"
    fake.write_text(PYTHON)
    fake.chmod(0o755)

    def run(arguments=None, **variables):
        given = ("tests", str(tmp_path / "out")) if arguments is None else arguments
        command = ["bash", str(BENCHMARKS / "gpu.sh"), *given]
        environment = {"PATH": os.environ["PATH"], "PYTHON": str(fake), **variables}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_without_a_folder_of_wheels_what_is_missing_is_said_before_any_work(script):
    done = script()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: missing: timm rich; set WHEELS to a folder with their wheels\n"


def test_wheels_of_a_folder_are_installed_without_a_network(script, tmp_path):
    (tmp_path / "wheels").mkdir()
    wheel = tmp_path / "wheels/timm-1.whl"
    wheel.touch()
    done = script(WHEELS=str(wheel.parent))
    assert done.returncode == 0, done.stderr
    assert f"install --quiet --no-index --no-deps {wheel}" in done.stdout
    assert done.stdout.endswith("benchmarks/gpu.py tests\n")


def test_wheels_that_are_not_in_the_folder_are_named(script, tmp_path):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/other.whl").touch()
    (tmp_path / "python").write_text(PYTHON.replace(' && touch "$0.installed"', ""))
    done = script(WHEELS=str(tmp_path / "wheels"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: missing: timm rich; ")


@pytest.mark.parametrize(
    ("arguments", "variables", "told"),
    [
        ((), {}, "wanted gpu.sh tests or gpu.sh benchmarks, got ''"),
        (("test",), {}, "got 'test'"),
        (("tests", "file"), {}, "file: is not a folder"),
        (("tests", "--dry"), {}, "missing: timm rich"),  # in the usual folder
        (("tests", "out"), {"PYTHON": "no-python"}, "PYTHON is no-python, which is not a program"),
        (("tests", "out"), {"PYTHON": "false"}, "false: cannot be used"),
        (("tests", "out"), {"WHEELS": "nowhere"}, "missing: timm rich; nowhere has no wheels"),
        (("tests", "out"), {"WHEELS": "wheels"}, "wheels: not all of its wheels are for this"),
    ],
)
def test_a_call_that_cannot_be_is_one_line(
    script, tmp_path, monkeypatch, arguments, variables, told
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/other.whl").touch()
    (tmp_path / "python").write_text(PYTHON.replace('[ -e "$7" ]', "false"))
    done = script(arguments, **variables)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert told in line


def test_without_a_gpu_nothing_is_measured(gpu, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu, "CALLS", {"tests": lambda: pytest.fail("a part was asked for")})
    monkeypatch.setattr(gpu, "no_gpu", lambda: "torch 2 finds no GPU")
    for options, told in (((), "torch 2 finds no GPU"), (("--seconds", "0"), "--seconds is 0.0")):
        with pytest.raises(SystemExit, match="2"):
            gpu.main(["tests", "--out", str(tmp_path / "out"), *options])
        assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_whether_there_is_a_gpu_is_asked_of_torch(gpu, monkeypatch, tmp_path):
    for text, told in (
        ("echo True 2.9", ""),
        ("echo False 2.9", "torch 2.9 finds no GPU"),
        ("echo 'No module' >&2; exit 1", "torch cannot be imported (No module)"),
    ):
        (tmp_path / "python").write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "python").chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        assert gpu.no_gpu() == told


def test_the_page_on_speed_names_files_that_exist():
    names = re.findall(r"(?:configs|benchmarks|docs)/[\w./-]*\w", SPEED.read_text())
    assert [name for name in names if not (SPEED.parents[1] / name).exists()] == []
