"""The arguments of the training tool of detection are Detectron2's, and a few of ours."""

import pytest

pytest.importorskip("detectron2")
import kd_det  # noqa: F401  before Detectron2
from detectron2.engine import default_argument_parser
from kd_core.errors import UserError
from kd_det.train import argument_parser, main


def facts(action):
    return {
        name: getattr(action, name)
        for name in ("option_strings", "dest", "nargs", "const", "default", "type", "choices")
    } | {"kind": type(action)}


def test_all_of_detectron2_s_arguments_are_there_and_the_same():
    ours = {action.dest: action for action in argument_parser()._actions}
    theirs = default_argument_parser()
    assert len(theirs._actions) > 8
    for action in theirs._actions:
        assert facts(ours[action.dest]) == facts(action)
    assert argument_parser().allow_abbrev == theirs.allow_abbrev


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--config-file a.yaml --num-gpus 2 --resume MODEL.WEIGHTS x SOLVER.BASE_LR 0.1",
        "--config a.yaml --eval KEY -1",
        "--dist-url tcp://127.0.0.1:1 --num-machines=2 --machine-rank 1",
    ],
)
def test_a_command_line_means_what_it_means_to_detectron2(line):
    theirs = vars(default_argument_parser().parse_args(line.split()))
    ours = vars(argument_parser().parse_args(line.split()))
    assert {name: ours[name] for name in theirs} == theirs


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--confg-file a.yaml", "--confg-file; did you mean '--config-file'"),
        ("--num-gpus cuda:x", "--num-gpus: invalid int value: 'cuda:x'"),
        ("--seeds a", "--seeds: invalid int value: 'a'"),
        (
            "--seeds 0 --config-file a.yaml",
            "--seeds is for the demo; of a config, add the",
        ),
        ("--work-dir a faster_rcnn_R_18_FPN", "--work-dir is for the demo; of a config, add the"),
        ("--config-file a.yaml --dry-run --list-taps", "are two things to do"),
        ("--config-file a.yaml --dry-run --eval-only", "--dry-run and --eval-only are two"),
        ("--config-file a.yaml --json --dry-run", "--json is for training and --eval-only"),
        ("--json --list data", "leave it out with --list"),
        ("--auto-resume", "--auto-resume of the demo needs --work-dir"),
        ("--config-file nowhere.yaml", "there is no config file nowhere.yaml"),
        ("MODEL.DEVICE cpu --resume", "--resume comes after MODEL.DEVICE"),
        ("MODEL.DEVICE", "'MODEL.DEVICE' has no value"),
        ("config.yaml", "there is no config file config.yaml"),
        ("--register birds MODEL.DEVICE cpu", "--register: 'birds': wanted NAME=JSON:IMAGES"),
        ("--register a=b:c MODEL.DEVICE", "'MODEL.DEVICE' has no value"),
        ("--register a=b:c MODEL.DEVICE cpu --resume", "--resume comes after MODEL.DEVICE"),
    ],
)
def test_a_mistake_is_one_line(line, message, capsys):
    assert main(line.split()) == 2
    printed = capsys.readouterr()
    (said,) = printed.err.splitlines()
    assert message in said
    assert printed.out == ""


PAIRS = ["MODEL.DEVICE", "cpu", "SOLVER.STEPS", "(1,)"]
SETS = ["a=a.json:images", "b=b=b.json:images"]


@pytest.mark.parametrize("option", ["--register"])
@pytest.mark.parametrize("between", [[], ["--"], ["--resume"]])
def test_pairs_may_stand_behind_an_option_with_several_values(option, between):
    args = argument_parser().parse_args([option, *SETS, *between, *PAIRS])
    assert (args.register, args.opts) == (SETS, PAIRS)
    assert args.resume == (between == ["--resume"])


@pytest.mark.parametrize(
    ("option", "sets"), [("register", SETS), ("register-images", ["a=b", "c=d"])]
)
def test_an_option_that_is_given_twice_keeps_both(option, sets):
    args = argument_parser().parse_args([f"--{option}", sets[0], f"--{option}", sets[1], *PAIRS])
    assert (getattr(args, option.replace("-", "_")), args.opts) == (sets, PAIRS)


def test_pairs_behind_seeds_are_pairs():
    args = argument_parser().parse_args(["--seeds", "0", "1", *PAIRS])
    assert (args.seeds, args.opts) == ([0, 1], PAIRS)
    args = argument_parser().parse_args(["--seeds", "0", "--register", *SETS, *PAIRS])
    assert (args.seeds, args.register, args.opts) == ([0], SETS, PAIRS)
    assert argument_parser().parse_args(["--register=a=b:c", *PAIRS]).opts == PAIRS


def test_a_wrong_value_is_refused_where_the_parser_is_used_alone():
    with pytest.raises(UserError, match="invalid int value"):
        argument_parser().parse_args(["--num-gpus", "x"])


def test_several_processes_of_a_launcher_are_refused_before_work(monkeypatch, capsys):
    meeting = {"MASTER_ADDR": "here", "MASTER_PORT": "1", "RANK": "1", "WORLD_SIZE": "2"}
    for name, value in meeting.items():
        monkeypatch.setenv(name, value)
    assert main([]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "started this tool 2 times" in said
    assert "--num-gpus" in said
    with_own = ["--num-machines", "2", "--config-file", "nowhere.yaml"]
    assert main(with_own) == 2  # one process a machine, as Detectron2 wants
    assert "nowhere.yaml" in capsys.readouterr().err


def test_auto_resume_resumes():
    assert argument_parser().parse_args(["--auto-resume"]).auto_resume
