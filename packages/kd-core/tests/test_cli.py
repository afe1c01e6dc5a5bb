import re
import subprocess
import sys

import pytest
from kd_core.errors import ReportedElsewhereError, RunError, UserError
from kd_core.experiment.cli import run_main, training_main
from kd_core.experiment.parsers import training_parser


@pytest.mark.parametrize("name", ["", "my module.Net", "my_module.", "net.py:Net", "*"])
def test_what_is_no_import_path_cannot_be_trusted(name, capsys):
    assert run_main(training_parser("Train").parse_args, ["--trust", name]) == 2
    assert f"--trust {name!r}: wanted an import path" in capsys.readouterr().err


def fail(arguments: list[str]) -> int:
    raise UserError("term 'dkd': no such tap;\n  did you mean 'layer4'?")


class TestRunMain:
    @pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (3, 3)])
    def test_status_is_what_the_function_returns(self, returned, status):
        assert run_main(lambda arguments: returned, []) == status

    def test_function_receives_the_arguments_of_the_process(self, monkeypatch):
        monkeypatch.setattr("sys.argv", ["tool", "a.py", "--resume"])
        seen = []
        run_main(seen.append)
        assert seen == [["a.py", "--resume"]]

    def test_user_error_is_one_line_and_status_two(self, capsys):
        assert run_main(fail, []) == 2
        output = capsys.readouterr()
        assert output.err == "error: term 'dkd': no such tap; did you mean 'layer4'?\n"
        assert output.out == ""

    def test_debug_shows_the_traceback(self, capsys):
        assert run_main(fail, ["--debug"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("Traceback")
        assert "in fail" in error

    def test_interrupt_gives_130(self):
        def interrupt(arguments: list[str]) -> None:
            raise KeyboardInterrupt

        assert run_main(interrupt, []) == 130

    def test_another_error_is_a_line_that_names_its_place_and_status_one(self, capsys):
        assert run_main(lambda arguments: 1 // 0, []) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search(r"^error: ZeroDivisionError: .*test_cli.py:\d+.*bug.*--debug", line)

    def test_an_error_of_a_run_is_status_one(self, capsys):
        def run(arguments: list[str]) -> None:
            raise RunError("runs/x (seed 0): the disk is full")

        assert run_main(run, []) == 1
        assert capsys.readouterr().err == "error: runs/x (seed 0): the disk is full\n"

    def test_what_another_process_told_is_not_told_again(self, capsys):
        def told(arguments: list[str]) -> None:
            raise ReportedElsewhereError(UserError("no such tap"))

        assert run_main(told, []) == 2
        assert capsys.readouterr().err == ""

    def test_names_cannot_write_control_characters_to_a_terminal(self, capsys):
        def name(arguments: list[str]) -> None:
            raise UserError("a\x1b[31m.jpg\udcff: is empty")

        assert run_main(name, []) == 2
        assert capsys.readouterr().err == "error: a\\x1b[31m.jpg\\udcff: is empty\n"

    @pytest.mark.parametrize(
        ("shell", "status", "errors"),
        [
            ("{} 20000 | head -1 > /dev/null", 141, ""),  # more than a pipe holds
            ("{} 9 >&-", 0, ""),
            ("{} 9 2>&-", 0, ""),
            ("PYTHONIOENCODING=ascii {} 9 | grep -c 1+-2 > /dev/null", 0, ""),
        ],
    )
    def test_streams_that_are_closed_or_ascii_give_no_traceback(
        self, tmp_path, shell, status, errors
    ):
        script = tmp_path / "tool.py"
        script.write_text(
            "import sys\n"
            "from kd_core.experiment.cli import run_main, training_main\n"
            "from kd_core.runtime.console import err, out\n"
            "def main(arguments):\n"
            "    for number in range(int(*arguments)):\n"
            "        out.print('1\u00b12')\n"
            "    err.print('[/x] :smile:')\n"
            "sys.exit(run_main(main))\n",
            encoding="utf-8",
        )
        command = f"set -o pipefail; ({shell.format(f'{sys.executable} {script}')})"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert done.stderr.replace("[/x] :smile:\n", "") == errors


class TestTrainingParser:
    def test_defaults_start_the_demo(self):
        arguments = training_parser("Train.").parse_args([])
        assert vars(arguments) == {
            "configs": [],
            "work_dir": None,
            "save_outputs": None,
            "resume": False,
            "auto_resume": False,
            "eval_only": None,
            "seeds": None,
            "share_teacher": False,
            "dry_run": False,
            "list_taps": False,
            "json": False,
            "cfg_options": [],
            "trust": (),
            "debug": False,
        }

    def test_config_files_may_stand_on_either_side_of_options(self):
        line = "data.py pair.py --work-dir runs/x method.py --seeds 0 1 --cfg-options a=1 b.c=2"
        arguments = training_parser("Train.").parse_args([*line.split(), "--cfg-options", "d=3"])
        assert arguments.configs == ["data.py", "pair.py", "method.py"]
        assert arguments.work_dir == "runs/x"
        assert arguments.seeds == [0, 1]
        assert arguments.cfg_options == ["a=1", "b.c=2", "d=3"]

    def test_two_parses_share_nothing(self):
        parser = training_parser("Train.")
        parser.parse_args(["--cfg-options", "a=1"])
        assert parser.parse_args([]).cfg_options == []

    @pytest.mark.parametrize(
        ("given", "hint"),
        [("--seed", "--seeds"), ("--cfg-option=a=1", "--cfg-options"), ("--resme", "--resume")],
    )
    def test_misspelt_option_names_the_nearest(self, given, hint):
        with pytest.raises(UserError, match=f"did you mean '{hint}'"):
            training_parser("Train.").parse_args(["a.py", given, "3"])

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ([], "--auto-resume needs --work-dir"),
            (["--work-dir", "x", "--resume"], "argument --resume: not allowed with"),
        ],
    )
    def test_auto_resume_is_told_its_folder_and_replaces_resume(self, capsys, given, message):
        assert training_main("Train.", None)(["a.py", "--auto-resume", *given]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("--eval-only x.pth --dry-run", "--dry-run and --eval-only are two things to do"),
            ("--eval-only x.pth --save-outputs y", "are two things to do"),
            ("--list-taps --dry-run", "are two things to do"),
            ("--eval-only x.pth --seeds 1", "--seeds has no effect beside --eval-only; leave"),
            ("--eval-only x.pth --seeds 0", "--seeds has no effect beside --eval-only"),
            ("--eval-only x.pth --share-teacher", "--share-teacher has no effect"),
            ("--save-outputs y --resume", "--resume has no effect beside --save-outputs"),
            ("--save-outputs y --auto-resume --work-dir r", "--auto-resume has no effect"),
        ],
    )
    def test_what_has_no_effect_on_what_is_to_be_done_is_refused(self, capsys, line, message):
        assert training_main("Train.", None)(["a.py", *line.split()]) == 2
        (told,) = capsys.readouterr().err.splitlines()
        assert message in told

    @pytest.mark.parametrize("given", [["--seeds", "a"], ["--seeds"], ["--eval-only"], ["-x"]])
    def test_a_wrong_value_is_one_line_and_status_two(self, capsys, given):
        assert run_main(training_parser("Train.").parse_args, given) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert given[0] in line


def test_what_python_can_only_ignore_is_one_line(capsys):
    class Bad:
        def __del__(self):
            raise RuntimeError("worker\nis gone")

    def leave(arguments):
        Bad()

    assert run_main(leave, []) == 0
    assert capsys.readouterr().err == "warning: ignored: RuntimeError: worker is gone\n"
