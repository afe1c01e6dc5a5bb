import pytest
from kd_core.cli import run_main, training_parser
from kd_core.errors import UserError


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

    def test_other_errors_are_bugs_and_pass(self):
        with pytest.raises(ZeroDivisionError):
            run_main(lambda arguments: 1 // 0, [])


class TestTrainingParser:
    def test_defaults_start_the_demo(self):
        arguments = training_parser("Train.").parse_args([])
        assert vars(arguments) == {
            "configs": [],
            "work_dir": None,
            "resume": False,
            "eval_only": None,
            "seeds": None,
            "together": False,
            "dry_run": False,
            "list_taps": False,
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
    def test_misspelt_option_names_the_nearest_and_exits_with_two(self, capsys, given, hint):
        with pytest.raises(SystemExit) as caught:
            training_parser("Train.").parse_args(["a.py", given, "3"])
        assert caught.value.code == 2
        assert f"did you mean '{hint}'" in capsys.readouterr().err
