"""Train or distil a detector: `tools/det_train.py`."""

import os
import sys
from argparse import REMAINDER, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence

from kd_core.catalogue.names import LISTED
from kd_core.errors import UserError
from kd_core.experiment.cli import check_json, run_main
from kd_core.experiment.parsers import ToolParser, add_general_options, add_list, add_seeds
from kd_core.runtime import json_lines, launchers

from kd_det.arguments import PairsParser, add_own, check_pairs, images_folder
from kd_det.catalogue import CATALOGUE
from kd_det.settings.names import named_config, split_names
from kd_det.settings.zoo import find_config

_MODES = ("dry_run", "list_taps", "eval_only")
_OF_CONFIGS = (
    *("num_gpus", "num_machines", "machine_rank", "dist_url"),
    *("register", "register_images"),
)
"""Options without effect on the demo."""

_EXAMPLES = """examples:

by short names, which --list prints:
    $ det_train.py faster_rcnn_R_101_FPN,faster_rcnn_R_18_FPN reviewkd --num-gpus 8

on one machine:
    $ det_train.py --num-gpus 8 --config-file cfg.yaml

with other values:
    $ det_train.py --config-file cfg.yaml MODEL.WEIGHTS /path/to/weights.pth SOLVER.BASE_LR 0.001

on two machines:
    (first)$ det_train.py --machine-rank 0 --num-machines 2 --dist-url URL ...
    (second)$ det_train.py --machine-rank 1 --num-machines 2 --dist-url URL ...
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return run_main(_main, argv)


def _main(arguments: list[str]) -> None:
    names, rest = split_names(arguments)
    args = argument_parser().parse_args(rest)
    if args.list and not args.json:
        print(CATALOGUE.listing(args.list))
        return
    if names and args.config_file:
        raise UserError(f"{names[0]} and --config-file both name a config; leave one of them out")
    more = _names_between(args)
    while more and args.opts[:1] and args.opts[0].startswith("-"):  # options after the names
        names += more
        before = len(rest) - len(more) - len(args.opts)
        rest = [*rest[:before], *args.opts]
        args = argument_parser().parse_args(rest)
        more = _names_between(args)
    names += more
    check_pairs(args.opts)
    args.resume |= args.auto_resume
    if args.num_machines == 1 and (started := launchers.adopt()) > 1:
        raise UserError(
            f"a launcher started this tool {started} times, but it starts its processes itself: "
            "run it once a machine, with --num-gpus, and --num-machines if there are several"
        )
    check_json(args)
    with named_config(names) as found, json_lines.on_stdout(args.json):
        if found:
            args.config_file, args.opts = found.file, [*found.options, *args.opts]
        _start(args)


def _names_between(args: Namespace) -> list[str]:
    """Take the names that come before the KEY VALUE pairs out of them; return the names."""
    if args.config_file:  # of a LazyConfig keys are in lower case, as names are
        return []
    more, args.opts = split_names(args.opts)
    return more


def _start(args: Namespace) -> None:
    for option, instead in (("seeds", "SEED"), ("work_dir", "OUTPUT_DIR")):
        if getattr(args, option) and args.config_file:
            flag = _flag(option)
            raise UserError(f"{flag} is for the demo; of a config, add the pair {instead} VALUE")
    if len(modes := [name for name in _MODES if getattr(args, name)]) > 1:
        first, second, *_ = map(_flag, modes)
        raise UserError(f"{first} and {second} are two things to do; leave one of them out")
    if args.auto_resume and not (args.config_file or args.work_dir):
        raise UserError("--auto-resume of the demo needs --work-dir, to find its own folder again")
    if args.config_file:
        find_config(args.config_file)
    else:
        _check_demo(args)
    from kd_det.runner import run

    run(args)


def _check_demo(args: Namespace) -> None:
    """Reject options that have no effect on the demo."""
    parser = argument_parser()
    for name in (*_MODES, *_OF_CONFIGS):
        if getattr(args, name) != parser.get_default(name):
            raise UserError(
                f"{_flag(name)} has no effect on the demo, which is on one machine; it needs a "
                "--config-file, and there is none"
            )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def argument_parser() -> ToolParser:
    """Return the parser of Detectron2's arguments and of the few of ours."""
    parser = PairsParser(
        description="Train or distil a detector, of a --config-file or of short names: "
        "TEACHER,STUDENT METHOD. Without either, the demo runs.",
        epilog=_EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=True,  # as Detectron2's
    )
    _add_detectron2_arguments(parser)
    add_own(parser)
    parser.add_argument(
        "--register-images",
        action="extend",
        nargs="+",
        default=[],
        type=images_folder,
        metavar="NAME=FOLDER",
        help="folders of images without boxes, to be named in DATASETS.TRAIN",
    )
    text = "resume the run in OUTPUT_DIR, or start it there: for launchers that restart a run"
    parser.add_argument("--auto-resume", action="store_true", help=text)
    parser.add_argument("--dry-run", action="store_true", help="build all, run one step")
    parser.add_argument(
        "--list-taps", action="store_true", help="print what can be tapped, with shapes"
    )
    add_list(parser, LISTED)
    add_seeds(parser, "of the demo")
    parser.add_argument("--work-dir", metavar="DIR", help="of the demo")
    lines = "lines of JSON on stdout, one every 20 iterations and a last one with the result; rest "
    parser.add_argument("--json", action="store_true", help=f"{lines}to stderr")
    return add_general_options(parser)


def _add_detectron2_arguments(parser: ToolParser) -> None:
    """Add what `detectron2.engine.default_argument_parser` has; a test compares the two.

    That one cannot be called for `--help`: importing it takes seconds.
    """
    parser.add_argument(
        "--config-file", default="", metavar="FILE", help="YAML, a LazyConfig, or a name of the zoo"
    )
    parser.add_argument("--resume", action="store_true", help="resume the run in OUTPUT_DIR")
    parser.add_argument("--eval-only", action="store_true", help="evaluate, do not train")
    parser.add_argument("--num-gpus", type=int, default=1, help="number of GPUs of each machine")
    parser.add_argument("--num-machines", type=int, default=1, help="number of machines")
    parser.add_argument(
        "--machine-rank", type=int, default=0, help="number of this machine, from 0"
    )
    user = os.getuid() if sys.platform != "win32" else 1
    port = 2**15 + 2**14 + hash(user) % 2**14  # a user's own, so that left processes are seen
    parser.add_argument(
        "--dist-url",
        default=f"tcp://127.0.0.1:{port}",
        help="where the processes meet; see torch.distributed",
    )
    parser.add_argument(
        "opts",
        metavar="NAME | KEY VALUE",
        default=None,
        nargs=REMAINDER,
        help="short names, on either side of options; values that change the config, after them",
    )
