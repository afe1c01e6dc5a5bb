"""Compare trained classifiers, in tables and pictures: `tools/cls_analyse.py`."""

from collections.abc import Sequence

from kd_core.catalogue.line import one_file
from kd_core.experiment.cli import parse_options, run_main
from kd_core.runtime.paths import require_paths

from kd_cls.analysis.arguments import parser, with_limit
from kd_cls.catalogue import CATALOGUE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return run_main(_main, argv)


def _main(arguments: list[str]) -> None:
    args = with_limit(parser(str(__doc__)).parse_args(arguments))
    parse_options(args.cfg_options)
    args.data = one_file(args.data, "data", CATALOGUE)
    require_paths("image", getattr(args, "files", ()))
    from kd_cls.analysis.analyses import run

    run(args)
